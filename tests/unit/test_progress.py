"""Progress: one scale and one sentence over every stage."""

import pytest

from mondrian_server.analyses.progress import Tracker
from mondrian_server.events import Stage


def tracker(*, images: int = 1) -> Tracker:
    """Return a tracker of an analysis that was accepted at second 100."""
    return Tracker(accepted_at=100.0, images=images)


def generating(*, prompt_done: int = 40, cached: int = 10) -> Tracker:
    """Return a tracker at the start of GENERATING: PREPARING at 101 s, PREFILL at 102 s, GENERATING at 104 s."""
    t = tracker()
    t.enter(Stage.PREPARING, 101.0)
    t.enter(Stage.PREFILL, 102.0)
    t.prompt_tokens_done, t.prompt_tokens_total, t.prompt_tokens_cached = prompt_done, 40, cached
    t.enter(Stage.GENERATING, 104.0)
    t.max_output_tokens = 100
    return t


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (Stage.QUEUED, {}, "Waiting in the queue..."),
        (Stage.QUEUED, {"queue_position": 3}, "Waiting in the queue (position 3)..."),
        (Stage.LOADING_MODEL, {}, "Loading the model... (0%)"),
        (Stage.LOADING_MODEL, {"loaded_bytes": 30, "model_bytes": 120}, "Loading the model... (25%)"),
        (
            Stage.LOADING_MODEL,
            {"loaded_bytes": 30, "model_bytes": 120, "downloading": True},
            "Downloading the model... (25%)",
        ),
        (Stage.PREPARING, {}, "Preparing the image..."),
        (Stage.PREPARING, {"images": 0}, "Preparing the prompt..."),
        (Stage.PREPARING, {"images": 2}, "Preparing the 2 images..."),
        (Stage.ENCODING, {"images": 2}, "Looking at the 2 images..."),
        (Stage.ENCODING, {}, "Looking at the image..."),
        (
            Stage.PREFILL,
            {"prompt_tokens_done": 12, "prompt_tokens_total": 74},
            "Reading the prompt... (12 of 74 tokens)",
        ),
        (Stage.GENERATING, {}, "Generating analysis... (0 tokens)"),
        (Stage.FINALIZING, {}, "Finishing..."),
    ],
)
def test_each_stage_has_its_sentence(stage: Stage, changes: dict[str, int], message: str) -> None:
    """The sentence says what a person wants to know in that stage."""
    t = tracker()
    for name, value in changes.items():
        setattr(t, name, value)
    t.enter(stage, 101.0)
    assert t.snapshot(102.0).message == message


def test_the_sentence_of_generating_tells_tokens_and_speed() -> None:
    """It is the sentence that the product began with."""
    t = generating()
    t.count_tokens(1, 104.0)
    t.count_tokens(49, 105.225)
    assert t.snapshot(106.0).message == "Generating analysis... (50 tokens, 40.0 tps)"


def test_stages_go_forward_only() -> None:
    """A stage that is not later than the present one is not entered."""
    t = tracker()
    assert t.enter(Stage.PREFILL, 101.0)
    assert not t.enter(Stage.PREFILL, 102.0)
    assert not t.enter(Stage.PREPARING, 103.0)
    assert t.stage is Stage.PREFILL


def test_the_fraction_never_falls_and_ends_at_one() -> None:
    """Through every stage, also when the numbers below it shrink, the fraction stays or grows, from 0 to 1."""
    t = tracker()
    fractions = [t.snapshot(100.0).fraction]

    def note() -> None:
        fractions.append(t.snapshot(101.0).fraction)

    t.enter(Stage.LOADING_MODEL, 100.1)
    for t.loaded_bytes, t.model_bytes in ((50, 100), (100, 100), (0, 100), (10, 100)):
        note()
    t.enter(Stage.PREPARING, 100.2)
    note()
    t.enter(Stage.ENCODING, 100.3)
    note()
    t.enter(Stage.PREFILL, 100.4)
    for t.prompt_tokens_done, t.prompt_tokens_total in ((10, 10), (10, 40), (40, 40)):
        note()
    t.enter(Stage.GENERATING, 100.5)
    for t.output_tokens, t.max_output_tokens in ((0, 0), (10, 20), (10, 400), (30, 20)):
        note()
    t.enter(Stage.FINALIZING, 100.6)
    note()
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert max(fractions[:-1]) <= 0.99


