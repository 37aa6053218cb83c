"""Lists: settings of several names, with commas between them or as a TOML array."""

from typing import Annotated

from pydantic import BeforeValidator


def _split(value: object) -> object:
    """Return the names of a text with commas; anything else as it is, for the type to check."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
