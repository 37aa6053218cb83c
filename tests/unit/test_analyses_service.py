"""The analyses service: admission, the engine's updates, and every way to an end, over a scripted engine."""

import asyncio
from dataclasses import replace

import pytest

from mondrian_server import errors
from mondrian_server.analyses.admission import HOPELESS_FAILURES
from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.engine.interface import EngineState
from mondrian_server.engine.protocol import Loading
from mondrian_server.events import Accepted, Completed, Failed, FinishReason, Progress, Stage
from tests.conditions import eventually
from tests.unit.office import LOCAL, Office, Offices
from tests.unit.stand_ins import GatedDecoder, done, stage, tokens


async def test_an_analysis_goes_from_acceptance_to_completion(office: Office) -> None:
    """The events are those of the contract's example, and nothing is held afterwards."""
    name = await office.create("What is it?")
    office.step(stage(1, Stage.PREFILL))
    office.step(stage(1, Stage.GENERATING, done=10), tokens(1, "The"))
    office.step(tokens(1, " red"), tokens(1, " plane"))
    office.engine.step(done(1, text=".", output_tokens=3), peak_memory_bytes=77)
    assert name.startswith("analyses/")
    payloads = await office.payloads(name)
    assert isinstance(payloads[0], Accepted)
    stages = [payload.stage for payload in payloads if isinstance(payload, Progress)]
    assert stages == [Stage.QUEUED, Stage.PREPARING, Stage.PREFILL, Stage.GENERATING, Stage.FINALIZING]
    completed = await office.last(name, Completed)
    assert completed.text == "The red plane."
    assert completed.finish_reason is FinishReason.STOP
    assert completed.timings.peak_memory_bytes == 77
    assert office.holds_nothing()


async def test_accepted_says_what_was_resolved(office: Office) -> None:
    """Model, advisor, every sampling value, the context and the position are told."""
    name = await office.create("?", advisor="ansel")
    accepted = (await office.events(name))[0].payload
    assert isinstance(accepted, Accepted)
    assert (accepted.model, accepted.advisor) == ("models/tiny", "advisors/ansel")
    assert accepted.sampling.max_tokens == 100
    assert accepted.sampling.seed is not None
    assert accepted.context_tokens == 1024
    assert accepted.queue_position == 1
    assert accepted.deadline_time is None
    await office.cancel(name)


async def test_a_watcher_sees_every_event_to_the_terminal_one(office: Office) -> None:
    """Watching from the start, while events come, gives them all in order, and ends."""
    name = await office.create()
    watcher = office.watch(name)
    for text in "abc":
        await asyncio.sleep(0)
        office.step(tokens(1, text))
    office.step(done(1, output_tokens=3))
    assert await watcher.end() == list(await office.events(name))


async def test_a_watcher_goes_on_after_its_cursor(office: Office) -> None:
    """With a cursor only later events are yielded."""
    name = await office.create()
    office.step(done(1))
    assert await office.watch(name, 2).end() == list(await office.events(name))[2:]


# Admission.


async def test_a_request_that_breaks_a_rule_is_refused_and_holds_nothing(office: Office) -> None:
    """Neither the queue nor the log hears of it."""
    refused = AnalysisRequest(prompt="?")
    for changes in ({"prompt": ""}, {"advisor": "nobody"}, {"model": "other"}, {"time_limit_s": 0.0}):
        with pytest.raises(errors.InvalidRequest):
            await office.service.create(replace(refused, **changes))
    assert office.holds_nothing()
    assert await office.service.list(LOCAL, ()) == []


async def test_so_many_may_wait_and_no_more(office: Office) -> None:
    """Two run and three wait; the next is refused with a time to come back, until a place is free."""
    names = [await office.create() for _ in range(5)]
    with pytest.raises(errors.TooManyAnalyses) as caught:
        await office.create()
    assert caught.value.retry_after_s is not None and caught.value.retry_after_s >= 1
    await office.cancel(names[4])
    await office.create()


async def test_so_many_bytes_may_wait_and_no_more(offices: Offices) -> None:
    """Images beyond the room set aside are refused; text-only analyses are not."""
    office = await offices.open(decoder=GatedDecoder(is_open=False))
    first = await office.create("?", bytes(600))
    with pytest.raises(errors.TooManyBytes) as caught:
        await office.create("?", bytes(401))
    assert caught.value.retry_after_s is not None
    await office.create("?", bytes(400))
    await office.create("text only")
    assert office.service.bytes_held == 1000
    await office.cancel(first)
    assert office.service.bytes_held == 400


async def test_bytes_are_counted_until_the_engine_has_the_pictures(offices: Offices) -> None:
    """An image file counts while its analysis waits and while it is decoded, and no longer."""
    decoder = GatedDecoder(is_open=False)
    office = await offices.open(decoder=decoder)
    name = await office.create("?", bytes(500))
    await eventually(lambda: decoder.decoding)
    assert office.service.bytes_held == 500
    decoder.gate.set()
    await eventually(lambda: office.engine.submitted)
    assert office.service.bytes_held == 0
    await office.cancel(name)
    assert office.service.bytes_held == 0


