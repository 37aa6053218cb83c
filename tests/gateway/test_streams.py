"""Streams: server-sent events as any EventSource reads them."""

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest
from google.protobuf import json_format

from mondrian.v1 import analysis_pb2 as pb
from tests.client.scripted_server import ScriptedServer, playing
from tests.conditions import eventually
from tests.gateway.conftest import Served
from tests.gateway.face import Face, Stream, connected, error_of, facing, free_port, standing_alone, take
from tests.service.programs import program

LONG = {"prompt": "Describe it.", "sampling": {"minTokens": 400, "maxTokens": 400}}
ENDLESS = {"prompt": "Describe it.", "sampling": {"minTokens": 3500, "maxTokens": 3500}}


async def test_the_events_are_those_of_the_contract(served: Served) -> None:
    """`id` is the sequence, `event` the payload, `data` the event in proto3 JSON that reads back as it was sent."""
    name = await served.face.create(LONG)
    stream = await served.face.follow(name)
    stream.assert_whole()
    expected = (await served.running.watched(name)).events
    for seen, event in zip(stream.events, expected, strict=True):
        assert seen.event == event.WhichOneof("payload")
        assert json_format.ParseDict(seen.data, pb.Event()) == event
    token = next(seen.data["token"] for seen in stream.events if seen.event == "token")
    assert token["firstIndex"] == 0, "zeros are written"


