"""Requests: every argument reaches the wire, and what cannot be sent names its field."""

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import pytest

import mondrian
from mondrian.v1 import analysis_pb2 as pb
from tests.client.conftest import Caller
from tests.client.scripted_server import ANALYSIS, ScriptedServer, Tape, playing


@pytest.fixture(autouse=True)
def _answering(server: ScriptedServer) -> None:
    tape = Tape()
    server.script = playing(
        tape.accepted(sampling=pb.Sampling(seed=7, max_tokens=512)),
        tape.progress(pb.STAGE_GENERATING, "Generating analysis... (1 tokens)", 0.5, output_tokens=1),
        tape.token("A cat."),
        tape.completed("A cat.", finish_reason=pb.FINISH_REASON_MAX_TOKENS, usage=pb.Usage(output_tokens=3)),
    )


async def test_ask_returns_the_answer_and_what_it_came_from(caller: Caller) -> None:
    """The result holds text, reason, usage, timings, analysis, model and sampling; progress goes to the callback."""
    seen: list[mondrian.Progress] = []
    result = await caller.call("ask", "hi", on_progress=seen.append)
    assert (result.text, result.finish_reason) == ("A cat.", mondrian.FinishReason.MAX_TOKENS)
    assert result.usage == mondrian.Usage(output_tokens=3)
    assert (result.analysis, result.model) == (ANALYSIS, "models/mondrian-tiny")
    assert result.sampling == mondrian.Sampling(seed=7, max_tokens=512)
    assert [event.message for event in seen] == ["Generating analysis... (1 tokens)"]


async def test_a_bare_prompt_sends_nothing_else(server: ScriptedServer, caller: Caller) -> None:
    """What is not given stays unset, so that the advisor's and the server's defaults apply."""
    await caller.collect("héllo 根據您的問題 💭")
    config = server.requests[0].config
    assert config.prompt == "héllo 根據您的問題 💭"
    assert config == pb.AnalysisConfig(prompt=config.prompt)


async def test_every_option_reaches_the_wire(server: ScriptedServer, caller: Caller) -> None:
    """Each argument lands in its field."""
    await caller.collect(
        "hi",
        advisor="ansel",
        instructions="Be brief.",
        model="models/m",
        sampling=mondrian.Sampling(max_tokens=9, temperature=0.5, seed=1, stop=("x",)),
        max_tokens=10,
        min_tokens=1,
        top_p=0.5,
        top_k=0,
        min_p=0.25,
        repetition_penalty=1.5,
        stop=["a", "b"],
        token_detail=mondrian.TokenDetail(ids=True),
        delivery=mondrian.Delivery(token_interval_s=0, max_tokens=4, at_sentence_end=True, progress_interval_s=0.25),
        time_limit=1.5,
        request_id="r1",
    )
    request = server.requests[0]
    expected = pb.AnalysisConfig(
        prompt="hi",
        advisor="ansel",
        instructions="Be brief.",
        model="models/m",
        sampling=pb.Sampling(
            max_tokens=10,
            min_tokens=1,
            temperature=0.5,
            top_p=0.5,
            top_k=0,
            min_p=0.25,
            repetition_penalty=1.5,
            seed=1,
            stop=["a", "b"],
        ),
        token_detail=pb.TokenDetail(ids=True),
        delivery=pb.Delivery(max_tokens=4, at_sentence_end=True),
    )
    expected.delivery.token_interval.SetInParent()
    expected.delivery.progress_interval.FromMilliseconds(250)
    expected.time_limit.FromMilliseconds(1500)
    assert request.config == expected
    assert request.request_id == "r1"


async def test_one_stop_string_needs_no_list(server: ScriptedServer, caller: Caller) -> None:
    """A single string is one stop string, not its letters."""
    await caller.collect("hi", stop="END")
    assert list(server.requests[0].config.sampling.stop) == ["END"]


async def test_the_timeout_is_the_calls_deadline(server: ScriptedServer, caller: Caller) -> None:
    """The server sees the time that is left; without a timeout there is none."""
    await caller.collect("hi", timeout=20)
    await caller.collect("hi")
    first, second = server.times_left
    assert first is not None
    assert 15 < first < 25
    assert second is None


