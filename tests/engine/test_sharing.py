"""Scopes share the slots: one that holds fewer goes first, and whoever holds the most gives way to it."""

from collections.abc import Generator
from typing import Any

import msgspec
import pytest

from mondrian_server.engine.protocol import RowGaveWay, Submit
from tests.engine.engines import Engine, request

LONG: dict[str, Any] = {"max_tokens": 900, "min_tokens": 900, "details": False}


def mine(**changes: Any) -> Submit:
    """Return a long request of the scope that holds the slots."""
    return request(cache_scope="mine", **LONG | changes)


def theirs(**changes: Any) -> Submit:
    """Return a long request of another scope."""
    return request(cache_scope="theirs", **LONG | changes)


@pytest.fixture
def busy(flat: Engine) -> Generator[list[int]]:
    """Rows of one scope in all eight slots; in the end every row is cancelled."""
    before = set(flat.rows)
    rows = [flat.submit(mine()) for _ in range(8)]
    flat.until(lambda: all(flat.rows[row].tokens for row in rows))
    yield rows
    left = [row for row in set(flat.rows) - before if not flat.rows[row].closing]
    for row in left:
        flat.cancel(row)
    flat.closed(left)


def given(engine: Engine, rows: list[int]) -> list[int]:
    """Return which rows gave way."""
    return [row for row in rows if isinstance(engine.rows[row].closing, RowGaveWay)]


def test_a_row_of_another_scope_starts_at_once(flat: Engine, busy: list[int]) -> None:
    """One of the scope that has every slot gives way, within a step, and before those of its own that wait longer."""
    waiting = [flat.submit(mine()) for _ in range(4)]
    flat.until(lambda: flat.beats[-1].rows_held == 12)
    row = flat.submit(theirs())
    flat.until(lambda: bool(flat.rows[row].tokens))
    (giver,) = given(flat, busy)
    assert [other for other in busy if flat.rows[other].closing] == [giver]
    assert not any(flat.rows[other].updates for other in waiting)
    witness = next(other for other in busy if other != giver)
    assert steps_between(flat, giver, row, seen_by=witness) <= 3


def steps_between(engine: Engine, left: int, came: int, *, seen_by: int) -> int:
    """Return how many tokens a third row got after one row left and before the first token of another."""
    told = [update for step in engine.steps for update in step.rows]
    last, first = told.index(RowGaveWay(row=left)), told.index(engine.rows[came].tokens[0])
    return sum(update in engine.rows[seen_by].tokens for update in told[last:first])


def test_nobody_gives_way_where_there_is_a_slot(flat: Engine, busy: list[int]) -> None:
    """A free slot is enough."""
    flat.cancel(busy[0])
    flat.closed([busy[0]])
    row = flat.submit(theirs())
    flat.until(lambda: len(flat.rows[row].tokens) > 3)
    assert given(flat, busy) == []


def test_a_scope_gets_its_share_and_no_more(flat: Engine, busy: list[int]) -> None:
    """Four of eight slots for each of two; of those who hold the most, the least advanced give way."""
    rows = [flat.submit(theirs()) for _ in range(6)]
    flat.until(lambda: sum(bool(flat.rows[row].tokens) for row in rows) == 4)
    flat.until(lambda: len(flat.rows[rows[0]].tokens) > 20)
    assert not any(flat.rows[row].updates for row in rows[4:])
    assert len(given(flat, busy)) == 4
    stayed = [len(flat.rows[row].tokens) for row in busy if not flat.rows[row].closing]
    assert min(stayed) > max(len(flat.rows[row].tokens) for row in given(flat, busy))


def test_three_scopes_have_a_share_each(flat: Engine, busy: list[int]) -> None:
    """A third one takes from both until nobody holds two more than another."""
    seconds = [flat.submit(theirs()) for _ in range(4)]
    flat.until(lambda: all(flat.rows[row].tokens for row in seconds))
    thirds = [flat.submit(request(cache_scope="third", **LONG)) for _ in range(4)]
    flat.until(lambda: sum(bool(flat.rows[row].tokens) for row in thirds) >= 2)
    flat.until(lambda: len(flat.rows[thirds[0]].tokens) > 20)
    held = [
        sum(not flat.rows[row].closing and bool(flat.rows[row].tokens) for row in rows)
        for rows in (busy, seconds, thirds)
    ]
    assert sorted(held) == [2, 3, 3]


def test_a_free_slot_goes_to_the_scope_that_holds_fewer(flat: Engine, busy: list[int]) -> None:
    """Whoever has waited longer, but holds more, comes after."""
    second = flat.submit(theirs())
    flat.until(lambda: bool(flat.rows[second].tokens))
    waiting = [flat.submit(mine()) for _ in range(3)]
    row = flat.submit(theirs())
    flat.until(lambda: bool(flat.rows[row].tokens))
    assert not any(flat.rows[other].updates for other in waiting)


def test_a_row_that_gave_way_goes_on_as_if_nothing_had_been(flat: Engine) -> None:
    """Submitted again with the tokens that it had, it gives the same ones as undisturbed."""
    one = request(max_tokens=40, min_tokens=40, temperature=1.0, seed=5, cache_scope="mine")
    (whole,) = flat.run(one)
    others = [flat.submit(mine()) for _ in range(7)]
    flat.until(lambda: all(len(flat.rows[row].tokens) > 30 for row in others))
    first = flat.submit(one)
    flat.until(lambda: len(flat.rows[first].ids) > 10)
    row = flat.submit(theirs())
    flat.until(lambda: bool(flat.rows[row].tokens))
    assert given(flat, [*others, first]) == [first]
    had = tuple(flat.rows[first].ids)
    again = flat.submit(msgspec.structs.replace(one, prior_ids=had))
    for other in (*others, row):
        flat.cancel(other)
    (rest,) = flat.closed([again])
    assert [*had, *rest.ids] == whole.ids
    flat.closed([*others, row])
