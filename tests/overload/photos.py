"""Photos: a JPEG as large as what a phone sends after scaling down."""

import io

from PIL import Image


def photo() -> bytes:
    """Return a noisy JPEG of 1280 × 960 pixels, some hundreds of kilobytes."""
    buffer = io.BytesIO()
    Image.effect_noise((1280, 960), 48.0).convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
