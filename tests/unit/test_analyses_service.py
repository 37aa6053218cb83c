"""The analyses service: admission, images, and the way of the events, over a scripted engine."""

import asyncio
from dataclasses import replace

import pytest

from mondrian_server import errors
from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.analyses.service import HOPELESS_FAILURES
from mondrian_server.engine.interface import EngineState
from mondrian_server.engine.protocol import Loading
from mondrian_server.events import Accepted, Completed, Event, Failed, FinishReason, Progress, Stage
from tests.unit.conditions import eventually
from tests.unit.office import Office
from tests.unit.stand_ins import GatedDecoder, done, stage, tokens


async def test_an_analysis_goes_from_acceptance_to_completion() -> None:
    """The events are those of the contract's example, and nothing is held afterwards."""
    office = Office()
    name = office.accept("What is it?")
    office.engine.step(stage(1, Stage.PREFILL))
    office.engine.step(stage(1, Stage.GENERATING, done=10), tokens(1, "The"))
    office.engine.step(tokens(1, " red"), tokens(1, " plane"))
    office.engine.step(done(1, text=".", output_tokens=3), peak_memory_bytes=77)
    assert name.startswith("analyses/")
    payloads = [event.payload for event in office.events(name)]
    assert isinstance(payloads[0], Accepted)
    stages = [payload.stage for payload in payloads if isinstance(payload, Progress)]
    assert stages == [Stage.QUEUED, Stage.PREPARING, Stage.PREFILL, Stage.GENERATING, Stage.FINALIZING]
    completed = office.last(name, Completed)
    assert completed.text == "The red plane."
    assert completed.finish_reason is FinishReason.STOP
    assert completed.timings.peak_memory_bytes == 77
    assert office.holds_nothing()


async def test_accepted_says_what_was_resolved() -> None:
    """Model, advisor, every sampling value, the context and the position are told."""
    office = Office()
    name = office.accept("?", advisor="ansel")
    accepted = office.events(name)[0].payload
    assert isinstance(accepted, Accepted)
    assert (accepted.model, accepted.advisor) == ("models/tiny", "advisors/ansel")
    assert accepted.sampling.max_tokens == 100
    assert accepted.sampling.seed is not None
    assert accepted.context_tokens == 1024
    assert accepted.queue_position == 1
    assert accepted.deadline_time is None
    office.service.forget(name)


async def test_a_watcher_sees_every_event_to_the_terminal_one() -> None:
    """Watching from the start, while events come, gives them all in order, and ends."""
    office = Office()
    name = office.accept()
    seen: list[Event] = []

    async def watch() -> None:
        async for events in office.service.watch(name):
            seen.extend(events)

    watching = asyncio.create_task(watch())
    for text in "abc":
        await asyncio.sleep(0)
        office.engine.step(tokens(1, text))
    office.engine.step(done(1, output_tokens=3))
    await asyncio.wait_for(watching, 5)
    assert seen == list(office.events(name))


async def test_a_watcher_goes_on_after_its_cursor() -> None:
    """With a cursor only later events are yielded."""
    office = Office()
    name = office.accept()
    office.engine.step(done(1))
    sequences = [event.sequence async for events in office.service.watch(name, 2) for event in events]
    assert sequences == [event.sequence for event in office.events(name)][2:]


# Admission.


async def test_a_request_that_breaks_a_rule_is_refused_and_holds_nothing() -> None:
    """Neither the queue nor the log hears of it."""
    office = Office()
    refused = AnalysisRequest(prompt="?")
    for changes in ({"prompt": ""}, {"advisor": "nobody"}, {"model": "other"}, {"time_limit_s": 0.0}):
        with pytest.raises(errors.InvalidRequest):
            office.service.accept(replace(refused, **changes), deadline_in_s=None)
    assert office.holds_nothing()
    assert len(office.log) == 0


async def test_so_many_may_wait_and_no_more() -> None:
    """Two run and three wait; the next is refused with a time to come back, until a place is free."""
    office = Office()
    names = [office.accept() for _ in range(5)]
    with pytest.raises(errors.TooManyAnalyses) as caught:
        office.accept()
    assert caught.value.retry_after_s is not None and caught.value.retry_after_s >= 1
    office.service.cancel(names[4])
    office.accept()


async def test_so_many_bytes_may_wait_and_no_more() -> None:
    """Images beyond the memory set aside are refused; text-only analyses are not."""
    office = Office(decoder=GatedDecoder(is_open=False))
    first = office.accept("?", bytes(600))
    with pytest.raises(errors.TooManyBytes) as caught:
        office.accept("?", bytes(401))
    assert caught.value.retry_after_s is not None
    office.accept("?", bytes(400))
    office.accept("text only")
    assert office.service.bytes_held == 1000
    office.service.forget(first)
    assert office.service.bytes_held == 400


