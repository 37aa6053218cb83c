"""Views: an analysis as it stands at one moment."""

from dataclasses import dataclass

from mondrian_server.analyses.spec import Spec
from mondrian_server.events import Progress
from mondrian_server.log.interface import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An analysis as it stands at one moment.

    record: what the log keeps of it.
    spec: what it is to do; None once it has expired.
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
