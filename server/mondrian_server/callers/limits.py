"""Limits: how much one caller may have in work and in waiting, and how often it may ask."""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerLimits:
    """The limits of one caller; 0 sets none, and None leaves the choice to the server's settings."""

    max_running_analyses: int | None = None
    """Analyses in the engine at once; the others wait."""
    max_waiting_analyses: int | None = None
    """Analyses that wait for a slot."""
    max_waiting_bytes: int | None = None
    """Bytes of the images of analyses that have not started."""
    max_requests_per_minute: int | None = None
    """New analyses within any minute."""

    def over(self, defaults: "Self") -> "Self":
        """Return these limits, with the defaults where there is none."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: getattr(defaults, name) if value is None else value for name, value in own.items()})
