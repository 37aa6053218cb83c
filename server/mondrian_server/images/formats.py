"""Formats: the one table of image files that are accepted, and the names of some that are not."""

import codecs
import re
from dataclasses import dataclass

_SNIFFED_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of image file, recognised by its first bytes or by a brand of its container (ISO/IEC 14496-12).

    name: what callers call it.
    pillow: Pillow's name for it.
    content: what of such a file is taken.
    start: matches its first bytes.
    brands: those that its container may name.
    decoded_upright: whether its decoder turns the picture upright by itself, so that nobody may turn it again.
    """

    name: str
    pillow: str
    content: str
    start: re.Pattern[bytes] | None = None
    brands: frozenset[bytes] = frozenset()
    decoded_upright: bool = False


ACCEPTED = (
    Format(
        name="JPEG",
        pillow="JPEG",
        content="RGB, grey and CMYK; the first picture of an MPO file",
        start=re.compile(rb"\xff\xd8\xff"),
    ),
    Format(
        name="PNG",
        pillow="PNG",
        content="all modes, 16 bits included; the first frame of an APNG",
        start=re.compile(rb"\x89PNG\r\n\x1a\n"),
    ),
    Format(
        name="WebP",
        pillow="WEBP",
        content="lossy and lossless; the first frame",
        start=re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    ),
    Format(
        name="HEIC",
        pillow="HEIF",
        content="the primary picture, of 8 to 12 bits (grey: 8), whole or in tiles; HEIF files that hold HEVC, too",
        brands=frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}),
        decoded_upright=True,
    ),
    Format(
        name="AVIF",
        pillow="AVIF",
        content="the primary picture or the first frame, of 8 to 12 bits",
        brands=frozenset({b"avif", b"avis"}),
    ),
    Format(
        name="GIF",
        pillow="GIF",
        content="the first frame",
        start=re.compile(rb"GIF8[79]a"),
    ),
)

_CONTAINER_BRANDS = frozenset({b"mif1", b"msf1"})
"""Brands that say how a file is built and not what it holds: the compatible brands behind them say that."""

_OTHERS = (
    (re.compile(rb".{4}ftyp", re.DOTALL), "a video"),
    (re.compile(rb"II\*\0|MM\0\*"), "a TIFF or raw image"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), "a BMP image"),
    (re.compile(rb"\0\0\x01\0"), "an icon"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL image"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 image"),
    (re.compile(rb"PK[\x03\x05\x07]"), "a ZIP archive"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive"),
    (re.compile(rb"%PDF"), "a PDF document"),
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)", re.I | re.DOTALL),
        "an HTML page",
    ),
    (re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!.*?>\s*)*<svg", re.I | re.DOTALL), "an SVG drawing"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<\?xml", re.I), "an XML document"),
    (re.compile(rb"\s*(data:|https?://|file:/)", re.I), "a URL; send the bytes of the file"),
    (re.compile(rb"(/9j/|iVBORw0KGgo|UklGR)"), "base64 text; send the bytes of the file"),
)


def accepted_names() -> str:
    """Return the accepted formats in words, such as "JPEG, PNG and GIF"."""
    *most, last = (format_.name for format_ in ACCEPTED)
    return f"{', '.join(most)} and {last}"


def recognise(data: bytes) -> Format | None:
    """Return the accepted format that the first bytes claim to be, or None."""
    brand = _brand(data)
    for format_ in ACCEPTED:
        if brand in format_.brands or (format_.start is not None and format_.start.match(data)):
            return format_
    return None


def describe(data: bytes) -> str:
    """Return in words what a file is that is of no accepted format."""
    if not data:
        return "empty"
    head = data[:_SNIFFED_BYTES]
    for start, name in _OTHERS:
        if start.match(head):
            return name
    return "text" if _is_text(head) else "of no known image format"


def _brand(data: bytes) -> bytes | None:
    """Return the brand that says what a container holds, or None where the file is no such container.

    A container of images that names nothing that it holds is taken for HEIC, whose decoder says whether it is.
    """
    if data[4:8] != b"ftyp":
        return None
    major = data[8:12]
    if major not in _CONTAINER_BRANDS:
        return major
    box = data[: min(int.from_bytes(data[:4], "big"), _SNIFFED_BYTES)]
    compatible = [box[start : start + 4] for start in range(16, len(box), 4)]
    held = (brand for brand in compatible for format_ in ACCEPTED if brand in format_.brands)
    return next(held, b"heic")


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 without control characters; the last character may be cut."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