async def test_the_bytes_of_a_stream(face: Face) -> None:
    """Lines and headers are what browsers and proxies need: no cache, no buffer, no compression, one `retry`."""
    name = await face.create({"prompt": "Hello."})
    response = await face.http.get(f"/v1/{name}/events", headers={"Accept-Encoding": "gzip, br"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in response.headers
    assert response.text.startswith("retry: 2000\nid: 1\nevent: accepted\ndata: {")
    assert response.text.count("retry:") == 1
    assert all(block.count("\ndata: ") == 1 for block in response.text.strip().split("\n\n"))


async def test_a_stream_goes_on_after_what_was_seen(face: Face) -> None:
    """`?after=` and Last-Event-ID begin after an event; the header, which is newer, goes before."""
    name = await face.create(LONG)
    whole = await face.follow(name)
    for parameters, headers, first in (
        ({}, {}, 1),
        ({"after": "3"}, {}, 4),
        ({}, {"Last-Event-ID": "5"}, 6),
        ({"after": "3"}, {"Last-Event-ID": "5"}, 6),
        ({"after": "0"}, {"Last-Event-ID": ""}, 1),
    ):
        rest = Stream()
        async with face.http.stream("GET", f"/v1/{name}/events", params=parameters, headers=headers) as response:
            await take(response, rest)
        assert [seen.data for seen in rest.events] == [seen.data for seen in whole.events[first - 1 :]]


async def test_nothing_is_left_after_the_end(face: Face) -> None:
    """A reconnect after the terminal event is 204, which stops an EventSource."""
    name = await face.create({"prompt": "Hello."})
    last = (await face.follow(name)).last_id
    for seen in (last, last + 1, 2**31 - 1):
        response = await face.http.get(f"/v1/{name}/events", headers={"Last-Event-ID": str(seen)})
        assert (response.status_code, response.content) == (204, b"")


async def test_a_client_that_loses_its_connection_again_and_again_loses_nothing(face: Face) -> None:
    """httpx-sse with the id of the last event reads each event once, however often the connection breaks."""
    name = await face.create(LONG)
    stream = Stream()
    while not stream.ended:
        goal = stream.last_id + 2
        await face.read(stream, name, until=lambda goal=goal: stream.last_id >= goal)
    assert len(stream.statuses) > 4
    stream.assert_whole()
    assert (await face.get(name))["text"] == stream.text


async def test_a_stream_after_the_newest_event_begins_at_once(face: Face) -> None:
    """A client that has seen everything so far gets its answer before the next event is there."""
    config = ENDLESS | {"delivery": {"progressInterval": "60s", "tokenInterval": "60s"}}
    name = await face.create(config)
    stream = Stream()
    await face.read(stream, name, until=stream.has_token)
    async with asyncio.timeout(5), face.http.stream("GET", f"/v1/{name}/events?after={stream.last_id}") as response:
        assert response.status_code == 200
        assert await anext(response.aiter_text()) == "retry: 2000\n"
    await face.http.post(f"/v1/{name}:cancel")


async def test_heartbeats_are_typed_events(face: Face) -> None:
    """While no token is delivered, progress comes on its timer as an event, not as a comment."""
    config = ENDLESS | {"delivery": {"progressInterval": "0.1s", "tokenInterval": "60s"}}
    name = await face.create(config)
    stream = Stream()

    def generating() -> list[str]:
        seen = [one.data["progress"] for one in stream.events if one.event == "progress"]
        return [one["message"] for one in seen if one["stage"] == "STAGE_GENERATING"]

    await face.read(stream, name, until=lambda: len(generating()) > 5)
    assert generating()[-1].startswith("Generating analysis... (")
    await face.http.post(f"/v1/{name}:cancel")


async def test_create_and_stream_in_one_request(face: Face) -> None:
    """POST /v1/analyze streams the whole analysis and says first where it can be read on."""
    stream = Stream()
    async with face.http.stream("POST", "/v1/analyze", json={"config": LONG}) as response:
        location = response.headers["content-location"]
        await take(response, stream)
    stream.assert_whole()
    assert location == f"/v1/{stream.name}"


async def test_a_client_that_leaves_has_its_grace(served: Served) -> None:
    """After POST /v1/analyze was dropped the analysis goes on for the grace, and then is cancelled."""
    face = served.face

    async def dropped(grace: str) -> str:
        stream = Stream()
        body = {"config": ENDLESS, "disconnectGrace": grace}
        async with face.http.stream("POST", "/v1/analyze", json=body) as response:
            await take(response, stream, stream.has_token)
        return stream.name

    async def state(name: str) -> str:
        return str((await face.get(name))["state"])

    kept, lost = await dropped("30s"), await dropped("0.1s")

    async def is_cancelled() -> bool:
        return await state(lost) == "ANALYSIS_STATE_CANCELLED"

    await eventually(is_cancelled)
    assert await state(kept) == "ANALYSIS_STATE_ACTIVE"
    await face.http.post(f"/v1/{kept}:cancel")
    await eventually(lambda: served.running.held == (0, 0, 0, 0))


async def test_a_client_that_leaves_before_its_result_has_its_grace(served: Served) -> None:
    """A request for the whole result that is dropped lets go of its analysis too."""
    body = {"config": ENDLESS, "disconnectGrace": "0s"}
    with contextlib.suppress(httpx.ReadTimeout):
        await served.face.http.post("/v1/analyze", json=body, headers={"Accept": "application/json"}, timeout=1.0)
    await eventually(lambda: served.running.held == (0, 0, 0, 0))


async def test_a_cancelled_result_is_told(served: Served) -> None:
    """Who waits for the whole result of an analysis that somebody cancels is told so by the status."""
    face = served.face
    asked = asyncio.create_task(
        face.http.post("/v1/analyze", json={"config": ENDLESS}, headers={"Accept": "application/json"})
    )
    await eventually(lambda: served.running.service.analyses.live == 1)
    page = (await face.http.get("/v1/analyses", params={"states": "ACTIVE"})).json()
    await face.http.post(f"/v1/{page['analyses'][0]['name']}:cancel")
    assert error_of(await asked) == (499, "CANCELLED")


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_bad_image_is_told_in_either_form(face: Face, accept: str) -> None:
    """What fails after its acceptance is the terminal event of a stream, and the status of a result."""
    response = await face.http.post(
        "/v1/analyze", files={"image": b"no picture"}, data={"prompt": "x"}, headers={"Accept": accept}
    )
    if accept == "application/json":
        assert error_of(response) == (400, "INVALID_IMAGE")
    else:
        assert response.status_code == 200
        assert "event: failed\n" in response.text
        assert '"reason":"INVALID_IMAGE"' in response.text


async def test_streams_leave_nothing_behind(served: Served) -> None:
    """When its clients have gone, or were refused, the gateway holds no stream."""
    name = await served.face.create(ENDLESS)
    streams = [Stream() for _ in range(20)]
    await asyncio.gather(*(served.face.read(one, name, until=one.has_token) for one in streams))
    for path in ("/v1/analyses/none/events", "/v1/analyses/none/events?after=1"):
        assert error_of(await served.face.http.get(path)) == (404, "ANALYSIS_NOT_FOUND")
    gateway = served.running.service.gateway
    assert gateway is not None
    await eventually(lambda: len(gateway.streams) == 0)
    await served.face.http.post(f"/v1/{name}:cancel")


@pytest.mark.parametrize("path", ["/v1/analyses/a1/events", "/v1/analyses/a1/events?after=3"])
async def test_a_client_that_leaves_before_its_first_event_is_noticed(script: ScriptedServer, path: str) -> None:
    """A server that says nothing does not keep the calls of clients that have gone."""
    script.watch_script = playing(forever=True)
    script.analyses["analyses/a1"] = pb.Analysis(name="analyses/a1", state=pb.ANALYSIS_STATE_ACTIVE)
    async with standing_alone(script.address) as face:
        with contextlib.suppress(httpx.ReadTimeout):
            await face.http.get(path, timeout=1.0)
        assert await script.ending() == "watch cancelled"


async def test_an_upload_that_is_broken_off_is_no_fault(
    script: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that goes in the middle of its body leaves nothing behind, in the log neither."""
    async with standing_alone(script.address) as face, connected(face) as (_, writer):
        writer.write(
            b"POST /v1/analyses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        await writer.drain()
        assert await face.ready() is not None
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert not script.creations


async def test_the_access_log_tells_nothing_of_anybody(tmp_path: Path) -> None:
    """A line holds the method, the path, the status, sizes and times: no query, key, prompt or answer."""
    async with program(tmp_path, "--http-address", f"127.0.0.1:{(port := free_port())}", "--log-level", "debug") as up:
        async with facing(port) as face:
            headers = {"Authorization": "Bearer hush-1", "Idempotency-Key": "hush-2"}
            name = await face.create({"prompt": "hush-3 what is this?", "sampling": {"maxTokens": 20}}, **headers)
            (stream := await face.follow(name)).assert_whole()
            await face.http.get(f"/v1/{name}/events", params={"after": "1", "x": "hush-4"})
            await face.http.get("/v1/models", headers={"Host": "hush-5", "Cookie": "hush-6"})
        lines = [line for line in up.log if line["event"] == "answered"]
        wanted = {"method", "path", "status", "sent_bytes", "took_s", "event", "level", "logger", "timestamp"}
        assert all(line.keys() == wanted for line in lines)
        assert [line["status"] for line in lines if line["path"].startswith("/v1/")] == [201, 200, 200, 421]
        assert "hush" not in up.errors.replace('"request_id": "hush-2"', "")
        assert stream.text[:10] not in up.errors
