"""Light: measures brightness, contrast and light direction on the pixels that the model sees."""

from typing import Any

import numpy as np
from PIL import Image

from mondrian_tiny.shape import IMAGE_SIZE

Plane = np.ndarray[Any, np.dtype[np.float32]]


def model_pixels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Resize as the image processor does: `(128, 128, 3)` uint8, RGB."""
    square = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    return np.asarray(square, dtype=np.uint8)


def luminance(pixels: np.ndarray[Any, Any]) -> Plane:
    """Weigh the channels (Rec. 601), 0 to 1."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return (pixels.astype(np.float32) @ weights) / 255


def brightness_of(plane: Plane) -> str:
    """Name the mean level; empty between the classes, where people would not agree."""
    mean = float(plane.mean())
    if mean <= 0.32:
        return "dark"
    if 0.40 <= mean <= 0.58:
        return "medium"
    return "bright" if mean >= 0.66 else ""


def contrast_of(plane: Plane) -> str:
    """Name the spread of levels; empty between the classes."""
    spread = float(plane.std())
    return "low" if spread <= 0.11 else "high" if spread >= 0.155 else ""


def light_of(plane: Plane) -> str:
    """Name the side that the light comes from, or `even`; empty where that is doubtful."""
    half, spread = IMAGE_SIZE // 2, float(plane.std())
    across = float(plane[:, half:].mean() - plane[:, :half].mean())
    down = float(plane[half:].mean() - plane[:half].mean())
    strong, weak = max(abs(across), abs(down)), min(abs(across), abs(down))
    if strong <= 0.15 * spread:
        return "even"
    if strong < 0.8 * spread or weak > 0.4 * strong:
        return ""
    if abs(across) > abs(down):
        return "right" if across > 0 else "left"
    return "bottom" if down > 0 else "top"
