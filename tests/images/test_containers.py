"""HEIC and AVIF, whose containers tell the size, the orientation and what is in them."""

import struct

import pytest
from PIL import Image

from mondrian_server.images.decoder import ImageDecoder
from mondrian_server.pictures import Picture
from tests.images.containers import (
    CORNERS,
    HEIGHT,
    KEPT,
    WIDTH,
    Item,
    box,
    coded_picture,
    container,
    full_box,
    grid,
    heic,
    imir,
    irot,
)
from tests.images.files import ORIENTATION_TAG, corners, encoded
from tests.images.test_pictures import image_of, near
from tests.images.test_refusals import refusal

DAMAGED = "the HEIC image is cut short or damaged"
MOVIE_HEADER = full_box(b"mvhd", struct.pack(">IIIIIH10x36s24xI", 0, 0, 600, 600, 0x10000, 0x100, bytes(36), 2))
"""The header of a track of pictures, as a sequence has it beside its primary picture."""


def exif(orientation: int) -> bytes:
    """Return EXIF that tells an orientation."""
    values = Image.Exif()
    values[ORIENTATION_TAG] = orientation
    return values.tobytes()


def quarters(image: Image.Image) -> list[tuple[int, ...]]:
    """Return the colour in the middle of each quarter, rounded to full and none."""
    places = [(image.width * x // 4, image.height * y // 4) for y in (1, 3) for x in (1, 3)]
    return [tuple(round(value / 250) * 250 for value in image.crop((x, y, x + 1, y + 1)).tobytes()) for x, y in places]


async def taken(decoder: ImageDecoder, data: bytes) -> Image.Image:
    """Return what becomes of a file."""
    picture = await decoder.normalise(data, field="image")
    assert isinstance(picture, Picture)
    return image_of(picture)


@pytest.mark.parametrize("name", ["corners.heic", "corners-10-bit.heic", "corners-10-bit.avif"])
async def test_colours_are_kept(decoder: ImageDecoder, name: str) -> None:
    """HEIC and AVIF of 8 and 10 bits come out with the colours that were drawn."""
    image = await taken(decoder, (KEPT / name).read_bytes())
    assert image.size == (WIDTH, HEIGHT)
    assert quarters(image) == quarters(corners(WIDTH, HEIGHT))


async def test_heic_alpha_lies_on_white(decoder: ImageDecoder) -> None:
    """Where the alpha plane of a HEIC file is clear, the picture is white."""
    image = await taken(decoder, (KEPT / "corners-clear.heic").read_bytes())
    assert image.getpixel((WIDTH // 4, HEIGHT * 3 // 4)) == (255, 255, 255)
    assert quarters(image)[:2] == quarters(corners(WIDTH, HEIGHT))[:2]


async def test_avif_alpha_lies_on_white(decoder: ImageDecoder) -> None:
    """Where an AVIF file is clear, the picture is white."""
    image = await taken(decoder, encoded(Image.new("RGBA", (32, 32), (0, 0, 0, 0)), "AVIF"))
    assert near(image, Image.new("RGB", (32, 32), "white"))


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"], ids=["EXIF", "odd EXIF"])
@pytest.mark.parametrize("turns", range(4))
async def test_heic_is_turned_once(decoder: ImageDecoder, turns: int, prefix: bytes) -> None:
    """A phone writes the orientation twice, for the container and in EXIF: the container's counts, once."""
    image = await taken(decoder, heic(properties=[irot(turns)], exif=prefix + exif(6)))
    expected = corners(WIDTH, HEIGHT).rotate(90 * turns, expand=True)
    assert (image.size, quarters(image)) == (expected.size, quarters(expected))


@pytest.mark.parametrize("axis", [0, 1])
async def test_heic_is_mirrored(decoder: ImageDecoder, axis: int) -> None:
    """A container that says mirrored is shown mirrored."""
    image = await taken(decoder, heic(properties=[imir(axis)]))
    method = (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT)[axis]
    assert quarters(image) == quarters(corners(WIDTH, HEIGHT).transpose(method))


async def test_heic_in_tiles(decoder: ImageDecoder) -> None:
    """A photo in tiles, turned, as phones write it, comes out whole."""
    image = await taken(decoder, grid(6, 5, size=(6 * WIDTH - 10, 5 * HEIGHT - 20), properties=[irot(3)]))
    assert image.size == (5 * HEIGHT - 20, 6 * WIDTH - 10)
    turned = corners(WIDTH, HEIGHT).rotate(270, expand=True)
    assert quarters(image.crop((image.width - HEIGHT, 0, image.width, WIDTH))) == quarters(turned)


BRANDS = {
    "heix": (b"heix", b"mif1"),
    "mif1": (b"mif1", b"miaf", b"heic"),
    "mif1 alone": (b"mif1", b"mif1"),
    "hevc": (b"hevc", b"mif1", b"heic"),
}


@pytest.mark.parametrize("brands", BRANDS.values(), ids=BRANDS)
async def test_heif_of_other_brands_is_heic(decoder: ImageDecoder, brands: tuple[bytes, ...]) -> None:
    """A HEIF file that holds HEVC is accepted whatever brand it names first."""
    assert quarters(await taken(decoder, heic(brands=brands))) == quarters(corners(WIDTH, HEIGHT))


async def test_a_sequence_shows_its_primary_picture(decoder: ImageDecoder) -> None:
    """A HEIF sequence that has a primary picture beside its track is accepted; one cut off before it is damaged."""
    still = heic(brands=(b"msf1", b"msf1", b"hevc", b"mif1", b"heic"))
    image = await taken(decoder, still + box(b"moov", MOVIE_HEADER))
    assert quarters(image) == quarters(corners(WIDTH, HEIGHT))
    assert await refusal(decoder, still) == DAMAGED


async def test_avif_behind_the_brand_of_a_container_is_avif(decoder: ImageDecoder) -> None:
    """A file that calls itself a container of images is what the brands behind it say."""
    data = encoded(corners(WIDTH, HEIGHT), "AVIF").replace(b"ftypavif", b"ftypmif1", 1)
    assert quarters(await taken(decoder, data)) == quarters(corners(WIDTH, HEIGHT))
    no_picture = heic(brands=(b"mif1", b"avif"))
    assert await refusal(decoder, no_picture) == "the AVIF image is cut short or damaged"


@pytest.mark.parametrize("size", [(7000, 7000), (32, 16), (0, 0), (2**32 - 1, 2**32 - 1)])
async def test_a_heic_header_that_is_wrong_about_the_size_is_refused(
    decoder: ImageDecoder, size: tuple[int, int]
) -> None:
    """A size that the coded picture does not have is damage: the decoder takes no more memory than the header says."""
    pid = decoder.pid
    assert await refusal(decoder, heic(size=size)) == DAMAGED
    assert decoder.pid == pid


async def test_tiles_that_do_not_cover_the_picture_are_refused(decoder: ImageDecoder) -> None:
    """A photo whose tiles leave a gap is damaged."""
    assert await refusal(decoder, grid(2, 2, size=(7000, 7000))) == DAMAGED


async def test_heic_without_its_picture_is_refused(decoder: ImageDecoder) -> None:
    """A container whose picture is of another kind than the decoder knows is refused."""
    assert await refusal(decoder, CORNERS.replace(b"hvc1", b"vvc1")) == DAMAGED


@pytest.mark.parametrize("name", [b"Ex\xfff\0", b"mime\0text/\xff\0"], ids=["type", "content type"])
async def test_heic_items_whose_names_are_no_text_are_refused(decoder: ImageDecoder, name: bytes) -> None:
    """What would end the process by the binding's own fault is refused before it sees it."""
    pid = decoder.pid
    about = Item(kind=name[:4], rest=name[4:], data=bytes(60), describes=1)
    assert await refusal(decoder, container([coded_picture(), about])) == DAMAGED
    assert decoder.pid == pid


async def test_grey_heic(decoder: ImageDecoder) -> None:
    """Grey of 8 bits comes out as it was drawn; more bits, be they there or not, are refused before the decoder."""
    data = (KEPT / "corners-grey.heic").read_bytes()
    image = await taken(decoder, data)
    assert near(image, corners(WIDTH, HEIGHT).convert("L").convert("RGB"))
    depth = data.index(b"hvcC") + 4 + 17
    for bits in (10, 12):
        deep = data[:depth] + bytes([0xF8 | bits - 8]) + data[depth + 1 :]
        assert "grey HEIC images are accepted with 8" in await refusal(decoder, deep)
