"""What an image becomes: oriented, RGB, within the pixel limit, and nothing but pixels."""

import hashlib
import struct

import pytest
from PIL import Image, ImageOps, PngImagePlugin

from mondrian_server.images.decoder import ImageDecoder
from mondrian_server.pictures import Picture
from tests.images.conftest import SMALL_PIXELS
from tests.images.files import FAITHFUL, FORMATS, corners, encoded, noise, oriented

WHITE = (255, 255, 255)


def image_of(picture: Picture) -> Image.Image:
    """Return the picture as a Pillow image."""
    return Image.frombytes("RGB", (picture.width, picture.height), picture.pixels)


def near(first: Image.Image, second: Image.Image, tolerance: int = 6) -> bool:
    """Whether two images have one size and no value differs by more than the tolerance."""
    pairs = zip(first.tobytes(), second.tobytes(), strict=True)
    return first.size == second.size and all(abs(a - b) <= tolerance for a, b in pairs)


async def pixel_of(decoder: ImageDecoder, image: Image.Image, kind: str = "PNG", **options: object) -> tuple[int, ...]:
    """Return the one colour that a plain image has after normalisation."""
    picture = await decoder.normalise(encoded(image, kind, **options), field="image")
    assert picture.pixels == picture.pixels[:3] * (picture.width * picture.height)
    return tuple(picture.pixels[:3])


@pytest.mark.parametrize("kind", FORMATS)
async def test_each_accepted_format_keeps_its_colours(decoder: ImageDecoder, kind: str) -> None:
    """A file of each format comes out with the colours that went in."""
    picture = await decoder.normalise(encoded(corners(64, 32), kind, **FAITHFUL.get(kind, {})), field="image")
    assert near(image_of(picture), corners(64, 32))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
async def test_exif_orientation_is_applied(decoder: ImageDecoder, kind: str, orientation: int) -> None:
    """Each of the eight orientations comes out as Pillow's own `exif_transpose` has it."""
    data = oriented(corners(64, 32), orientation, kind)
    picture = await decoder.normalise(data, field="image")
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = corners(64, 32)
    expected.info["exif"] = exif.tobytes()
    assert near(image_of(picture), ImageOps.exif_transpose(expected))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
async def test_an_orientation_that_does_not_exist_is_ignored(decoder: ImageDecoder, orientation: int) -> None:
    """Broken metadata is no reason to refuse a picture."""
    picture = await decoder.normalise(oriented(corners(), orientation), field="image")
    assert image_of(picture) == corners()


NO_TIFF = b"Exif\0\0garbage"
ORIENTATION_IN_WORDS = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0h\0\0\0"
ENDLESS = b"Exif\0\0MM\0*" + b"\xff" * 40


@pytest.mark.parametrize("exif", [NO_TIFF, ORIENTATION_IN_WORDS, ENDLESS], ids=["no TIFF", "in words", "endless"])
async def test_broken_exif_is_ignored(decoder: ImageDecoder, exif: bytes) -> None:
    """EXIF that makes no sense leaves the picture as it is."""
    picture = await decoder.normalise(encoded(corners(), "PNG", exif=exif), field="image")
    assert image_of(picture) == corners()


