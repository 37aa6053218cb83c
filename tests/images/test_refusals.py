"""What is refused: each file with a message that says what was found and what is accepted, the process unharmed."""

import io
import random
import struct
import sys
import zipfile
import zlib
from typing import Any

import pytest

from mondrian_server.errors import InvalidImage
from mondrian_server.images.decoder import ImageDecoder
from mondrian_server.images.protocol import MEBIBYTE, ImageLimits
from mondrian_server.pictures import Picture
from tests.images.containers import CORNERS, grid, heic
from tests.images.files import FORMATS, NAMES, corners, encoded, gif, noise, png, webp_canvas

ACCEPTED = "JPEG, PNG, WebP, HEIC, AVIF and GIF are accepted"


def zip_archive() -> bytes:
    """Return a ZIP archive with a picture in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("picture.png", encoded(corners()))
    return buffer.getvalue()


async def refusal(decoder: ImageDecoder, data: bytes) -> str:
    """Return the message with which the image is refused."""
    with pytest.raises(InvalidImage) as caught:
        await decoder.normalise(data, field="config.images[3]")
    assert caught.value.field == "config.images[3]"
    return caught.value.message


OTHER_FILES = {
    "nothing": (b"", "empty"),
    "ZIP": (zip_archive(), "a ZIP archive"),
    "HTML": (b"<!DOCTYPE html><html><body>Not found</body></html>", "an HTML page"),
    "HTML without a doctype": (b"\n  <html>", "an HTML page"),
    "SVG": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    "JSON": (b'{"error": "not found"}', "text"),
    "text": ("根據您的問題".encode(), "text"),
    "text cut in a character": ("問題".encode() * 200, "text"),
    "URL": (b"https://example.com/picture.jpg", "a URL; send the bytes of the file"),
    "base64": (b"/9j/4AAQSkZJRgABAQAAAQABAAD", "base64 text; send the bytes of the file"),
    "PDF": (b"%PDF-1.7\n", "a PDF document"),
    "TIFF": (encoded(corners(), "TIFF"), "a TIFF or raw image"),
    "BMP": (encoded(corners(), "BMP"), "a BMP image"),
    "video": (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
    "zeros": (bytes(100), "of no known image format"),
    "half of a signature": (b"\x89PN", "of no known image format"),
}


@pytest.mark.parametrize(("data", "found"), OTHER_FILES.values(), ids=OTHER_FILES)
async def test_other_files_are_named(decoder: ImageDecoder, data: bytes, found: str) -> None:
    """A file of no accepted format is refused by name, and the message says which formats are accepted."""
    assert await refusal(decoder, data) == f"the image is {found}; {ACCEPTED}"


def whole(kind: str) -> bytes:
    """Return a good file of a format."""
    return CORNERS if kind == "HEIC" else encoded(noise(200, 200), kind)


@pytest.mark.parametrize("kind", [*FORMATS, "HEIC"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
async def test_truncated_images_are_refused(decoder: ImageDecoder, kind: str, part: float) -> None:
    """A file that was cut short is not shown to the model in part."""
    data = whole(kind)
    message = await refusal(decoder, data[: int(len(data) * part)])
    assert message == f"the {NAMES.get(kind, kind)} image is cut short or damaged"


STARTS = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "WebP": b"RIFF\x10\0\0\0WEBPVP8 ",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
    "GIF": b"GIF89a",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
async def test_a_beginning_alone_is_no_image(decoder: ImageDecoder, start: bytes) -> None:
    """A file that only begins like an image is damaged, whatever follows."""
    for rest in (b"", b"\0" * 50, b"<html>" * 50):
        assert "is cut short or damaged" in await refusal(decoder, start + rest)


@pytest.mark.parametrize("options", [{"quality": 50}, {"lossless": True}, {"quality": 50, "exif": b"Exif\0\0"}])
async def test_webp_headers_of_all_kinds_tell_the_size(options: dict[str, Any]) -> None:
    """A WebP image over the limit is refused by its header, be it lossy, lossless or extended."""
    async with ImageDecoder(ImageLimits(max_pixels=300 * 100 - 1)) as strict:
        message = await refusal(strict, encoded(noise(300, 100), "WEBP", **options))
        assert message.startswith("the image is 300 × 100 pixels, which is 0.1 megapixels")
        assert (await strict.normalise(encoded(noise(299, 100), "WEBP", **options), field="image")).width == 299


async def test_51_megapixels_are_too_many(decoder: ImageDecoder) -> None:
    """An image over 50 megapixels is refused with its size and the limit."""
    message = await refusal(decoder, png(8500, 6000))
    assert message == "the image is 8,500 × 6,000 pixels, which is 51 megapixels; at most 50 megapixels are accepted"


async def test_50_megapixels_are_accepted(decoder: ImageDecoder) -> None:
    """An image of just the limit is accepted."""
    picture = await decoder.normalise(png(10_000, 5_000), field="image")
    assert (picture.width, picture.height) == (1448, 724)


AVIF = encoded(corners(128, 64), "AVIF")
BOMBS = {
    "PNG": png(20_000, 20_000),
    "WebP": webp_canvas(16_384, 16_384),
    "HEIC": heic(size=(20_000, 20_000)),
    "HEIC in tiles": grid(2, 2, size=(20_000, 20_000)),
    "AVIF": AVIF.replace(struct.pack(">II", 128, 64), struct.pack(">II", 16_000, 16_000)),
    "GIF screen": gif((65_535, 65_535), (0, 0, 1, 1)),
    "GIF frame": gif((1, 1), (0, 0, 65_535, 65_535)),
    "GIF frame that is disposed of": gif((1, 1), (0, 0, 65_535, 65_535), disposal=2),
    "GIF frame far out": gif((1, 1), (65_000, 65_000, 1, 1)),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
async def test_bombs_are_refused_by_their_size(decoder: ImageDecoder, data: bytes) -> None:
    """A small file that would become a huge picture is refused before anything is unpacked."""
    assert len(data) < 100_000
    assert "at most 50 megapixels are accepted" in await refusal(decoder, data)


async def test_a_size_without_pixels_is_refused(decoder: ImageDecoder) -> None:
    """A header that promises more than the largest PNG is only a number."""
    message = await refusal(decoder, png(2**31 - 1, 2**31 - 1, pixels=b""))
    assert "2,147,483,647 × 2,147,483,647 pixels" in message


async def test_strips_are_refused(decoder: ImageDecoder) -> None:
    """A picture that is one thin line is refused, because models cannot look at it."""
    message = await refusal(decoder, png(20_100, 100))
    assert message == ("the image is 20,100 × 100 pixels; the longer side may be at most 200 times the shorter one")
    assert (await decoder.normalise(png(20_000, 100), field="image")).width > 10_000


async def test_too_many_bytes_are_refused(decoder: ImageDecoder) -> None:
    """A file over 20 MiB is refused without being sent to the process."""
    message = await refusal(decoder, bytes(20 * MEBIBYTE + 1))
    assert message == "the image has 20.0 MiB; at most 20.0 MiB are accepted"


@pytest.mark.parametrize("kind", FORMATS)
async def test_random_damage_ends_in_a_picture_or_a_refusal(decoder: ImageDecoder, kind: str) -> None:
    """Files with bytes changed at random never end the process."""
    pid = decoder.pid
    draw = random.Random(kind)
    whole = encoded(noise(64, 48), kind)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            assert isinstance(await decoder.normalise(bytes(data), field="image"), Picture)
        except InvalidImage as error:
            assert error.message
    assert decoder.pid == pid


async def test_png_text_bombs_do_no_harm(decoder: ImageDecoder) -> None:
    """Text that unpacks to a hundred times its size costs no more than a refusal."""
    data = png(8, 8)
    text = b"Comment\0\0" + zlib.compress(bytes(64 * MEBIBYTE))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    assert "damaged" in await refusal(decoder, data[:33] + chunk + data[33:])


if sys.platform == "linux":  # Elsewhere the address space cannot be bounded.

    async def test_memory_is_bounded() -> None:
        """An image that needs more memory than allowed costs only itself."""
        limits = ImageLimits(memory_limit_bytes=96 * MEBIBYTE)
        async with ImageDecoder(limits) as small:
            message = await refusal(small, png(10_000, 5_000, bits=8))
            assert message == "decoding the image needs more memory than the 96 MiB allowed"
            assert (await small.normalise(encoded(corners()), field="image")).width == 40
