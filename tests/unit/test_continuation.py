"""Continuation: what an analysis keeps of an earlier life, of the engine or of the server, and how it goes on."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from mondrian_server.errors import DeadlineExceeded
from mondrian_server.events import Accepted, Completed, Event, Failed, FinishReason, Payload, Progress, Stage, Token
from tests.conditions import eventually
from tests.unit.office import TestableLog
from tests.unit.stand_ins import done, tokens
from tests.unit.watched import Watched, begin, spec_of


def generate(watched: Watched, *texts: str, first_id: int = 100) -> None:
    """Let the engine report its stages, and one token of the next id for each text."""
    watched.generate()
    for number, text in enumerate(texts, start=first_id):
        watched.analysis.tokens_generated(tokens(1, text, ids=(number,)))


async def lived(log: TestableLog, *, deadline_in_s: float | None = None) -> Watched:
    """Return an analysis that was suspended in the middle of generating `The red`, tokens 100 and 101."""
    watched = await begin(log, token_interval_s=0.0, deadline_in_s=deadline_in_s)
    generate(watched, "The", " red")
    watched.analysis.suspend()
    return watched


async def next_life(log: TestableLog, before: Watched) -> Watched:
    """Return the analysis as a new one that has taken over what the log holds."""
    await log.get(before.name)
    after = Watched(log, before.spec, before.name)
    after.analysis.restore(await log.read(before.name, 0))
    return after


# The engine is lost.


async def test_an_interruption_keeps_what_came_and_says_that_it_goes_on(log: TestableLog) -> None:
    """Tokens that were waiting to be sent are written, then one progress tells of the continuation, in the queue."""
    watched = await begin(log)
    generate(watched, "The", " red", " plane")
    watched.analysis.interrupt()
    assert [token.text for token in watched.tokens] == ["The", " red plane"]
    assert watched.analysis.ids == [100, 101, 102]
    last = watched.last
    assert isinstance(last, Progress)
    assert (last.stage, last.continuations, last.output_tokens) == (Stage.QUEUED, 1, 3)
    assert last.message == "Continuing where it was interrupted..."
    watched.analysis.cancel()


async def test_the_stages_begin_again_and_the_numbers_go_on(log: TestableLog) -> None:
    """After an interruption every stage is told anew; indices, ids and text go on where they were."""
    watched = await begin(log, token_interval_s=0.0)
    generate(watched, "The", " red")
    watched.analysis.interrupt()
    generate(watched, " plane", " flies", first_id=102)
    watched.analysis.row_done(done(2, text=".", output_tokens=4))
    stages = [progress.stage for progress in watched.progress]
    turn = [Stage.QUEUED, Stage.PREPARING, Stage.PREFILL, Stage.GENERATING]
    assert stages == [*turn, *turn, Stage.FINALIZING]
    assert [(token.first_index, token.token_count) for token in watched.tokens] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 0),
    ]
    assert [id_ for token in watched.tokens for id_ in token.ids] == [100, 101, 102, 103]
    assert isinstance(watched.last, Completed)
    assert watched.last.text == "The red plane flies."
    fractions = [progress.fraction for progress in watched.progress]
    assert fractions == sorted(fractions)
    assert [progress.continuations for progress in watched.progress] == [0] * 4 + [1] * 5
    assert watched.sequences == list(range(1, len(watched.events) + 1))


async def test_tokens_without_text_are_kept_too(log: TestableLog) -> None:
    """Half of a character is an id that the next engine must be told, though it spells nothing yet."""
    watched = await begin(log)
    generate(watched, "The", "", "")
    watched.analysis.interrupt()
    assert [(token.text, token.ids) for token in watched.tokens] == [("The", (100,)), ("", (101, 102))]
    generate(watched, "é", first_id=103)
    watched.analysis.cancel()
    assert watched.tokens[-1].first_index == 3
    assert watched.analysis.text == "Theé"


async def test_one_that_waits_is_not_interrupted(log: TestableLog) -> None:
    """What has not begun says nothing of the loss of an engine."""
    watched = await begin(log)
    before = watched.events
    watched.analysis.interrupt()
    assert watched.events == before
    watched.analysis.cancel()


async def test_an_ended_one_is_not_interrupted(log: TestableLog) -> None:
    """A loss after the end is nothing to it."""
    watched = await begin(log)
    generate(watched, "The")
    watched.analysis.cancel()
    before = watched.events
    watched.analysis.interrupt()
    assert watched.events == before


async def test_the_deadline_counts_on_through_an_interruption(log: TestableLog) -> None:
    """It ends with what there is, whatever life it is in; without a token it fails and names the stage."""
    some = await begin(log, name="analyses/1", deadline_in_s=0.1)
    generate(some, "The")
    some.analysis.interrupt()
    none = await begin(log, name="analyses/2", deadline_in_s=0.1)
    generate(none)
    none.analysis.interrupt()
    await eventually(lambda: some.ends and none.ends)
    assert isinstance(some.last, Completed)
    assert (some.last.text, some.last.finish_reason) == ("The", FinishReason.DEADLINE)
    assert isinstance(none.last, Failed)
    assert isinstance(none.last.error, DeadlineExceeded)
    assert "queued" in none.last.error.message


async def test_the_heartbeat_goes_on_through_an_interruption(log: TestableLog) -> None:
    """Progress comes on its clock while the engine is away."""
    watched = await begin(log, progress_interval_s=0.1)
    generate(watched, "The")
    watched.analysis.interrupt()
    count = len(watched.progress)
    await eventually(lambda: len(watched.progress) >= count + 2)
    assert {progress.stage for progress in watched.progress[count:]} == {Stage.QUEUED}
    watched.analysis.cancel()


# Crashes.


async def test_a_kept_token_takes_back_the_suspicion(log: TestableLog) -> None:
    """Crashes are counted since the last token that is in the log; a token still waiting to be sent does not count."""
    watched = await begin(log)
    generate(watched, "The")
    watched.analysis.crashes = 2
    watched.analysis.tokens_generated(tokens(1, " red", ids=(101,)))
    assert watched.analysis.crashes == 2, "the token waits for its interval"
    watched.analysis.interrupt()
    assert watched.analysis.crashes == 0, "it was written"
    watched.analysis.cancel()


async def test_stages_and_beats_take_back_no_suspicion(log: TestableLog) -> None:
    """Only a token is progress."""
    watched = await begin(log, progress_interval_s=0.1)
    watched.analysis.crashes = 2
    watched.generate()
    count = len(watched.progress)
    await eventually(lambda: len(watched.progress) > count)
    assert watched.analysis.crashes == 2
    watched.analysis.cancel()


# The server ends.


async def test_a_suspended_analysis_writes_what_has_come_and_nothing_more(log: TestableLog) -> None:
    """Neither the engine, nor its clocks, nor anybody who wants to end it changes anything after that."""
    watched = await begin(log, progress_interval_s=0.1, deadline_in_s=0.1)
    generate(watched, "The", " red")
    watched.analysis.suspend()
    before = watched.events
    assert isinstance(watched.last, Token)
    assert watched.last.text == " red"
    assert watched.timers == {}
    generate(watched, " late", first_id=102)
    watched.analysis.move(5)
    watched.analysis.interrupt()
    watched.analysis.row_done(done(1))
    watched.analysis.cancel()
    watched.analysis.expire()
    watched.analysis.fail(DeadlineExceeded("late"))
    watched.analysis.suspend()
    await asyncio.sleep(0.25)
    assert watched.events == before
    assert watched.ends == []
    assert watched.analysis.ended


async def test_suspending_an_ended_analysis_changes_nothing(log: TestableLog) -> None:
    """Its end stays its end."""
    watched = await begin(log)
    watched.analysis.cancel()
    before = watched.events
    watched.analysis.suspend()
    assert watched.events == before


# The server starts again.


async def test_a_new_life_takes_over_everything(log: TestableLog) -> None:
    """Sequence, ids, text, token count, fraction and the number of continuations are those of the log."""
    before = await lived(log)
    after = await next_life(log, before)
    assert after.analysis.ids == [100, 101]
    assert after.analysis.text == "The red"
    assert after.analysis.last_sequence == len(after.events)
    last = after.last
    assert isinstance(last, Progress)
    assert last.message == "Continuing where it was interrupted..."
    assert (last.stage, last.output_tokens, last.max_output_tokens, last.continuations) == (Stage.QUEUED, 2, 20, 1)
    assert last.fraction == before.progress[-1].fraction > 0
    assert after.sequences == list(range(1, len(after.events) + 1))
    after.analysis.cancel()


async def test_a_new_life_ends_as_if_there_had_been_one(log: TestableLog) -> None:
    """Tokens go on at the next index, and the final text is the whole; two interruptions are as one."""
    before = await lived(log)
    middle = await next_life(log, before)
    generate(middle, " plane", first_id=102)
    middle.analysis.suspend()
    after = await next_life(log, middle)
    generate(after, " flies", first_id=103)
    after.analysis.row_done(done(3, text=".", output_tokens=4))
    assert isinstance(after.last, Completed)
    assert after.last.text == "The red plane flies."
    assert [(token.first_index, token.ids) for token in after.tokens] == [
        (0, (100,)),
        (1, (101,)),
        (2, (102,)),
        (3, (103,)),
        (4, ()),
    ]
    fractions = [progress.fraction for progress in after.progress]
    assert fractions == sorted(fractions)
    assert after.progress[-1].continuations == 2
    assert after.sequences == list(range(1, len(after.events) + 1))


async def test_the_first_token_of_a_new_life_comes_at_once(log: TestableLog) -> None:
    """Nobody waits for an interval to see that it goes on."""
    before = await lived(log)
    after = await next_life(log, before)
    generate(after, " plane", first_id=102)
    assert after.tokens[-1].text == " plane"
    after.analysis.cancel()


async def test_times_count_from_the_acceptance(log: TestableLog) -> None:
    """What passed before and between the lives is time that the caller has waited."""
    spec = spec_of()
    accepted = Accepted(model="m", advisor="", sampling=spec.resolved.sampling, context_tokens=0, queue_position=1)
    began = datetime.now(UTC) - timedelta(seconds=100)
    payloads: tuple[tuple[float, Payload], ...] = (
        (0, accepted),
        (10, Token(text="The", first_index=0, token_count=1, ids=(5,))),
        (30, Token(text=" red", first_index=1, token_count=1, ids=(6,))),
    )
    await log.begin("analyses/1", spec)
    for _, payload in payloads:
        log.append("analyses/1", payload)
    watched = Watched(log, spec, "analyses/1")
    watched.analysis.restore(
        Event(sequence=number, analysis="analyses/1", create_time=began + timedelta(seconds=after_s), payload=payload)
        for number, (after_s, payload) in enumerate(payloads, start=1)
    )
    watched.analysis.cancel()
    assert not isinstance(watched.last, Accepted | Progress | Token)
    timings = watched.last.timings
    assert timings.total_s == pytest.approx(100, abs=1)
    assert timings.time_to_first_token_s == pytest.approx(10, abs=1)
    assert timings.decode_s == pytest.approx(20, abs=1)


async def test_a_deadline_that_passed_between_the_lives_ends_it_with_what_there_is(log: TestableLog) -> None:
    """The end comes at once, after the word that it goes on."""
    before = await lived(log, deadline_in_s=0.05)
    assert before.spec.deadline_time_s
    await asyncio.sleep(before.spec.deadline_time_s - time.time())
    after = await next_life(log, before)
    assert after.ends == []
    await eventually(lambda: after.ends)
    assert isinstance(after.last, Completed)
    assert (after.last.text, after.last.finish_reason) == ("The red", FinishReason.DEADLINE)


async def test_what_has_ended_cannot_be_taken_up(log: TestableLog) -> None:
    """A log with a terminal event is nobody's to continue."""
    before = await begin(log)
    before.analysis.cancel()
    with pytest.raises(ValueError, match="ended"):
        await next_life(log, before)
