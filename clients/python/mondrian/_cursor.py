"""The cursor of a stream: what has been seen of an analysis, and how it ended."""

from mondrian._errors import InternalError, MondrianError
from mondrian._status import from_cancelled, from_failed
from mondrian.v1 import analysis_pb2


class Cursor:
    """Follows one analysis through its messages; shared by the streams of both clients.

    A stream that is resumed goes on with the same cursor, after `sequence`.
    """

    def __init__(self) -> None:
        self.sequence = 0
        self.analysis = ""
        self._texts: list[str] = []
        self._completed = False
        self._error: MondrianError | None = None

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def advance(self, message: analysis_pb2.Event) -> None:
        """Take note of the next message."""
        self.sequence = message.sequence
        self.analysis = message.analysis
        match message.WhichOneof("payload"):
            case "token":
                self._texts.append(message.token.text)
            case "completed":
                self._completed = True
            case "failed":
                self._error = from_failed(message)
            case "cancelled":
                self._error = from_cancelled(message)
            case _:
                pass

    def end(self, error: MondrianError | None = None) -> MondrianError | None:
        """Return what the loop raises when the call ended so: None after `completed`, whatever came later."""
        if self._completed:
            return None
        ending = self._error or error or InternalError("the stream ended before the analysis did")
        ending.analysis = self.analysis
        return ending