def test_the_queue_position_belongs_to_the_queue() -> None:
    """Once the analysis has left the queue, its position is told no more."""
    t = tracker()
    t.queue_position = 4
    assert t.snapshot(100.5).queue_position == 4
    t.enter(Stage.PREPARING, 101.0)
    assert t.snapshot(101.5).queue_position == 0


def test_rates_need_a_span_of_time() -> None:
    """One token has no rate; tokens in one burst have none either."""
    t = generating()
    assert t.snapshot(104.0).output_tokens_per_s == 0.0
    t.count_tokens(5, 104.001)
    assert t.snapshot(104.5).output_tokens_per_s == 0.0
    assert t.snapshot(104.5).estimated_time_left_s is None


def test_the_token_rate_leaves_out_the_first_and_the_silence_after_the_last() -> None:
    """The rate is that of the intervals between the first token and the last."""
    t = generating()
    t.count_tokens(1, 104.0)
    t.count_tokens(10, 106.0)
    progress = t.snapshot(200.0)
    assert progress.output_tokens == 11
    assert progress.output_tokens_per_s == pytest.approx(5.0)
    assert progress.estimated_time_left_s == pytest.approx((100 - 11) / 5.0)
    assert progress.elapsed_s == pytest.approx(100.0)


def test_the_prompt_rate_leaves_out_the_cache() -> None:
    """Tokens that came from the cache were not read; the engine's own time counts once it is known."""
    t = generating(cached=10)
    t.count_tokens(1, 105.0)
    assert t.snapshot(110.0).prompt_tokens_per_s == pytest.approx(30 / 3.0)
    t.prefill_s = 1.5
    assert t.snapshot(110.0).prompt_tokens_per_s == pytest.approx(20.0)


def test_the_prompt_rate_is_told_while_the_prompt_is_read() -> None:
    """In the middle of PREFILL the rate is up to now."""
    t = tracker()
    t.enter(Stage.PREFILL, 102.0)
    t.prompt_tokens_done, t.prompt_tokens_total = 20, 40
    assert t.snapshot(104.0).prompt_tokens_per_s == pytest.approx(10.0)


def test_the_moment_at_which_the_prompt_begins_has_no_rate() -> None:
    """Progress is told at that very moment, before any time has passed."""
    t = tracker()
    t.enter(Stage.PREFILL, 102.0)
    t.prompt_tokens_done, t.prompt_tokens_total = 20, 40
    assert t.snapshot(102.0).prompt_tokens_per_s == 0.0


def test_timings_say_where_the_time_went() -> None:
    """Queue, first token, decode and total are spans of the server's clock; the engine's parts are its own."""
    t = generating()
    t.prepare_s, t.encode_s, t.prefill_s = 0.1, 0.2, 0.3
    t.count_tokens(1, 105.0)
    t.count_tokens(1, 107.0)
    timings = t.timings(110.0)
    assert timings.queue_s == pytest.approx(1.0)
    assert timings.time_to_first_token_s == pytest.approx(5.0)
    assert timings.decode_s == pytest.approx(2.0)
    assert timings.total_s == pytest.approx(10.0)
    assert (timings.prepare_s, timings.encode_s, timings.prefill_s) == (0.1, 0.2, 0.3)


def test_timings_of_what_never_happened_are_none() -> None:
    """One that ends in the queue has waited all its time, and has no first token."""
    timings = tracker().timings(103.0)
    assert timings.queue_s == pytest.approx(3.0)
    assert timings.time_to_first_token_s is None
    assert timings.decode_s is None
    assert timings.prefill_s is None


def test_usage_counts_what_is_known() -> None:
    """Usage holds the four counts as far as the engine told them."""
    t = generating()
    t.image_tokens = 16
    t.count_tokens(7, 105.0)
    usage = t.usage()
    assert (usage.prompt_tokens, usage.image_tokens, usage.cached_tokens, usage.output_tokens) == (40, 16, 10, 7)
