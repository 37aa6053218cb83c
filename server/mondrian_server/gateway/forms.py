"""Forms: multipart bodies taken apart as they come, in memory, with every part named by what it may be."""

from collections import defaultdict
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from mondrian_server.gateway.bodies import Body
from mondrian_server.gateway.refusals import invalid

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks  # not there at run time

IMAGE = "image"
CONFIG = "config"
REQUEST_ID = "requestId"
TEXTS = ("prompt", "advisor", "instructions", "model")
"""Fields of `AnalysisConfig` that can stand in a form by themselves."""

_NAMES = frozenset({IMAGE, CONFIG, REQUEST_ID, *TEXTS})
_ONCE = _NAMES - {IMAGE}


class Form:
    """The parts of a form by their names, in the order in which they came."""

    def __init__(self) -> None:
        """Begin without any."""
        self._parts: defaultdict[str, list[bytearray]] = defaultdict(list)

    def add(self, name: str) -> bytearray:
        """Begin another part and return what its content is added to; raises Refusal for one that is not expected."""
        if name not in _NAMES:
            raise invalid(f"there is no such field; those of a form are {', '.join(sorted(_NAMES))}", field=name[:64])
        if name in _ONCE and self._parts[name]:
            raise invalid("stands in the form twice", field=name)
        content = bytearray()
        self._parts[name].append(content)
        return content

    def text(self, name: str) -> str | None:
        """Return the text of a field; None where it was not sent."""
        parts = self._parts[name]
        try:
            return parts[0].decode() if parts else None
        except UnicodeDecodeError:
            raise invalid("is not valid UTF-8", field=name) from None

    def take_images(self) -> list[bytes]:
        """Return the images; the form lets go of them."""
        parts = self._parts.pop(IMAGE, [])
        images: list[bytes] = []
        while parts:
            images.append(bytes(parts.pop(0)))
        return images


async def read_form(body: Body, content_type: str, *, max_parts: int) -> Form:
    """Read a multipart body; raises Refusal where it is malformed, too large or too slow."""
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise invalid("has no boundary", field="Content-Type")
    assembly = _Assembly(max_parts)
    try:
        parser = MultipartParser(boundary, assembly.callbacks())
        async for piece in body:
            parser.write(piece)
        parser.finalize()
    except FormParserError:
        raise invalid("the body is no well-formed multipart/form-data") from None
    if not assembly.ended:
        raise invalid("the body ends before its last boundary")
    return assembly.form


class _Assembly:
    """What the parser calls as it goes through the body."""

    def __init__(self, max_parts: int) -> None:
        self.form = Form()
        self.ended = False
        self._room = max_parts
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._content = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": self._header_comes,
            "on_header_value": self._value_comes,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._content_begins,
            "on_part_data": self._content_comes,
            "on_end": self._form_ends,
        }

    def _part_begins(self) -> None:
        self._room -= 1
        if self._room < 0:
            raise invalid("the form has too many parts")
        self._disposition = b""

    def _header_comes(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _value_comes(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _content_begins(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        name = parameters.get(b"name", b"").decode(errors="replace")
        if not name:
            raise invalid("a part of the form has no name in its Content-Disposition")
        self._content = self.form.add(name)

    def _content_comes(self, data: bytes, start: int, end: int) -> None:
        self._content += memoryview(data)[start:end]

    def _form_ends(self) -> None:
        self.ended = True
