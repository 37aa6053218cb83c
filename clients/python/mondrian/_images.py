"""Images, as a caller gives them: paths, bytes or open files."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import BinaryIO, TypeAlias

from mondrian._errors import FieldViolation, InvalidImage

ImageInput: TypeAlias = str | PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""An image file: its path, its bytes, or the file opened for reading bytes."""

LIMIT_BYTES = 256 * 1024 * 1024
"""More than any server takes: a wrong path, such as a disk image or a device, is not read to its end."""


def listed(images: Iterable[ImageInput]) -> list[ImageInput]:
    """Return the images as a list; a single one in its place is a `TypeError`."""
    if isinstance(images, str | bytes | bytearray | memoryview | PathLike):
        raise TypeError("images is a list: write images=[picture] for a single one")
    return list(images)


def read_images(images: Sequence[ImageInput]) -> list[bytes]:
    """Return the bytes of each image. Reads files, so call it where blocking is allowed.

    Raises:
        OSError: a path cannot be read.
        InvalidImage: a file is larger than any server takes.
        TypeError: an image is none of the accepted types.
    """
    return [_read(image, index) for index, image in enumerate(images)]


def _read(image: ImageInput, index: int) -> bytes:
    match image:
        case bytes():
            return image
        case bytearray() | memoryview():
            return bytes(image)
        case str() | PathLike():
            with Path(image).open("rb") as file:
                return _read_file(file, index)
        case _:
            return _read_file(image, index)


def _read_file(file: BinaryIO, index: int) -> bytes:
    read = getattr(file, "read", None)
    if read is None:
        raise TypeError(f"images[{index}] must be a path, bytes or a file, not {type(file).__name__}")
    data = read(LIMIT_BYTES + 1)
    if not isinstance(data, bytes):
        raise TypeError(f"images[{index}] must be a file that is open for reading bytes")
    if len(data) > LIMIT_BYTES:
        message = f"the file is larger than {LIMIT_BYTES // 2**20} MiB"
        violation = FieldViolation(field=f"config.images[{index}]", description=message)
        raise InvalidImage(f"config.images[{index}]: {message}", field_violations=(violation,))
    return data
