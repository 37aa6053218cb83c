"""Caches save work within one scope, change no token, and are never shared between scopes."""

from typing import Any

from mondrian_server.events import Stage
from tests.engine.engines import Engine, Seen, picture, request

ADVICE = "You are an advisor. Look at the picture with care, and say what you see in it and what it does to you."


def _ask(engine: Engine, scope: str, prompt: str = "What is it?", *, shown: int = 300, **settings: Any) -> Seen:
    pictures = [picture(shown)]
    return engine.run(request(prompt, pictures=pictures, instructions=ADVICE, cache_scope=scope, **settings))[0]


def test_a_scope_hits_its_own_caches(flat: Engine) -> None:
    """The second question about a picture encodes nothing and computes less, and the answer is the same."""
    first, again, other = (_ask(flat, "hit", prompt) for prompt in ("What is it?", "What is it?", "Why?"))
    assert first.stages == [Stage.ENCODING, Stage.PREFILL, Stage.GENERATING]
    assert first.done.cached_tokens == 0
    assert first.done.encode_s > 0
    for seen in (again, other):
        assert seen.stages == [Stage.PREFILL, Stage.GENERATING]
        assert seen.done.encode_s == 0
        assert 32 <= seen.done.cached_tokens < seen.done.prompt_tokens
    assert again.ids == first.ids


def test_scopes_share_nothing(flat: Engine) -> None:
    """Another scope's same question is encoded and computed anew, and gives the same answer."""
    mine, theirs = _ask(flat, "mine"), _ask(flat, "theirs")
    assert _ask(flat, "mine").done.cached_tokens > 0
    assert theirs.stages[0] == Stage.ENCODING
    assert theirs.done.cached_tokens == 0
    assert theirs.ids == mine.ids


def test_text_prefixes_are_scoped_too(flat: Engine) -> None:
    """Without a picture the same holds."""
    settings: dict[str, Any] = {"instructions": ADVICE}
    cold, warm, other = flat.run_alone(
        [request(cache_scope=scope, **settings) for scope in ("text one", "text one", "text two")]
    )
    assert (cold.done.cached_tokens, other.done.cached_tokens) == (0, 0)
    assert warm.done.cached_tokens > 0
    assert cold.ids == warm.ids == other.ids


def test_another_picture_shares_no_prefix(flat: Engine) -> None:
    """Prompts of the same tokens about different pictures are different prompts."""
    one, other = _ask(flat, "album", shown=301), _ask(flat, "album", shown=302)
    assert other.done.cached_tokens == 0
    assert one.log_probabilities != other.log_probabilities


def test_the_same_picture_twice_is_encoded_once(flat: Engine) -> None:
    """Within a row, and between rows that wait at the same time."""
    shown = picture(303)
    twice, beside = flat.run(*(request(pictures=[shown, shown], cache_scope="twice") for _ in range(2)))
    assert twice.done.image_tokens == 32
    assert twice.stages[0] == Stage.ENCODING
    assert beside.stages == [Stage.PREFILL, Stage.GENERATING]


def test_every_length_of_prompt_reports_its_hits(flat: Engine) -> None:
    """A warm prompt of any length computes at least one token, and at most one block of 8 more than it must."""
    for words in range(16):
        prompts = [request("a " * words + ADVICE, max_tokens=2, cache_scope=f"length {words}") for _ in range(2)]
        cold, warm = flat.run_alone(prompts)
        assert cold.ids == warm.ids
        assert warm.done.cached_tokens == (warm.done.prompt_tokens - 1) // 8 * 8


def test_full_caches_go_on_serving(small: Engine) -> None:
    """What no longer fits is dropped, the longest unused first, and no answer changes."""
    first = _ask(small, "full", shown=310)
    assert _ask(small, "full", shown=310).done.cached_tokens > 0
    for shown in (311, 312):
        _ask(small, "full", shown=shown)
    for n in range(4):
        small.run(request(f"{n} " * 80, max_tokens=1, cache_scope="full"))
    again = _ask(small, "full", shown=310)
    assert again.stages[0] == Stage.ENCODING
    assert again.done.cached_tokens == 0
    assert again.ids == first.ids
