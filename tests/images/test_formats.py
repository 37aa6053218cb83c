"""The table of formats: what is accepted stands in one place, and the documents say the same."""

from pathlib import Path

import pytest
from PIL import Image

from mondrian_server.images.decoder import ImageDecoder
from mondrian_server.images.formats import ACCEPTED, accepted_names, recognise
from tests.images.containers import CORNERS
from tests.images.files import FORMATS, NAMES, corners, encoded, gif
from tests.images.test_pictures import image_of

ROOT = Path(__file__).parents[2]


def test_every_format_is_recognised() -> None:
    """A file of each format is found in the table, and the table has no other rows."""
    names = {NAMES.get(kind, kind): encoded(corners(), kind) for kind in FORMATS} | {"HEIC": CORNERS}
    assert {name: found.name for name, data in names.items() if (found := recognise(data))} == {n: n for n in names}
    assert {format_.name for format_ in ACCEPTED} == set(names)


def test_the_documents_say_what_is_accepted() -> None:
    """The table in docs/behavior.md has the rows of the code's table, and the contract names the same formats."""
    page = (ROOT / "docs" / "behavior.md").read_text(encoding="utf-8")
    rows = "".join(f"| {format_.name} | {format_.content} |\n" for format_ in ACCEPTED)
    assert f"| format | what is taken of it |\n|---|---|\n{rows}\n" in page
    contract = (ROOT / "protos" / "mondrian" / "v1" / "analysis.proto").read_text(encoding="utf-8")
    assert f"// {accepted_names()} are accepted" in contract


@pytest.mark.parametrize("head", [b"", b"\0\0\0\x18ftyp", b"\0\0\0\0ftypmif1", b"\xff\xff\xff\xffftypmif1\0"])
def test_half_a_container_is_no_fault(head: bytes) -> None:
    """A container cut anywhere in its first box is recognised or not, and raises nothing."""
    found = recognise(head)
    assert found is None or found.name == "HEIC"


async def test_gif_transparency_lies_on_white(decoder: ImageDecoder) -> None:
    """The clear colour of a GIF is white, and so is what its first frame leaves free."""
    image = Image.new("P", (8, 8), 0)
    image.putpalette([250, 0, 0, 0, 250, 0])
    image.paste(1, (0, 0, 4, 8))
    picture = image_of(await decoder.normalise(encoded(image, "GIF", transparency=0), field="image"))
    assert (picture.getpixel((1, 1)), picture.getpixel((6, 1))) == ((0, 250, 0), (255, 255, 255))


async def test_a_gif_frame_beyond_its_screen_counts_whole(decoder: ImageDecoder) -> None:
    """A frame that is larger than the screen that the header names makes the picture larger."""
    whole = encoded(corners(), "GIF")
    picture = await decoder.normalise(whole[:6] + b"\x01\0\x01\0" + whole[10:], field="image")
    assert (picture.width, picture.height) == corners().size
    assert gif((1, 1), (0, 0, 1, 1)).startswith(b"GIF89a")
