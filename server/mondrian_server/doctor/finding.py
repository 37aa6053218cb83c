"""Findings: what was looked at, how it stands, and what to do about it."""

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How a thing stands. Only a PROBLEM keeps the service from starting or from answering."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `advice` is empty where there is nothing to do."""

    check: str
    level: Level
    text: str
    advice: str = ""


def ok(check: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(check=check, level=Level.OK, text=text)


def warning(check: str, text: str, advice: str) -> Finding:
    """Return that the service works, but perhaps not as it is meant to."""
    return Finding(check=check, level=Level.WARNING, text=text, advice=advice)


def problem(check: str, text: str, advice: str) -> Finding:
    """Return that the service cannot start, or cannot answer."""
    return Finding(check=check, level=Level.PROBLEM, text=text, advice=advice)
