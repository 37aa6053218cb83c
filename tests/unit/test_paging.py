"""Paging: every item once, whatever the page size, and no page for what is no token."""

import pytest

from mondrian_server.errors import InvalidRequest
from mondrian_server.rpc.paging import MAX_PAGE_SIZE, page

ITEMS = list(range(7))


@pytest.mark.parametrize("page_size", [1, 2, 3, 6, 7, 8, 0, MAX_PAGE_SIZE, 2**31 - 1])
def test_the_pages_together_are_the_list(page_size: int) -> None:
    """Following the tokens gives each item once, in order, and ends with an empty token."""
    seen: list[int] = []
    sizes: list[int] = []
    token = ""
    while True:
        items, token = page(ITEMS, page_size, token)
        seen += items
        sizes.append(len(items))
        if not token:
            break
    assert seen == ITEMS
    assert all(size <= (page_size or MAX_PAGE_SIZE) for size in sizes)
    assert all(sizes), "no page is empty"


def test_an_empty_list_is_one_empty_page() -> None:
    """Nothing has no next page."""
    assert page([], 0, "") == ([], "")


def test_a_page_is_never_longer_than_the_longest() -> None:
    """A larger page size is cut down."""
    items, token = page(list(range(2500)), 2**31 - 1, "")
    assert (len(items), token) == (MAX_PAGE_SIZE, str(MAX_PAGE_SIZE))


def test_a_negative_page_size_is_refused() -> None:
    """The error names the field."""
    with pytest.raises(InvalidRequest) as caught:
        page(ITEMS, -1, "")
    assert caught.value.field == "page_size"


@pytest.mark.parametrize("token", ["x", "-1", "8", "1.0", " 1", "٣", "1" * 5000, "0x1", "+1"])
def test_what_is_no_token_is_refused(token: str) -> None:
    """Whatever this server did not give is an INVALID_ARGUMENT that names the field, thousands of digits too."""
    with pytest.raises(InvalidRequest) as caught:
        page(ITEMS, 2, token)
    assert caught.value.field == "page_token"
