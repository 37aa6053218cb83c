"""Wear: what happens to a picture on its way here, such as blur, a slight cast, grain and JPEG."""

import io

import numpy as np
from PIL import Image, ImageFilter


def canvas_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draw a width and a height: a short side of 128 to 288 pixels, 5:7 to 7:5."""
    short = int(rng.integers(128, 289))
    long = round(short * rng.uniform(1, 1.4))
    return (short, long) if rng.random() < 0.5 else (long, short)


def worn(image: Image.Image, rng: np.random.Generator, *, grain: float = 4.0) -> Image.Image:
    """Return the picture after blur, cast, grain and, more often than not, JPEG loss."""
    if rng.random() < 0.5:
        radius = rng.uniform(0.2, 0.007 * min(image.size))
        image = image.filter(ImageFilter.GaussianBlur(radius))
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels * rng.uniform(0.97, 1.03, 3).astype(np.float32)
    if rng.random() < 0.5:
        noise = rng.standard_normal(pixels.shape, dtype=np.float32)
        pixels = pixels + noise * rng.uniform(0, grain)
    image = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    return _jpeg(image, int(rng.integers(45, 96))) if rng.random() < 0.6 else image


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
