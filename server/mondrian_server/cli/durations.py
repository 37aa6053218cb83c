"""Durations on the command line, such as `30s`, `1m30s`, `500ms` or plain seconds."""

import re

import click

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_PART = re.compile(rf"({_NUMBER})(ms|h|m|s)")


def duration(text: str) -> float:
    """Return the seconds of what the user typed; a type for click's options."""
    typed = text.strip().lower()
    parts = _PART.findall(typed)
    if parts and "".join(number + unit for number, unit in parts) == typed:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if re.fullmatch(_NUMBER, typed):
        return float(typed)
    raise click.BadParameter(f"{text!r} is not a duration such as 30s, 1m30s or 500ms")
