"""Views: an analysis as it stands at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from mondrian_server.analyses.spec import Spec, decode_spec
from mondrian_server.events import Progress
from mondrian_server.log.interface import Record, State


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An analysis as it stands at one moment.

    record: what the log keeps of it.
    spec: what it is to do; None once it has expired, or where it cannot be read.
    text: its text so far.
    progress: where it is; None when it has ended.
    """

    record: Record
    spec: Spec | None
    text: str
    progress: Progress | None = None

    @property
    def wants_ids(self) -> bool:
        """Whether its caller asked for the ids of tokens."""
        return self.spec is not None and self.spec.request.token_ids


def view_of(record: Record, lives: Mapping[str, tuple[str, Progress]]) -> View:
    """Return the view of a record; `lives` has the text and the progress of those that were live before it was read."""
    spec = _readable(record.spec)
    if record.state is State.ACTIVE and record.name in lives:
        text, progress = lives[record.name]
        return View(record=record, spec=spec, text=text, progress=progress)
    return View(record=record, spec=spec, text=record.text)


def _readable(data: bytes) -> Spec | None:
    """Return the spec; None if there is none, or it is of another version: that must not hide the others of a list."""
    try:
        return decode_spec(data) if data else None
    except msgspec.MsgspecError:
        return None
