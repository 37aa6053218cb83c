"""An operation that raises fails only the rows that it must."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mondrian_server.engine.protocol import RowFailed
from mondrian_server.events import Stage
from tests.engine.checkpoints import write_stumbling
from tests.engine.engines import Engine, picture, request


def test_rows_outlive_a_decode_step_that_fails(untrained: Path, flat: Engine, tmp_path: Path) -> None:
    """All rows of the step go on where they were: the same tokens, once each, and no stage told twice.

    Without caches too: everything is computed anew.
    """
    settings: dict[str, Any] = {"max_tokens": 20, "repetition_penalty": 1.1}
    requests = [request(f"row {n}", temperature=n % 2, seed=n, **settings) for n in range(5)]
    requests.append(request("look", pictures=[picture(1)], temperature=1.0, **settings))
    undisturbed = flat.run(*requests)
    stumbling = write_stumbling(untrained, tmp_path / "stumbling", step="n in (12, 25)")
    with Engine(stumbling, trust_remote_code=True, vision_cache_entries=0, prefix_cache_bytes=0) as engine:
        rows = engine.ready().run(*requests)
    assert [row.ids for row in rows] == [row.ids for row in undisturbed]
    assert [row.text for row in rows] == [row.text for row in undisturbed]
    assert all(row.stages[-2:] == [Stage.PREFILL, Stage.GENERATING] for row in rows)
    assert all(len(row.stages) <= 3 for row in rows)
    assert all(row.done.cached_tokens == 0 for row in rows)


@pytest.fixture(scope="module")
def failing(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Engine]:
    """An engine that fails on chunks of 100 prompt tokens, and always with more than two rows."""
    folder = tmp_path_factory.mktemp("models") / "failing"
    write_stumbling(untrained, folder, step="rows > 2", prompt="tokens == 100")
    with Engine(folder, prefill_step_tokens=100, trust_remote_code=True) as engine:
        yield engine.ready()


def test_a_step_that_always_fails_ends_its_rows(failing: Engine) -> None:
    """They fail instead of trying for ever, and rows that do not share it are served."""
    before = failing.run(request(), request())
    rows = failing.run(*(request(min_tokens=16) for _ in range(3)))
    after = failing.run(request())
    assert all(row.done.output_tokens for row in (*before, *after))
    failed = [row.closing for row in rows if isinstance(row.closing, RowFailed)]
    assert failed
    assert {closing.reason for closing in failed} == {"GENERATION_FAILED"}
    assert failing.steps[-1].slots_in_use == 0


def test_a_prompt_that_fails_ends_only_its_own_row(failing: Engine) -> None:
    """Rows that run beside it and rows that wait behind it are served."""
    undisturbed = failing.run(request(max_tokens=60, min_tokens=60))[0]
    running = failing.submit(request(max_tokens=60, min_tokens=60))
    failing.until(lambda: bool(failing.rows[running].tokens))
    failed, behind = failing.run(request("word " * 150), request())
    (kept,) = failing.closed([running])
    assert isinstance(failed.closing, RowFailed)
    assert failed.closing.reason == "GENERATION_FAILED"
    assert failed.stages == [Stage.PREFILL]
    assert behind.done.output_tokens == 16
    assert kept.ids == undisturbed.ids
    assert failing.steps[-1].slots_in_use == 0
