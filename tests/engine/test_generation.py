"""What a row generates: stops, lengths, valid text, and nothing that its caller typed taken for a command."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mondrian_server.engine.protocol import RowStage
from mondrian_server.events import FinishReason, Stage
from tests.checkpoints import EMBEDDED, spelled
from tests.engine.checkpoints import write_terse
from tests.engine.engines import Engine, picture, request

_TOKENIZER: dict[str, Any] = json.loads((EMBEDDED / "tokenizer.json").read_text())
CONTROLS = {token["content"]: int(token["id"]) for token in _TOKENIZER["added_tokens"]}


def _text_of(ids: Sequence[int]) -> str:
    """Say what text tokens make when no stop string and no bad byte is among them."""
    return spelled(ids).decode(errors="ignore")


def test_stages_come_in_order(flat: Engine) -> None:
    """A row with a picture tells each stage that it enters, and how far its prompt has come."""
    (row,) = flat.run(request(pictures=[picture(50)], cache_scope="stages"))
    assert row.stages == [Stage.ENCODING, Stage.PREFILL, Stage.GENERATING]
    assert flat.run(request())[0].stages == [Stage.PREFILL, Stage.GENERATING]


def test_a_long_prompt_comes_in_chunks(flat: Engine) -> None:
    """A prompt longer than a prefill step tells its progress at each, and running rows go on between them."""
    running = flat.submit(request(max_tokens=100, min_tokens=100))
    flat.until(lambda: len(flat.rows[running].tokens) > 2)
    (row,) = flat.run(request("one two three " * 150, max_tokens=1, cache_scope="chunks"))
    done = [update.prompt_tokens_done for update in row.updates if isinstance(update, RowStage)]
    total = row.done.prompt_tokens
    assert total > 3 * 128
    assert done == sorted(done)
    assert {0, 128, 256, total} <= set(done)
    at = {id(update): n for n, step in enumerate(flat.steps) for update in step.rows}
    between = [at[id(update)] for update in flat.rows[running].tokens]
    chunks = [at[id(update)] for update in row.updates][1:4]
    assert all(any(a < step < b for step in between) for a, b in itertools.pairwise(chunks))
    flat.closed([running])


def test_lengths_are_kept(flat: Engine) -> None:
    """A row ends after `max_tokens`, and with none asked for after the default."""
    asked, default = flat.run(request(max_tokens=7), request(max_tokens=None, default_max_tokens=9))
    for row, length in ((asked, 7), (default, 9)):
        assert len(row.ids) == row.done.output_tokens == length
        assert row.done.finish_reason == FinishReason.MAX_TOKENS


def test_the_end_of_the_turn_is_no_output(untrained: Path, tmp_path: Path) -> None:
    """A row that ends its turn tells no token for that, and cannot do it before `min_tokens`."""
    settings: dict[str, Any] = {"temperature": 1.0, "max_tokens": 200, "seed": 2}
    with Engine(write_terse(untrained, tmp_path / "terse", CONTROLS["<end_of_utterance>"])) as engine:
        engine.ready()
        (row,) = engine.run(request(**settings))
        least = row.done.output_tokens + 5
        (longer,) = engine.run(request(**settings, min_tokens=least))
    assert row.done.finish_reason == longer.done.finish_reason == FinishReason.STOP
    assert CONTROLS["<end_of_utterance>"] not in row.ids + longer.ids
    assert row.done.output_tokens == len(row.ids)
    assert longer.ids[: len(row.ids)] == row.ids
    assert longer.done.output_tokens == len(longer.ids) >= least


@pytest.mark.parametrize("seed", range(3), ids=str)
def test_a_stop_string_that_straddles_tokens_ends_the_text(flat: Engine, seed: int) -> None:
    """The text ends before the match, also where one token holds its first half and the next its second."""
    settings: dict[str, Any] = {"temperature": 1.0, "seed": seed, "max_tokens": 40}
    (whole,) = flat.run(request(**settings))
    cut = next(n for n in range(10, 39) if len(_text_of(whole.ids[:n])) + 1 < len(_text_of(whole.ids[: n + 1])) - 1)
    at = len(_text_of(whole.ids[:cut]))
    stop = whole.text[at - 2 : at + 2]
    (row,) = flat.run(request(**settings, stop=(stop, "never spelled")))
    assert row.done.finish_reason == FinishReason.STOP_SEQUENCE
    assert row.done.stop_sequence == stop
    assert row.text == whole.text[: whole.text.index(stop)]
    assert row.ids == whole.ids[: len(row.ids)]
    assert len(row.ids) <= cut + 1


def test_a_stop_string_waits_for_min_tokens(flat: Engine) -> None:
    """A match that is complete before `min_tokens` is text."""
    settings: dict[str, Any] = {"temperature": 1.0, "seed": 8, "max_tokens": 40}
    (whole,) = flat.run(request(**settings))
    stop = _text_of(whole.ids[3:5])
    assert len(stop) > 1
    (row,) = flat.run(request(**settings, stop=(stop,), min_tokens=20))
    assert row.done.output_tokens >= 20
    assert row.text.startswith(whole.text[: len(_text_of(whole.ids[:19]))])
    assert flat.run(request(**settings, stop=(stop,)))[0].done.output_tokens <= 5


def test_text_is_valid_whatever_bytes_are_sampled(flat: Engine) -> None:
    """Tokens that spell halves of characters give text without a replacement character, cut anywhere."""
    rows = flat.run(*(request(temperature=2.0, seed=seed, max_tokens=20 + seed) for seed in range(24)))
    assert any(len(_text_of(row.ids)) < len(spelled(row.ids).decode(errors="replace")) for row in rows)
    for row in rows:
        assert row.text == _text_of(row.ids)
        assert "\ufffd" not in row.text


def test_typed_control_tokens_are_plain_text(flat: Engine) -> None:
    """`<image>` and its like, typed into prompt or instructions, are tokenised as the characters that they are."""
    plain, typed = flat.run(
        request("look"), request("look" + "".join(CONTROLS), instructions="<image>", pictures=[picture(2)])
    )
    assert isinstance(typed.done.image_tokens, int)
    assert typed.done.image_tokens == 16
    assert typed.done.prompt_tokens > plain.done.prompt_tokens + len("".join(CONTROLS)) // 4


def test_the_model_never_emits_a_media_placeholder(flat: Engine) -> None:
    """Not one in thousands of tokens sampled from a flat model at a high temperature."""
    media = {CONTROLS[name] for name in ("<image>", "<fake_token_around_image>", "<global-img>")}
    rows = flat.run(*(request(temperature=2.0, seed=seed, max_tokens=150, min_tokens=150) for seed in range(24)))
    emitted = [token for row in rows for token in row.ids]
    assert len(emitted) == 24 * 150
    assert not media & set(emitted)
    assert len(set(emitted)) > 800


def test_prompts_in_any_script_are_served(flat: Engine) -> None:
    """Letters beyond ASCII in prompt and instructions change what the model reads."""
    texts = ("héllo", "根據您的問題", "💭", "hello")
    rows = flat.run(*(request(text, instructions=text, temperature=1.0) for text in texts))
    assert len({row.text for row in rows}) == len(texts)


def test_a_prompt_may_be_empty_beside_a_picture(flat: Engine) -> None:
    """A picture alone is a request."""
    (row,) = flat.run(request("", pictures=[picture(4)]))
    assert row.done.output_tokens == 16


def test_log_probabilities_come_only_to_those_who_asked(flat: Engine) -> None:
    """In one batch, each row tells the id of each token, and only rows with details a log-probability as well."""
    asked, other = flat.run(request(details=True), request(details=False))
    assert len(asked.ids) == len(asked.log_probabilities) == 16
    assert all(value <= 0 for value in asked.log_probabilities)
    assert (other.ids, other.log_probabilities) == (asked.ids, [])
    assert other.text == asked.text


def test_log_probabilities_do_not_depend_on_the_sampling(flat: Engine) -> None:
    """They are the model's own: greedy and filtered rows report the same for the same token."""
    greedy, filtered = flat.run(request(), request(temperature=0.7, top_k=1, top_p=0.5, min_p=0.3))
    assert greedy.ids == filtered.ids
    assert greedy.log_probabilities == pytest.approx(filtered.log_probabilities, abs=1e-5)
    assert min(greedy.log_probabilities) < -0.5


def test_a_repetition_penalty_ends_repetition(flat: Engine) -> None:
    """A strong penalty keeps a row from every word that it has used, for its whole length."""
    (row,) = flat.run(request(repetition_penalty=2.0, max_tokens=60, min_tokens=60))
    assert len(set(row.ids)) > 50
