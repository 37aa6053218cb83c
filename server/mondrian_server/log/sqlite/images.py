"""Images in SQL: files as they came, pictures from then on."""

import sqlite3
import zlib
from collections.abc import Sequence

from mondrian_server.log.codec import Damaged
from mondrian_server.log.interface import Images
from mondrian_server.pictures import Picture

_INSERT = "INSERT INTO images (number, position, width, height, digest, checksum, data) VALUES (?, ?, ?, ?, ?, ?, ?)"


def put_files(connection: sqlite3.Connection, number: int, files: Sequence[bytes]) -> None:
    """Keep image files as they came."""
    for position, data in enumerate(files):
        connection.execute(_INSERT, (number, position, 0, 0, b"", zlib.crc32(data), data))


def put_pictures(connection: sqlite3.Connection, number: int, pictures: Sequence[Picture]) -> None:
    """Keep pictures in place of what was kept."""
    delete(connection, number)
    for position, picture in enumerate(pictures):
        checksum = zlib.crc32(picture.pixels)
        values = (number, position, picture.width, picture.height, picture.digest, checksum, picture.pixels)
        connection.execute(_INSERT, values)


def read(connection: sqlite3.Connection, number: int) -> Images:
    """Return what is kept; raises Damaged."""
    files: list[bytes] = []
    pictures: list[Picture] = []
    for width, height, digest, checksum, data in connection.execute(
        "SELECT width, height, digest, checksum, data FROM images WHERE number = ? ORDER BY position", (number,)
    ):
        if zlib.crc32(data) != checksum:
            raise Damaged("a kept image does not match its checksum")
        if digest:
            pictures.append(Picture(width=width, height=height, pixels=data, digest=digest))
        else:
            files.append(data)
    return Images(files=tuple(files), pictures=tuple(pictures))


def delete(connection: sqlite3.Connection, number: int) -> None:
    """Delete what is kept."""
    connection.execute("DELETE FROM images WHERE number = ?", (number,))
