"""What does not fit the model is refused with the field that is at fault, and disturbs nobody."""

from mondrian_server.engine.protocol import RowFailed
from tests.engine.conftest import CONTEXT
from tests.engine.engines import Engine, Seen, request


def _failure(seen: Seen) -> tuple[str, str]:
    assert isinstance(seen.closing, RowFailed), seen.closing
    assert seen.stages == []
    assert seen.closing.message
    return seen.closing.reason, seen.closing.field


def test_a_prompt_longer_than_the_context_is_refused(small: Engine) -> None:
    """The prompt is at fault, however few tokens are asked for."""
    (row,) = small.run(request("word " * CONTEXT, max_tokens=1))
    assert _failure(row) == ("CONTEXT_EXCEEDED", "config.prompt")


def test_max_tokens_that_do_not_fit_beside_the_prompt_are_refused(small: Engine) -> None:
    """The caller's `max_tokens` is at fault, and one less fits."""
    (fits,) = small.run(request(max_tokens=1))
    room = CONTEXT - fits.done.prompt_tokens
    refused, served = small.run(request(max_tokens=room + 1), request(max_tokens=room, min_tokens=room))
    assert _failure(refused) == ("CONTEXT_EXCEEDED", "config.sampling.max_tokens")
    assert served.done.output_tokens == room


def test_the_default_length_shrinks_to_what_fits(small: Engine) -> None:
    """A caller who leaves `max_tokens` open gets what the context has room for."""
    (row,) = small.run(request(max_tokens=None, default_max_tokens=10_000, min_tokens=CONTEXT))
    assert row.done.prompt_tokens + row.done.output_tokens == CONTEXT


def test_a_refused_row_disturbs_nobody(small: Engine) -> None:
    """Rows before and after it are served, in order."""
    rows = small.run(request(), request("word " * CONTEXT), request())
    assert rows[0].ids == rows[2].ids
    _failure(rows[1])
