"""Examples: each runs against a real server as its first lines say, and over lines that break."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.conditions import eventually
from tests.examples.cutting import cutting_proxy
from tests.installed import installed
from tests.service.calls import Running

EXAMPLES = Path(__file__).parents[2] / "clients" / "examples"
QUESTION = "Which colour dominates?"
ANSWER = "The dominant colour is red."


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a program."""

    status: int | None
    output: str
    complaints: str


def http_port(up: Running) -> int:
    """Return where the gateway listens."""
    assert up.service.gateway is not None
    return up.service.gateway.port


async def start(up: Running, *command: str | Path, port: int = 0) -> asyncio.subprocess.Process:
    """Start an example that asks this service, or what stands before it."""
    environment = os.environ | {
        "MONDRIAN_ADDRESS": f"127.0.0.1:{up.service.port}",
        "MONDRIAN_URL": f"http://127.0.0.1:{port or http_port(up)}",
    }
    return await asyncio.create_subprocess_exec(
        *map(str, command), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def finished(process: asyncio.subprocess.Process, *, within_s: float = 90.0) -> Run:
    """Wait for the end of a program."""
    try:
        async with asyncio.timeout(within_s):
            output, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Run(process.returncode, output.decode(), complaints.decode())


async def run(up: Running, *command: str | Path, port: int = 0) -> Run:
    """Run an example to its end."""
    return await finished(await start(up, *command, port=port))


def python(name: str) -> Sequence[str | Path]:
    """Return the command of a Python example, for which warnings are errors."""
    return sys.executable, "-W", "error", EXAMPLES / name


async def newest(up: Running) -> pb.Analysis:
    """Return the analysis that was created last."""
    page = await up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(page_size=1))
    return page.analyses[0]


async def test_the_asyncio_client_describes_pictures_side_by_side(up: Running, photo: Path) -> None:
    """Each picture's text is printed; one that is none is reported, and leaves the others alone."""
    result = await run(up, *python("async_client.py"), "--prompt", QUESTION, photo, Path(__file__))
    assert f"{photo}: {ANSWER}" in result.output
    assert f"{Path(__file__)}: refused: " in result.complaints
    assert "Generating analysis..." in result.complaints
    assert result.status == 1


async def test_the_client_for_threads_begins_leaves_and_reads_on(up: Running, photo: Path) -> None:
    """A repeated beginning is the same analysis, a later reading gives the rest, and an ended one is not stopped."""
    begun = await run(up, *python("sync_client.py"), "begin", photo)
    again = await run(up, *python("sync_client.py"), "begin", photo)
    assert (begun.status, begun.complaints) == (0, "")
    name = begun.output.strip()
    assert again.output.strip() == name
    whole = await run(up, *python("sync_client.py"), "read", name)
    rest = await run(up, *python("sync_client.py"), "read", name, "12")
    kept = await up.get(name)
    assert whole.output.strip() == kept.text
    assert 0 < len(rest.output.strip()) < len(whole.output.strip())
    assert whole.output.endswith(rest.output)
    stopped = await run(up, *python("sync_client.py"), "stop", name)
    assert stopped.output.strip() == "COMPLETED"
    assert (await run(up, *python("sync_client.py"), "read", "analyses/none")).status == 1


async def test_plain_http_gives_the_whole_text_once_over_lost_connections(up: Running, photo: Path) -> None:
    """With connections that are cut in the middle, the text comes whole and once."""
    async with cutting_proxy(http_port(up), cuts=3, after_bytes=5000) as proxy:
        result = await run(up, *python("http_sse.py"), photo, port=proxy.port)
    assert result.status == 0, result.complaints
    assert proxy.cuts == 3
    assert result.output == (await newest(up)).text + "\n"
    assert result.complaints.count("; again in ") >= 3
    assert "Generating analysis..." in result.complaints


async def test_plain_http_comes_back_to_an_analysis_that_stands_still(up: Running, photo: Path) -> None:
    """A stream that begins with `retry` alone, because the next event is not there yet, is read like any other."""
    engine = up.service.engine.pid
    assert engine is not None
    async with cutting_proxy(http_port(up), cuts=2, after_bytes=900) as proxy:
        os.kill(engine, signal.SIGSTOP)
        try:
            process = await start(up, *python("http_sse.py"), photo, port=proxy.port)
            await eventually(lambda: proxy.cuts_left == 0 and up.service.analyses.watchers == 1, within_s=60.0)
        finally:
            os.kill(engine, signal.SIGCONT)
        result = await finished(process)
    assert result.status == 0, result.complaints
    assert result.output == (await newest(up)).text + "\n"


async def test_plain_http_says_what_the_server_refuses(up: Running) -> None:
    """A file that is no picture ends with the server's own words."""
    result = await run(up, *python("http_sse.py"), __file__)
    assert result.status == 1
    assert "failed: config.images[0].data: " in result.complaints


async def test_ctrl_c_stops_the_analysis(up: Running, photo: Path) -> None:
    """Ctrl-C in the plain HTTP example cancels on the server, in whatever stage it is."""
    engine = up.service.engine.pid
    assert engine is not None
    os.kill(engine, signal.SIGSTOP)
    try:
        process = await start(up, *python("http_sse.py"), photo)
        assert process.stderr is not None
        line = await asyncio.wait_for(process.stderr.readline(), 60)
        assert line.startswith(b"[")
        process.send_signal(signal.SIGINT)
        result = await finished(process)
        assert (result.status, result.complaints.strip().splitlines()[-1]) == (130, "stopped")
        assert (await newest(up)).state == pb.ANALYSIS_STATE_CANCELLED
    finally:
        os.kill(engine, signal.SIGCONT)
    await eventually(lambda: up.held == (0, 0, 0, 0))


async def test_curl_streams_resumes_stops_and_deletes(up: Running, photo: Path) -> None:
    """Every part of the shell example does what its heading says, with connections that are cut in the middle."""
    installed("curl", package="curl")
    async with cutting_proxy(http_port(up), cuts=2, after_bytes=2500) as proxy:
        result = await run(up, "sh", EXAMPLES / "curl.sh", photo, QUESTION, port=proxy.port)
    assert result.status == 0, result.complaints
    assert proxy.cuts == 2
    stream, whole, followed, stopped, deleted = [
        part.partition("\n")[2].strip() for part in result.output.split("== ")[1:]
    ]
    assert [line for line in stream.splitlines() if line.startswith("event: ")][-1] == "event: completed"
    assert json.loads(whole)["text"].startswith(ANSWER)
    events = [line.split("\t") for line in followed.splitlines()]
    assert [int(id_) for id_, _, _ in events] == list(range(1, len(events) + 1)), "none is lost or doubled"
    assert (
        "".join(json.loads(data)["token"]["text"] for _, kind, data in events if kind == "token")
        == (json.loads(events[-1][2])["completed"]["text"])
    )
    assert json.loads(stopped)["state"] in {"ANALYSIS_STATE_CANCELLED", "ANALYSIS_STATE_COMPLETED"}
    assert deleted.split() == ["204", "204"]


async def test_curl_ends_with_the_servers_words(up: Running) -> None:
    """A file that is no picture ends the shell example with an error."""
    installed("curl", package="curl")
    result = await run(up, "sh", EXAMPLES / "curl.sh", __file__)
    assert result.status != 0
    assert "INVALID_IMAGE" in result.output