async def test_metadata_changes_nothing(decoder: ImageDecoder) -> None:
    """A picture with a text, a profile and a place has the pixels and the digest of one without."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "taken at home")
    plain = await decoder.normalise(encoded(corners()), field="image")
    dressed = await decoder.normalise(encoded(corners(), pnginfo=text, icc_profile=bytes(400)), field="image")
    assert dressed == plain


async def test_digest_covers_size_and_pixels(decoder: ImageDecoder) -> None:
    """The digest is the SHA-256 of width and height (32 bits, little-endian) and the pixels."""
    picture = await decoder.normalise(encoded(corners(40, 20)), field="image")
    expected = hashlib.sha256(struct.pack("<II", 40, 20) + corners(40, 20).tobytes()).digest()
    assert picture.digest == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (8, 8), 1), WHITE),
        (Image.new("L", (8, 8), 77), (77, 77, 77)),
        (Image.new("LA", (8, 8), (77, 255)), (77, 77, 77)),
        (Image.new("LA", (8, 8), (0, 0)), WHITE),
        (Image.new("I;16", (8, 8), 77 * 257), (77, 77, 77)),
        (Image.new("I;16", (8, 8), 65535), WHITE),
        (Image.new("RGB", (8, 8), (1, 2, 3)), (1, 2, 3)),
        (Image.new("RGB", (8, 8), (1, 2, 3)).quantize(2), (1, 2, 3)),
        (Image.new("RGBA", (8, 8), (1, 2, 3, 255)), (1, 2, 3)),
        (Image.new("RGBA", (8, 8), (1, 2, 3, 0)), WHITE),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 128)), (127, 127, 127)),
    ],
    ids=["1", "L", "LA", "LA clear", "I;16", "I;16 white", "RGB", "P", "RGBA", "RGBA clear", "RGBA half"],
)
async def test_each_mode_becomes_rgb(decoder: ImageDecoder, image: Image.Image, expected: tuple[int, ...]) -> None:
    """Black and white, grey, 16 bits, palettes and alpha become RGB; what is transparent lies on white."""
    assert await pixel_of(decoder, image) == expected


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
async def test_a_transparent_colour_lies_on_white(decoder: ImageDecoder, mode: str) -> None:
    """A PNG that names one colour as transparent shows white there."""
    image = Image.new(mode, (8, 8), 0)
    assert await pixel_of(decoder, image, transparency=(0, 0, 0) if mode == "RGB" else 0) == WHITE


async def test_cmyk_becomes_rgb(decoder: ImageDecoder) -> None:
    """A CMYK JPEG comes out in its colours, not in their opposites."""
    red, green, blue = await pixel_of(decoder, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert red > 245 and green < 10 and blue < 10


async def test_transparent_pixels_do_not_bleed_when_scaled_down(small_decoder: ImageDecoder) -> None:
    """The colour of invisible pixels takes no part in the average: red beside invisible green fades to white only."""
    image = Image.new("RGBA", (256, 256), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 128, 256))
    picture = await small_decoder.normalise(encoded(image), field="image")
    assert picture.width * picture.height == SMALL_PIXELS
    reds, greens, blues = (picture.pixels[channel::3] for channel in range(3))
    assert min(reds) >= 250
    assert all(abs(green - blue) <= 2 for green, blue in zip(greens, blues, strict=True))


@pytest.mark.parametrize("kind", FORMATS)
async def test_only_the_first_frame_counts(decoder: ImageDecoder, kind: str) -> None:
    """Of an animation the model sees the first frame; a JPEG with a second picture in it (MPO) is a JPEG."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    kind = "MPO" if kind == "JPEG" else kind
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **FAITHFUL.get(kind, {"quality": 95}))
    picture = await decoder.normalise(data, field="image")
    assert near(image_of(picture), frames[0])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(1600, 1200), (1200, 1600), (4000, 40), (2049, 513)])
async def test_large_images_are_scaled_down(small_decoder: ImageDecoder, kind: str, size: tuple[int, int]) -> None:
    """A large image comes to at most the pixel limit, close to it, in its own shape."""
    limit = SMALL_PIXELS
    picture = await small_decoder.normalise(encoded(corners(*size), kind), field="image")
    assert 0.85 * limit <= picture.width * picture.height <= limit
    scale = (limit / (size[0] * size[1])) ** 0.5
    assert abs(picture.width - size[0] * scale) <= 1 and abs(picture.height - size[1] * scale) <= 1


async def test_scaling_down_averages(decoder: ImageDecoder) -> None:
    """A fine pattern of black and white becomes grey: nothing is merely left out."""
    stripes = Image.new("L", (2048, 2048), 0)
    for x in range(0, 2048, 2):
        stripes.paste(255, (x, 0, x + 1, 2048))
    picture = await decoder.normalise(encoded(stripes), field="image")
    inner = image_of(picture).crop((8, 8, picture.width - 8, picture.height - 8))
    assert all(abs(value - 127) <= 8 for value in inner.tobytes())


async def test_small_images_are_left_alone(decoder: ImageDecoder) -> None:
    """Nothing is ever scaled up."""
    picture = await decoder.normalise(encoded(noise(31, 17)), field="image")
    assert image_of(picture) == noise(31, 17)
