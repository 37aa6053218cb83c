"""An analysis: its events from acceptance to exactly one end, with a real log and the event loop's clock."""

import asyncio
from collections.abc import Callable

import pytest

from mondrian_server.analyses.analysis import Analysis
from mondrian_server.engine.protocol import RowStage
from mondrian_server.errors import DeadlineExceeded, EngineCrashed
from mondrian_server.events import Accepted, Cancelled, Completed, Failed, FinishReason, Progress, Stage, Token
from tests.conditions import eventually
from tests.unit.office import TestableLog
from tests.unit.stand_ins import done, stage
from tests.unit.watched import begin


async def test_the_first_events_are_accepted_and_where_it_stands(log: TestableLog) -> None:
    """Sequence 1 is `accepted`, then comes the place in the queue."""
    watched = await begin(log)
    assert isinstance(watched.payloads[0], Accepted)
    assert [(p.stage, p.queue_position) for p in watched.progress] == [(Stage.QUEUED, 2)]
    watched.analysis.cancel()


async def test_an_analysis_knows_how_many_images_it_has(log: TestableLog) -> None:
    """The files wait in the log; their number is told in the sentences."""
    watched = await begin(log)
    assert watched.analysis.tracker.images == 1
    watched.analysis.cancel()


async def test_stages_are_told_once_and_forward(log: TestableLog) -> None:
    """A repeated or earlier stage is no event."""
    watched = await begin(log)
    for name in (Stage.PREPARING, Stage.PREFILL, Stage.PREFILL, Stage.ENCODING, Stage.GENERATING):
        watched.analysis.stage_reported(stage(1, name))
    stages = [p.stage for p in watched.progress]
    assert stages == [Stage.QUEUED, Stage.PREPARING, Stage.PREFILL, Stage.GENERATING]
    watched.analysis.cancel()


async def test_what_the_engine_says_of_the_prompt_is_told_and_never_falls(log: TestableLog) -> None:
    """Counts of the prompt and the most output tokens are taken over, and a smaller one later changes nothing."""
    watched = await begin(log)
    report = RowStage(
        row=1,
        stage=Stage.PREFILL,
        prompt_tokens_done=30,
        prompt_tokens_total=74,
        prompt_tokens_cached=20,
        image_tokens=16,
        max_output_tokens=100,
    )
    watched.analysis.stage_reported(report)
    watched.analysis.stage_reported(stage(1, Stage.GENERATING, done=5, max_output_tokens=50))
    for progress in watched.progress[-2:]:
        assert (progress.prompt_tokens_done, progress.prompt_tokens_total) == (30, 74)
        assert (progress.prompt_tokens_cached, progress.max_output_tokens) == (20, 100)
    assert watched.analysis.tracker.usage().image_tokens == 16
    watched.analysis.cancel()


async def test_positions_are_told_when_they_change_and_while_queued(log: TestableLog) -> None:
    """The same position again, and any position after the queue, is no event."""
    watched = await begin(log)
    for position in (2, 1, 1):
        watched.analysis.move(position)
    assert [p.queue_position for p in watched.progress] == [2, 1]
    watched.analysis.enter(Stage.PREPARING)
    watched.analysis.move(5)
    assert watched.progress[-1].stage is Stage.PREPARING
    assert len(watched.progress) == 3
    watched.analysis.cancel()


async def test_the_first_token_comes_at_once_and_the_rest_at_the_end(log: TestableLog) -> None:
    """With a long interval there are two token events, which are the whole text without a gap."""
    watched = await begin(log)
    watched.generate("The", " picture", " shows")
    assert [token.text for token in watched.tokens] == ["The"]
    watched.analysis.row_done(done(1, text=" red.", output_tokens=3))
    assert [token.text for token in watched.tokens] == ["The", " picture shows red."]
    assert [(token.first_index, token.token_count) for token in watched.tokens] == [(0, 1), (1, 2)]
    assert isinstance(watched.last, Completed)
    assert watched.last.text == "The picture shows red."
    assert watched.last.usage.output_tokens == 3