async def test_images_wait_in_the_log_until_their_turn(offices: Offices) -> None:
    """Those with a place are decoded, one analysis at a time and in order; those without are not touched."""
    decoder = GatedDecoder(is_open=False)
    office = await offices.open(decoder=decoder, lookahead=1, max_waiting=100)
    names = [await office.create(str(number), b"a", b"b") for number in range(10)]
    await eventually(lambda: decoder.decoding)
    assert office.decoder.decoding == 1
    decoder.gate.set()
    await eventually(lambda: len(office.engine.submitted) == 3)
    assert office.engine.prompts == ["0", "1", "2"]
    assert [len((await office.log.images(name)).files) for name in names] == [0] * 3 + [2] * 7
    office.step(done(1))
    await eventually(lambda: office.engine.prompts[3:] == ["3"])


async def test_images_are_read_again_when_the_log_is_back_before_anybody_hears_that_it_was_away(
    offices: Offices,
) -> None:
    """A read that fails while the log counts as available is no fault of the analysis: it goes on."""
    office = await offices.open()
    office.log.image_failures.append(errors.LogUnavailable("away for a moment", retry_after_s=1.0))
    await office.create("?", b"a")
    await eventually(lambda: office.engine.submitted)
    assert office.engine.prompts == ["?"]
    assert not office.log.image_failures


@pytest.mark.parametrize("state", [EngineState.DOWN, EngineState.LOADING])
async def test_an_engine_without_hope_refuses_those_who_come_and_keeps_those_who_wait(
    offices: Offices, state: EngineState
) -> None:
    """After several failed starts, new ones are told when to come back; who was taken on waits for the engine."""
    office = await offices.open(EngineState.LOADING)
    await office.create("early")
    office.engine.become(EngineState.DOWN, failures=HOPELESS_FAILURES - 1)
    await office.create("hopeful")
    office.engine.become(state, failures=HOPELESS_FAILURES)
    with pytest.raises(errors.EngineUnavailable) as caught:
        await office.create("late")
    assert caught.value.retry_after_s is not None
    assert office.service.live == 2
    office.engine.become(EngineState.READY, failures=0)
    assert office.engine.prompts == ["early", "hopeful"]
    await office.create("later")


async def test_those_who_came_while_the_model_loaded_start_when_it_is_ready(offices: Offices) -> None:
    """Loading is told, then the rows go out."""
    office = await offices.open(EngineState.LOADING)
    name = await office.create()
    office.engine.become(EngineState.LOADING, loading=Loading(message="x", done_bytes=1, total_bytes=4))
    assert (await office.last(name, Progress)).stage is Stage.LOADING_MODEL
    office.engine.become(EngineState.READY)
    assert office.engine.rows == [1]


# Images.


async def test_images_reach_the_engine_in_order(office: Office) -> None:
    """The pictures are those of the files, in the order of the request."""
    await office.create("?", b"first", b"second")
    await eventually(lambda: office.engine.submitted)
    assert [picture.digest for picture in office.engine.submitted[0].pictures] == [b"first", b"second"]


async def test_a_bad_image_fails_its_analysis_by_its_index(office: Office) -> None:
    """The error names which image it was; the place is free."""
    name = await office.create("?", b"good", b"bad")
    await eventually(lambda: office.service.live == 0)
    error = (await office.last(name, Failed)).error
    assert isinstance(error, errors.InvalidImage)
    assert error.field == "config.images[1].data"
    assert office.engine.submitted == []
    assert office.holds_nothing()


async def test_a_defect_of_the_decoder_ends_the_analysis_without_telling_its_insides(office: Office) -> None:
    """An unexpected exception is INTERNAL."""
    name = await office.create("?", b"bug")
    await eventually(lambda: office.service.live == 0)
    error = (await office.last(name, Failed)).error
    assert isinstance(error, errors.InternalError)
    assert "defect" not in error.message
    assert office.holds_nothing()


async def test_cancelling_stops_the_decoding(offices: Offices) -> None:
    """The decoder's caller is cancelled, and so are those who wait for it."""
    decoder = GatedDecoder(is_open=False)
    office = await offices.open(decoder=decoder)
    names = [await office.create("?", b"x") for _ in range(3)]
    await eventually(lambda: decoder.decoding)
    for name in names:
        await office.cancel(name)
    await eventually(office.holds_nothing)
    assert office.engine.submitted == []


async def test_decoded_images_of_an_ended_analysis_go_nowhere(offices: Offices) -> None:
    """An end in the very moment in which the decoding ends wins."""
    decoder = GatedDecoder(is_open=False)
    office = await offices.open(decoder=decoder)
    name = await office.create("?", b"x")
    await eventually(lambda: decoder.decoding == 1)
    decoder.gate.set()
    await office.cancel(name)
    for _ in range(5):
        await asyncio.sleep(0)
    assert office.engine.submitted == []
    assert office.holds_nothing()
