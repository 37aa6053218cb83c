"""The catalogue of advisors: those that ship with Mondrian, and those of the operator's own file."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mondrian_server.advisors.tables import AdvisorFile
from mondrian_server.errors import StartupError
from mondrian_server.sampling import Sampling
from mondrian_server.toml_files import read_toml

BUILTIN_FILE = Path(__file__).with_name("builtin.toml")
_NAME_PREFIX = "advisors/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisor:
    """A named voice. `instructions` stand after the images; `sampling` holds the defaults that it sets."""

    id: str
    display_name: str
    description: str
    instructions: str
    sampling: Sampling


class Advisors:
    """Every advisor that can be asked, in the order of the ids."""

    def __init__(self, advisors: Iterable[Advisor]):
        """Hold the advisors; of two with one id the later stays."""
        by_id = {advisor.id: advisor for advisor in advisors}
        self._by_id = dict(sorted(by_id.items()))

    @classmethod
    def load(cls, own_file: Path | None = None) -> Self:
        """Read the built-in advisors and the operator's own, which replace those with the same id.

        Raises StartupError with one line for each fault of a file.
        """
        return cls((*_read(BUILTIN_FILE), *(_read(own_file) if own_file else ())))

    def get(self, name: str) -> Advisor:
        """Return the advisor of an id or a resource name, `ansel` or `advisors/ansel`; raises KeyError."""
        return self._by_id[name.removeprefix(_NAME_PREFIX)]

    def list(self) -> tuple[Advisor, ...]:
        """Return all advisors."""
        return tuple(self._by_id.values())


def _read(path: Path) -> list[Advisor]:
    tables = read_toml(path, AdvisorFile, named_by="advisors_file").advisors
    twice = [id_ for id_, count in Counter(table.id for table in tables).items() if count > 1]
    if twice:
        raise StartupError(f"{path}: advisors: the id {twice[0]!r} is there twice")
    return [
        Advisor(
            id=table.id,
            display_name=table.display_name or table.id,
            description=table.description,
            instructions=table.instructions,
            sampling=Sampling(**table.sampling.model_dump()),
        )
        for table in tables
    ]
