"""Formats: the one table of image files that are accepted, and the names of some that are not."""

import codecs
import re
from dataclasses import dataclass

_SNIFFED_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of image file. `pillow` is Pillow's name for it; `start` matches its first bytes."""

    name: str
    pillow: str
    start: re.Pattern[bytes]


ACCEPTED = (
    Format(name="JPEG", pillow="JPEG", start=re.compile(rb"\xff\xd8\xff")),
    Format(name="PNG", pillow="PNG", start=re.compile(rb"\x89PNG\r\n\x1a\n")),
    Format(name="WebP", pillow="WEBP", start=re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
)

_OTHERS = (
    (re.compile(rb"GIF8"), "a GIF image"),
    (re.compile(rb".{4}ftyp(avif|avis)", re.DOTALL), "an AVIF image"),
    (re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL), "a HEIC image"),
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
    """Return the accepted formats in words, such as "JPEG, PNG and WebP"."""
    *most, last = (format_.name for format_ in ACCEPTED)
    return f"{', '.join(most)} and {last}"


def recognise(data: bytes) -> Format | None:
    """Return the accepted format that the first bytes claim to be, or None."""
    return next((format_ for format_ in ACCEPTED if format_.start.match(data)), None)


def describe(data: bytes) -> str:
    """Return in words what a file is that is of no accepted format."""
    if not data:
        return "empty"
    head = data[:_SNIFFED_BYTES]
    for start, name in _OTHERS:
        if start.match(head):
            return name
    return "text" if _is_text(head) else "of no known image format"


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 without control characters; the last character may be cut."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
