"""The cursor of a stream: what has been seen of an analysis, and how it ended."""

from mondrian._errors import InternalError, MondrianError
from mondrian._status import from_cancelled, from_failed
from mondrian.v1 import analysis_pb2


class Cursor:
    """Follows one analysis through its messages; shared by the streams of both clients.

    A stream that is resumed goes on with the same cursor, after `sequence`.
    """

    def __init__(self, analysis: str = "", sequence: int = 0) -> None:
        """Begin after a sequence of an analysis; without a name, at the first event of whichever is accepted."""
        self.analysis = analysis
        self.sequence = sequence
        self._start = sequence
        self._texts: list[str] = []
        self._completed = False
        self._error: MondrianError | None = None

    @property
    def text(self) -> str:
        """The text of the events that came."""
        return "".join(self._texts)

    @property
    def ended(self) -> bool:
        """Whether the terminal event has come."""
        return self._completed or self._error is not None

    def advance(self, message: analysis_pb2.Event) -> bool:
        """Take note of the next message; returns False for one that has been seen before.

        Raises:
            InternalError: an event is missing.
        """
        if message.sequence <= self.sequence:
            return False
        if message.sequence > self.sequence + 1:
            raise InternalError(f"event {message.sequence} came after event {self.sequence}", analysis=self.analysis)
        self.sequence = message.sequence
        self.analysis = message.analysis
        match message.WhichOneof("payload"):
            case "token":
                self._texts.append(message.token.text)
            case "completed":
                self._completed = True
            case "failed":
                self._error = from_failed(message.failed)
            case "cancelled":
                self._error = from_cancelled(message.cancelled)
            case _:
                pass
        return True

    def end(self, error: MondrianError | None = None) -> MondrianError | None:
        """Return what the loop raises when the call ended so: None after `completed`, whatever came later.

        A watch that began after the terminal event ends well too: there is nothing more to see.
        """
        if self._completed or (error is None and 0 < self._start == self.sequence):
            return None
        ending = self._error or error or InternalError("the stream ended before the analysis did")
        ending.analysis = self.analysis
        return ending