async def test_tokens_come_when_their_interval_is_over(log: TestableLog) -> None:
    """What was collected is sent by the timer, though no further token comes."""
    watched = await begin(log, token_interval_s=0.1)
    watched.generate("The", " picture", " shows")
    await eventually(lambda: len(watched.tokens) == 2)
    assert watched.tokens[1].text == " picture shows"
    first, second = (event.create_time for event in watched.events if isinstance(event.payload, Token))
    assert (second - first).total_seconds() > 0.08
    watched.analysis.cancel()


async def test_an_interval_of_zero_sends_each_step(log: TestableLog) -> None:
    """Every update with text is one event."""
    watched = await begin(log, token_interval_s=0.0)
    watched.generate("a", "b", "", "c")
    assert [(t.text, t.first_index, t.token_count) for t in watched.tokens] == [("a", 0, 1), ("b", 1, 1), ("c", 2, 2)]
    watched.analysis.cancel()


async def test_tokens_without_text_are_told_at_once_only_where_details_were_asked_for(log: TestableLog) -> None:
    """Every id is in the log, with which the analysis can be continued; with details, empty texts are events too."""
    plain = await begin(log, name="analyses/1", token_interval_s=0.0)
    detailed = await begin(log, name="analyses/2", token_interval_s=0.0, details=True)
    for watched in (plain, detailed):
        watched.generate("a", "", "b")
        watched.analysis.cancel()
    assert [(token.text, token.ids) for token in plain.tokens] == [("a", (0,)), ("b", (0, 0))]
    assert [(token.text, token.ids) for token in detailed.tokens] == [("a", (0,)), ("", (0,)), ("b", (0,))]
    assert [token.log_probabilities for token in detailed.tokens] == [(-0.5,)] * 3


async def test_every_generated_token_is_told_also_where_its_text_never_came(log: TestableLog) -> None:
    """Tokens that spell nothing, as the match of a stop string, are counted in the last token event."""
    watched = await begin(log)
    watched.generate("a", "", "")
    watched.analysis.row_done(done(1, output_tokens=3))
    assert [(t.text, t.first_index, t.token_count) for t in watched.tokens] == [("a", 0, 1), ("", 1, 2)]


async def test_the_heartbeat_keeps_the_clocks_grid(log: TestableLog) -> None:
    """While nothing moves, progress comes at each multiple of the interval since acceptance; delays do not add up."""
    watched = await begin(log, progress_interval_s=0.1)
    await eventually(lambda: len(watched.progress) >= 8)
    numbers = [grid_number(p) for p in watched.progress]
    assert numbers == sorted(set(numbers)), "one beat for each place on the grid, and none between two places"
    watched.analysis.cancel()


def grid_number(progress: Progress) -> int:
    """Return which beat of a 0.1 s heartbeat this is at the earliest; timers may come 2 ms early."""
    return int((progress.elapsed_s + 0.002) / 0.1)


async def test_a_heartbeat_that_was_missed_is_not_made_up(log: TestableLog) -> None:
    """After the loop stood still, there is one beat, and the next one is on the grid again."""
    watched = await begin(log, progress_interval_s=0.1)
    accepted_at = watched.analysis.tracker.accepted_at
    loop = asyncio.get_running_loop()
    while loop.time() < accepted_at + 0.55:
        pass
    await eventually(lambda: len(watched.progress) >= 3)
    late, following = map(grid_number, watched.progress[1:3])
    assert late >= 5
    assert following > late
    watched.analysis.cancel()


async def test_a_deadline_with_tokens_completes_with_what_there_is(log: TestableLog) -> None:
    """What was generated in time is delivered, and the finish reason is DEADLINE."""
    watched = await begin(log, deadline_in_s=0.05)
    watched.generate("The", " picture")
    await eventually(lambda: watched.ends)
    assert [token.text for token in watched.tokens] == ["The", " picture"]
    assert watched.progress[-1].stage is Stage.FINALIZING
    assert isinstance(watched.last, Completed)
    assert (watched.last.text, watched.last.finish_reason) == ("The picture", FinishReason.DEADLINE)