async def test_a_deadline_that_passes_raises_deadline_exceeded(server: ScriptedServer, caller: Caller) -> None:
    """A server that is silent past the deadline ends the loop with DeadlineExceeded."""
    server.script = playing(Tape().accepted(), forever=True)
    outcome = await caller.collect("hi", timeout=1.0)
    assert type(outcome.error) is mondrian.DeadlineExceeded
    assert str(outcome.error) == "the deadline passed before the call was complete"
    assert outcome.error.__cause__ is None
    assert len(outcome.events) == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"seed": -1}, "config.sampling.seed"),
        ({"seed": 2**32}, "config.sampling.seed"),
        ({"max_tokens": 2**31}, "config.sampling.max_tokens"),
        ({"stop": ["ok", "\ud800"]}, "config.sampling.stop[1]"),
        ({"advisor": "\ud800"}, "config.advisor"),
        ({"time_limit": float("nan")}, "config.time_limit"),
        ({"time_limit": float("inf")}, "config.time_limit"),
        ({"delivery": mondrian.Delivery(token_interval_s=1e30)}, "config.delivery.token_interval"),
    ],
    ids=["seed below", "seed above", "tokens", "surrogate stop", "surrogate advisor", "NaN", "inf", "interval"],
)
async def test_a_value_that_cannot_be_sent_names_its_field(
    server: ScriptedServer, caller: Caller, options: dict[str, Any], field: str
) -> None:
    """Such a value raises InvalidRequest before anything is sent."""
    with pytest.raises(mondrian.InvalidRequest) as caught:
        await caller.call("ask", "hi", **options)
    assert [violation.field for violation in caught.value.field_violations] == [field]
    assert str(caught.value).startswith(field)
    assert server.requests == []


async def test_an_unknown_option_is_a_type_error(caller: Caller) -> None:
    """A misspelt argument is refused at the call, as Python does."""
    with pytest.raises(TypeError, match="max_token"):
        await caller.call("ask", "hi", max_token=3)


async def test_images_may_be_paths_bytes_or_files(server: ScriptedServer, caller: Caller, tmp_path: Path) -> None:
    """Each kind arrives as its bytes, in order."""
    path = tmp_path / "picture.png"
    path.write_bytes(b"one")
    images = [path, str(path), b"two", bytearray(b"three"), memoryview(b"four"), io.BytesIO(b"five")]
    await caller.collect("hi", images=images)
    sent = [image.data for image in server.requests[0].config.images]
    assert sent == [b"one", b"one", b"two", b"three", b"four", b"five"]


async def test_a_missing_file_is_pythons_own_error(server: ScriptedServer, caller: Caller, tmp_path: Path) -> None:
    """A path that cannot be read raises FileNotFoundError with its name; nothing is sent."""
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        await caller.call("ask", "hi", images=[tmp_path / "absent.png"])
    assert server.requests == []


@pytest.mark.parametrize("images", [b"bytes", "a.png", [3], [io.StringIO("text")]], ids=["bytes", "str", "int", "text"])
async def test_what_is_no_image_is_a_type_error(caller: Caller, images: Any) -> None:
    """A lone image in place of the list, a number and a text file are refused with a TypeError."""
    with pytest.raises(TypeError, match="images"):
        await caller.call("ask", "hi", images=images)


async def test_endless_files_are_not_read_to_their_end(server: ScriptedServer, caller: Caller) -> None:
    """A device is given up after 256 MiB, as InvalidImage."""
    with pytest.raises(mondrian.InvalidImage, match=r"config\.images\[0\]: the file is larger"):
        await caller.call("ask", "hi", images=["/dev/zero"])
    assert server.requests == []


async def test_a_request_of_24_mib_goes_through(server: ScriptedServer, caller: Caller) -> None:
    """The largest request that a server takes by default is sent whole."""
    await caller.collect("hi", images=[bytes(12 * 2**20), bytes(12 * 2**20)])
    assert [len(image.data) for image in server.requests[0].config.images] == [12 * 2**20] * 2


async def test_a_request_above_the_servers_limit_says_so(caller: Caller) -> None:
    """A message that the server's transport refuses raises ResourceExhausted in words for people."""
    outcome = await caller.collect("hi", images=[bytes(33 * 2**20)])
    assert type(outcome.error) is mondrian.ResourceExhausted
    assert "the request is larger than the server at 127.0.0.1:" in str(outcome.error)


async def test_reading_images_does_not_block_the_event_loop(
    server: ScriptedServer, client: mondrian.AsyncClient, tmp_path: Path
) -> None:
    """While a slow file is being read, other tasks run."""
    slow = tmp_path / "slow.png"
    os.mkfifo(slow)
    asking = asyncio.create_task(client.ask("hi", images=[slow]))

    def write() -> None:  # returns once the client's reader has opened the other end
        slow.write_bytes(b"late")

    await asyncio.wait_for(asyncio.to_thread(write), 5)
    assert (await asking).text == "A cat."
    assert server.requests[0].config.images[0].data == b"late"


async def test_a_closed_client_says_so(server: ScriptedServer) -> None:
    """Calls after the close are a RuntimeError, not an error of the service."""
    client = mondrian.AsyncClient(server.address)
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.ask("hi")
    with mondrian.Client(server.address) as threaded:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        threaded.list_models()


async def test_no_server_is_noticed_at_once(caller: Caller, server: ScriptedServer) -> None:
    """A refused connection raises ConnectionFailed with the address, in well under a second."""
    await server.stop()
    async with asyncio.timeout(2):
        outcome = await caller.collect()
    assert type(outcome.error) is mondrian.ConnectionFailed
    assert f"no server answers at {server.address}" in str(outcome.error)
