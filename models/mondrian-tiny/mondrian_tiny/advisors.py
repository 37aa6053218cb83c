"""The advisors' names and instructions, read from the service's own file."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).parents[3] / "server/mondrian_server/advisors/builtin.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisor:
    """A named voice."""

    id: str
    display_name: str
    instructions: str


@cache
def advisors() -> dict[str, Advisor]:
    """Read the advisors that ship with the service, by id."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))["advisors"]
    return {
        table["id"]: Advisor(
            id=table["id"],
            display_name=table["display_name"],
            instructions=table["instructions"],
        )
        for table in tables
    }