async def test_bytes_are_those_of_the_files_and_then_of_the_pictures() -> None:
    """What is accounted for changes when the images are decoded, and is 0 at the end."""
    decoder = GatedDecoder(is_open=False)
    office = Office(decoder=decoder)
    name = office.accept("?", bytes(500))
    assert office.service.bytes_held == 500
    decoder.gate.set()
    await eventually(lambda: office.engine.submitted)
    assert office.service.bytes_held == 6
    office.service.cancel(name)
    assert office.service.bytes_held == 0


@pytest.mark.parametrize("state", [EngineState.DOWN, EngineState.LOADING])
async def test_an_engine_without_hope_refuses_and_fails_those_who_wait(state: EngineState) -> None:
    """After several failed starts, analyses end UNAVAILABLE at once instead of waiting for nothing."""
    office = Office(EngineState.LOADING)
    name = office.accept()
    office.engine.become(EngineState.DOWN, failures=HOPELESS_FAILURES - 1)
    assert office.service.live == 1
    office.engine.become(state, failures=HOPELESS_FAILURES)
    assert isinstance(office.last(name, Failed).error, errors.EngineUnavailable)
    with pytest.raises(errors.EngineUnavailable) as caught:
        office.accept()
    assert caught.value.retry_after_s is not None
    assert office.holds_nothing()
    office.engine.become(EngineState.READY)
    office.accept()


async def test_those_who_came_while_the_model_loaded_start_when_it_is_ready() -> None:
    """Loading is told, then the rows go out."""
    office = Office(EngineState.LOADING)
    name = office.accept()
    office.engine.become(EngineState.LOADING, loading=Loading(message="x", done_bytes=1, total_bytes=4))
    assert office.events(name)[-1].payload.__class__ is Progress
    assert office.last(name, Progress).stage is Stage.LOADING_MODEL
    office.engine.become(EngineState.READY)
    assert office.engine.rows == [1]


# Images.


async def test_images_reach_the_engine_in_order() -> None:
    """The pictures are those of the files, in the order of the request."""
    office = Office()
    office.accept("?", b"first", b"second")
    await eventually(lambda: office.engine.submitted)
    assert [picture.digest for picture in office.engine.submitted[0].pictures] == [b"first", b"second"]


async def test_a_bad_image_fails_its_analysis_by_its_index() -> None:
    """The error names which image it was; the place is free."""
    office = Office()
    name = office.accept("?", b"good", b"bad")
    await eventually(lambda: office.service.live == 0)
    error = office.last(name, Failed).error
    assert isinstance(error, errors.InvalidImage)
    assert error.field == "config.images[1].data"
    assert office.engine.submitted == []
    assert office.holds_nothing()


async def test_a_defect_of_the_decoder_ends_the_analysis_without_telling_its_insides() -> None:
    """An unexpected exception is INTERNAL."""
    office = Office()
    name = office.accept("?", b"bug")
    await eventually(lambda: office.service.live == 0)
    error = office.last(name, Failed).error
    assert isinstance(error, errors.InternalError)
    assert "defect" not in error.message
    assert office.holds_nothing()


async def test_cancelling_stops_the_decoding() -> None:
    """The decoder's caller is cancelled, and the next one takes the place."""
    decoder = GatedDecoder(is_open=False)
    office = Office(decoder=decoder)
    names = [office.accept("?", b"x") for _ in range(3)]
    await eventually(lambda: decoder.decoding == 3)
    for name in names:
        office.service.cancel(name)
    await eventually(office.holds_nothing)
    assert office.engine.submitted == []


async def test_pictures_are_held_only_until_the_engine_has_begun_with_them() -> None:
    """They are kept for the loss of an engine before that; after it they do not count against those who wait."""
    office = Office()
    name = office.accept("?", bytes(900))
    await eventually(lambda: office.engine.submitted)
    office.engine.step(stage(1, Stage.PREPARING))
    assert office.service.bytes_held == 6
    office.engine.step(stage(1, Stage.ENCODING))
    assert office.service.bytes_held == 0
    office.service.forget(name)
    assert office.service.bytes_held == 0


async def test_decoded_images_of_an_ended_analysis_go_nowhere() -> None:
    """An end in the very moment in which the decoding ends wins."""
    decoder = GatedDecoder(is_open=False)
    office = Office(decoder=decoder)
    name = office.accept("?", b"x")
    await eventually(lambda: decoder.decoding == 1)
    decoder.gate.set()
    office.service.cancel(name)
    for _ in range(5):
        await asyncio.sleep(0)
    assert office.engine.submitted == []
    assert office.holds_nothing()
