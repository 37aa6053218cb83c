"""Names of analyses, as they are typed: whole, without `analyses/`, or only the beginning."""

from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

import click

import mondrian

SHORT = 8
"""The characters of an id that `list` shows; enough to name one among those of years."""

_COLLECTION = "analyses/"
_LEAST = 6
_WHOLE = 32
_SEARCHED = 500
_PAGE = 100

_F = TypeVar("_F", bound=Callable[..., Any])


def name_argument(command: _F) -> _F:
    """Add NAME."""
    return click.argument("name", metavar="NAME")(command)


def identifier(name: str) -> str:
    """Return the id in a name."""
    return name.removeprefix(_COLLECTION)


def resolve(client: mondrian.Client, typed: str) -> str:
    """Return the whole name; a beginning is looked up among the newest 500 analyses.

    Raises:
        NotFound: no analysis begins so.
        InvalidRequest: several do, or it is too short.

    """
    typed_id = identifier(typed)
    if typed != typed_id or len(typed_id) >= _WHOLE:
        return _COLLECTION + typed_id
    if len(typed_id) < _LEAST:
        raise mondrian.InvalidRequest(f"{typed!r} is too short; give at least {_LEAST} characters of the name")
    newest = islice(client.list(page_size=_PAGE), _SEARCHED)
    found = [analysis.name for analysis in newest if identifier(analysis.name).startswith(typed_id)]
    if not found:
        raise mondrian.AnalysisNotFound(f"none of the newest {_SEARCHED} analyses has a name like {typed!r}")
    if len(found) > 1:
        raise mondrian.InvalidRequest(f"{typed!r} may be {' or '.join(map(identifier, found))}")
    return found[0]