@pytest.mark.parametrize("reached", [Stage.QUEUED, Stage.LOADING_MODEL, Stage.PREPARING, Stage.PREFILL])
async def test_a_deadline_without_a_token_fails_and_names_the_stage(log: TestableLog, reached: Stage) -> None:
    """In whatever stage it was, the error is DEADLINE_EXCEEDED."""
    watched = await begin(log, deadline_in_s=0.0)
    watched.analysis.enter(reached)
    await eventually(lambda: watched.ends)
    assert isinstance(watched.last, Failed)
    assert isinstance(watched.last.error, DeadlineExceeded)
    assert reached.name.lower().replace("_", " ") in watched.last.error.message


END_WAYS: dict[str, Callable[[Analysis], None]] = {
    "done": lambda analysis: analysis.row_done(done(1, output_tokens=2)),
    "failed": lambda analysis: analysis.fail(EngineCrashed("gone")),
    "cancelled": lambda analysis: analysis.cancel(),
    "expired": lambda analysis: analysis.expire(),
}


@pytest.mark.parametrize("second", END_WAYS)
@pytest.mark.parametrize("first", END_WAYS)
async def test_there_is_exactly_one_end(log: TestableLog, first: str, second: str) -> None:
    """Whatever comes after the first end, tokens and stages included, changes nothing."""
    watched = await begin(log, token_interval_s=0.02, progress_interval_s=0.1, deadline_in_s=0.05)
    watched.generate("a", "b")
    END_WAYS[first](watched.analysis)
    before = watched.events
    END_WAYS[second](watched.analysis)
    watched.generate("late")
    watched.analysis.move(9)
    await asyncio.sleep(0.15)
    assert watched.events == before
    assert len(watched.ends) == 1
    assert watched.events[-1].is_terminal
    assert sum(event.is_terminal for event in watched.events) == 1
    assert [token.text for token in watched.tokens] == ["a", "b"], "what was generated is delivered before the end"


@pytest.mark.parametrize("way", END_WAYS)
async def test_an_end_leaves_no_timer(log: TestableLog, way: str) -> None:
    """After the end nothing is called any more, neither heartbeat nor delivery nor deadline."""
    watched = await begin(log, deadline_in_s=50.0)
    watched.generate("a", "b")
    timers = list(watched.timers.values())
    assert len(timers) == 3
    END_WAYS[way](watched.analysis)
    assert all(timer.cancelled() for timer in timers)
    assert watched.timers == {}


async def test_a_cancelled_analysis_says_in_which_stage_it_was(log: TestableLog) -> None:
    """The terminal event holds the stage and what was counted."""
    watched = await begin(log)
    watched.generate("a")
    watched.analysis.cancel()
    assert isinstance(watched.last, Cancelled)
    assert watched.last.stage is Stage.GENERATING
    assert watched.last.usage.output_tokens == 1
    assert watched.last.timings.total_s is not None


async def test_the_engines_own_numbers_are_final(log: TestableLog) -> None:
    """Usage and times of the closing update replace what was counted on the way."""
    watched = await begin(log)
    watched.generate("a", "b")
    watched.analysis.row_done(done(1, output_tokens=2))
    assert isinstance(watched.last, Completed)
    usage, timings = watched.last.usage, watched.last.timings
    assert (usage.prompt_tokens, usage.image_tokens, usage.cached_tokens, usage.output_tokens) == (10, 4, 3, 2)
    assert (timings.prepare_s, timings.encode_s, timings.prefill_s) == (0.1, 0.2, 0.3)


async def test_sequences_have_no_gap_and_fractions_never_fall(log: TestableLog) -> None:
    """Through a whole life the sequences are 1, 2, 3, … and the fractions sorted."""
    watched = await begin(log, token_interval_s=0.0)
    watched.generate("a", "b", "c")
    watched.analysis.row_done(done(1, output_tokens=3))
    assert [event.sequence for event in watched.events] == list(range(1, len(watched.events) + 1))
    fractions = [p.fraction for p in watched.progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
