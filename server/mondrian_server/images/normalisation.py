"""Normalisation: an image file becomes a picture. Runs only in the image process, because its input is hostile."""

import hashlib
import io
import math
import struct
import warnings

from pi_heif import register_heif_opener  # pyright: ignore[reportUnknownVariableType] - its options carry no types
from PIL import AvifImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from mondrian_server.images.formats import Format, accepted_names, describe, recognise
from mondrian_server.images.gif import gif_size
from mondrian_server.images.heic import check_item_names
from mondrian_server.images.protocol import MEBIBYTE, ImageLimits
from mondrian_server.images.webp import webp_size
from mondrian_server.pictures import Picture

PLUGINS = (AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
"""Imported by name, so that Pillow does not go through all the formats that it knows to find them."""

_HEADER_SIZES = {"GIF": gif_size, "WebP": webp_size}
"""The size by the header alone, for those formats that Pillow takes memory for before it tells their size."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings each EXIF orientation upright."""

_PLAIN = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
"""What becomes of modes whose values cannot be averaged, or are premultiplied by a decoder."""

_PREMULTIPLIED = {"LA": "La", "RGBA": "RGBa"}
"""Modes with alpha, and those in which colours can be averaged without what is transparent bleeding in."""

# Where such a file's coded picture has 8 bits after all, pi-heif 1.4.0 writes beyond the end of its memory.
_DEEP_GREY = "the HEIC image is grey, of more than 8 bits a pixel; grey HEIC images are accepted with 8"

_DRAFT_GAP = 1.5
"""A JPEG is decoded at the smallest of its scales (1/2, 1/4, 1/8) that is still this much larger than the result."""


class Refusal(Exception):
    """The image is not accepted; the message says why, in words for the caller."""


def prepare_pillow() -> None:
    """Set the decoders up: our own limits apply, one thread decodes, and remarks about callers' files reach no log."""
    Image.MAX_IMAGE_PIXELS = None
    warnings.simplefilter("ignore")
    # One thread each: more of them decode no faster here, flood the engine's cores and cost address space.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)


def normalise(data: bytes, limits: ImageLimits) -> Picture:
    """Return the picture of an image file; raises Refusal."""
    found = recognise(data)
    if found is None:
        raise Refusal(f"the image is {describe(data)}; {accepted_names()} are accepted")
    try:
        return _picture(_upright(_decode(data, found, limits)))
    except MemoryError as error:
        raise Refusal(memory_message(limits)) from error
    except Refusal:
        raise
    except Exception as error:  # Pillow raises nearly anything at a broken file, by its own account and by fuzzing.
        raise Refusal(f"the {found.name} image is cut short or damaged") from error


def memory_message(limits: ImageLimits) -> str:
    """Return what is said of an image that needs more memory than the process may have."""
    return f"decoding the image needs more memory than the {limits.memory_limit_bytes // MEBIBYTE:,} MiB allowed"


def _decode(data: bytes, found: Format, limits: ImageLimits) -> tuple[Image.Image, int]:
    """Return the first frame in RGB, scaled down, and its orientation."""
    if found.name in _HEADER_SIZES:
        _check_size(_HEADER_SIZES[found.name](data), limits)
    if found.name == "HEIC":
        check_item_names(data)
    with Image.open(io.BytesIO(data), formats=[found.pillow]) as image:
        if found.name == "HEIC" and image.mode.startswith("I"):
            raise Refusal(_DEEP_GREY)
        _check_size(image.size, limits)
        size = _normalised_size(image.size, limits.max_normalised_pixels)
        image.draft(None, (math.ceil(size[0] * _DRAFT_GAP), math.ceil(size[1] * _DRAFT_GAP)))
        image.load()
        # After load(), because a container may be wrong about the size, and a PNG may have its EXIF behind the pixels.
        _check_size(image.size, limits)
        size = _normalised_size(image.size, limits.max_normalised_pixels)
        orientation = 1 if found.decoded_upright else _orientation(image)
        return _on_white(_scaled(_without_palette(image), size)), orientation


def _check_size(size: tuple[int, int] | None, limits: ImageLimits) -> None:
    if size is None:
        return
    width, height = size
    if width * height > limits.max_pixels:
        raise Refusal(
            f"the image is {width:,} × {height:,} pixels, which is {_megapixels(width * height)}; "
            f"at most {_megapixels(limits.max_pixels)} are accepted"
        )
    if max(size) > limits.max_aspect_ratio * min(size):
        raise Refusal(
            f"the image is {width:,} × {height:,} pixels; "
            f"the longer side may be at most {limits.max_aspect_ratio:,} times the shorter one"
        )


def _megapixels(pixels: int) -> str:
    # Rounded up, so that what is refused never reads like the limit itself.
    return f"{math.ceil(pixels / 100_000) / 10:,.1f}".removesuffix(".0") + " megapixels"


def _normalised_size(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return the largest size of the same shape that is within the limit, and never larger than `size`."""
    width, height = size
    scale = math.sqrt(max_pixels / (width * height))
    if scale >= 1:
        return size
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    return min(width, max_pixels // height), min(height, max_pixels // width)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # Broken metadata is no reason to refuse a picture that decodes.
        return 1


def _without_palette(image: Image.Image) -> Image.Image:
    """Return the image in a mode whose values can be averaged: L, LA, RGB, RGBA or CMYK."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion to 8 bits would clip, not scale.
        return image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if "transparency" in image.info and image.mode not in ("LA", "RGBA"):
        return image.convert("RGBA")
    plain = _PLAIN.get(image.mode)
    return image.convert(plain) if plain else image


def _scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    # Pillow would premultiply by itself, but then it leaves out the fast first step of `reducing_gap`.
    premultiplied = _PREMULTIPLIED.get(image.mode)
    source = image.convert(premultiplied) if premultiplied else image
    small = source.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return small.convert(image.mode) if premultiplied else small


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image in RGB, what is transparent laid on white."""
    if image.mode not in ("LA", "RGBA"):
        return image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return white


def _upright(decoded: tuple[Image.Image, int]) -> Image.Image:
    image, orientation = decoded
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _picture(image: Image.Image) -> Picture:
    pixels = image.tobytes()
    digest = hashlib.sha256(struct.pack("<II", image.width, image.height))
    digest.update(pixels)
    return Picture(width=image.width, height=image.height, pixels=pixels, digest=digest.digest())
