"""A cancelled row leaves in every state, and its slot is free at the next step."""

from typing import Any

import pytest

from mondrian_server.engine.protocol import RowCancelled, RowStage
from mondrian_server.events import Stage
from tests.engine.engines import Engine, picture, request

LONG: dict[str, Any] = {"max_tokens": 400, "min_tokens": 400, "details": False}


def _slots_after(engine: Engine, row: int) -> int:
    """Return the slots in use after the step that closed the row."""
    return next(step.slots_in_use for step in engine.steps if engine.rows[row].updates[-1] in step.rows)


def _assert_serving(engine: Engine) -> None:
    """A full batch of new rows is served, so no slot was lost."""
    before = len(engine.steps)
    rows = [engine.submit(request(max_tokens=3, min_tokens=3)) for _ in range(8)]
    assert all(row.done.output_tokens == 3 for row in engine.closed(rows))
    assert engine.steps[-1].slots_in_use == 0
    assert max(step.slots_in_use for step in engine.steps[before:]) > 1


def test_a_generating_row_is_cancelled(flat: Engine) -> None:
    """It tells no more, keeps what it told, and its slot goes to the next row."""
    rows = [flat.submit(request(**LONG)) for _ in range(8)]
    flat.until(lambda: all(flat.rows[row].tokens for row in rows))
    waiting = flat.submit(request(max_tokens=2))
    flat.cancel(rows[3])
    flat.closed([rows[3], waiting])
    assert flat.rows[rows[3]].closing == RowCancelled(row=rows[3])
    assert _slots_after(flat, rows[3]) in (7, 8)  # 8 where the waiting row took the slot in the same turn.
    for row in rows:
        flat.cancel(row)
    flat.closed(rows)
    assert flat.steps[-1].slots_in_use == 0
    _assert_serving(flat)


def test_a_waiting_row_is_cancelled(flat: Engine) -> None:
    """It never takes a slot."""
    rows = [flat.submit(request(**LONG)) for _ in range(8)]
    waiting = flat.submit(request(**LONG))
    flat.until(lambda: all(flat.rows[row].tokens for row in rows))
    flat.cancel(waiting)
    assert flat.closed([waiting])[0].updates == [RowCancelled(row=waiting)]
    for row in rows:
        flat.cancel(row)
    flat.closed(rows)
    _assert_serving(flat)


def test_a_row_is_cancelled_before_it_is_prepared(flat: Engine) -> None:
    """A cancel right behind the submission is enough."""
    rows: list[int] = []
    for n in range(20):
        rows.append(flat.submit(request("word " * 200, pictures=[picture(100 + n)], **LONG)))
        flat.cancel(rows[-1])
    closed = flat.closed(rows)
    assert all(isinstance(row.closing, RowCancelled) for row in closed)
    assert any(row.stages == [] for row in closed)
    _assert_serving(flat)


@pytest.mark.parametrize("stage", [Stage.ENCODING, Stage.PREFILL], ids=lambda stage: stage.name.lower())
def test_a_row_is_cancelled_on_its_way_in(flat: Engine, stage: Stage) -> None:
    """While its picture is encoded, or between the chunks of its prompt, it is gone after that operation."""
    shown = [picture(200 + n) for n in range(3)] if stage == Stage.ENCODING else []
    row = flat.submit(request("word " * 700, pictures=shown, cache_scope=stage.name, **LONG))
    flat.until(lambda: stage in flat.rows[row].stages)
    flat.cancel(row)
    (seen,) = flat.closed([row])
    assert isinstance(seen.closing, RowCancelled)
    assert seen.stages[-1] == stage
    told = [update for update in seen.updates if isinstance(update, RowStage)]
    assert told[-1].prompt_tokens_done < told[-1].prompt_tokens_total
    assert _slots_after(flat, row) == 0
    _assert_serving(flat)


def test_cancelling_what_is_unknown_or_closed_changes_nothing(flat: Engine) -> None:
    """Neither answers nor harms."""
    (row,) = flat.run(request())
    flat.cancel(10**6)
    flat.cancel(row.done.row)
    told = len(flat.rows[row.done.row].updates)
    _assert_serving(flat)
    assert len(flat.rows[row.done.row].updates) == told
    assert 10**6 not in flat.rows


def test_no_row_is_held_when_all_are_closed(flat: Engine) -> None:
    """The beats count rows from their submission to their end."""
    rows = [flat.submit(request(**LONG)) for _ in range(12)]
    flat.until(lambda: flat.beats[-1].rows_held == 12)
    for row in rows:
        flat.cancel(row)
    flat.closed(rows)
    flat.until(lambda: flat.beats[-1].rows_held == 0)


def test_a_cancel_beside_others_leaves_them_as_they_are(flat: Engine) -> None:
    """Rows that stay give what they give undisturbed."""
    stay = [request(temperature=1.0, seed=seed, max_tokens=40, min_tokens=40) for seed in range(4)]
    undisturbed = flat.run(*stay)
    kept = [flat.submit(one) for one in stay]
    gone = [flat.submit(request(f"leave {n}", **LONG)) for n in range(4)]
    for n, row in enumerate(gone):
        flat.until(lambda n=n: len(flat.rows[kept[0]].tokens) > 4 * n)
        flat.cancel(row)
    assert [row.ids for row in flat.closed(kept)] == [row.ids for row in undisturbed]
    flat.closed(gone)
