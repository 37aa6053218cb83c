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
    start = to_position(page_token, len(items))
    end = start + size
    return items[start:end], str(end) if end < len(items) else ""


def checked_page_size(page_size: int, default: int) -> int:
    """Return the number of items of a page; raises InvalidRequest if it is negative."""
    if page_size < 0:
        raise InvalidRequest("page_size is negative", field="page_size")
    return min(page_size or default, MAX_PAGE_SIZE)


def to_position(page_token: str, highest: int = 10**_MAX_TOKEN_CHARACTERS) -> int:
    """Return the number that a page's token stands for, 0 for an empty one; raises InvalidRequest for what is none."""
    if not page_token:
        return 0
    # The number of digits first: Python refuses to read thousands of them.
    if len(page_token) <= _MAX_TOKEN_CHARACTERS and page_token.isascii() and page_token.isdigit():
        position = int(page_token)
        if position <= highest:
            return position
    raise InvalidRequest("page_token is not one that this server gave", field="page_token")
