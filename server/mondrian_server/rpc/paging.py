"""Paging, after AIP-158."""

from collections.abc import Sequence
from typing import TypeVar

from mondrian_server.errors import InvalidRequest

MAX_PAGE_SIZE = 1000
_MAX_TOKEN_CHARACTERS = 10

Item = TypeVar("Item")


def page(items: Sequence[Item], page_size: int, page_token: str) -> tuple[Sequence[Item], str]:
    """Return a page of a list that stands in memory, and the token of the next one, empty at the end.

    Raises InvalidRequest for bad arguments.
    """
    size = checked_page_size(page_size, MAX_PAGE_SIZE)
    if page_token and not _is_position(page_token, len(items)):
        raise InvalidRequest("page_token is not one that this server gave", field="page_token")
    start = int(page_token or 0)
    end = start + size
    return items[start:end], str(end) if end < len(items) else ""


def checked_page_size(page_size: int, default: int) -> int:
    """Return the number of items of a page; raises InvalidRequest if it is negative."""
    if page_size < 0:
        raise InvalidRequest("page_size is negative", field="page_size")
    return min(page_size or default, MAX_PAGE_SIZE)


def _is_position(token: str, length: int) -> bool:
    # The number of digits first: Python refuses to read thousands of them.
    return len(token) <= _MAX_TOKEN_CHARACTERS and token.isascii() and token.isdigit() and int(token) <= length
