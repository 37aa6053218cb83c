"""Client and commands against the real service: its engine process, its images process and the embedded model."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

import mondrian
from tests.cli.programs import run, terminal
from tests.client.conftest import threaded_client
from tests.conditions import eventually
from tests.service.calls import Running, settings_for, started

PICTURE = min((Path(__file__).parents[2] / "models" / "mondrian-tiny" / "samples").glob("*.png"))
IDLE = (0, 0, 0, 0)


@pytest_asyncio.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """Run the service on the embedded model."""
    async with started(settings_for(tmp_path_factory.mktemp("data"))) as up:
        yield up


@pytest.fixture
def address(service: Running) -> str:
    """Tell where it listens."""
    return f"127.0.0.1:{service.service.port}"


@pytest.fixture
async def client(address: str) -> AsyncGenerator[mondrian.AsyncClient]:
    """Connect a client that has seen the service ready."""
    async with mondrian.AsyncClient(address) as connected:
        await connected.wait_until_ready(timeout=30)
        yield connected


async def test_a_picture_is_analysed(client: mondrian.AsyncClient) -> None:
    """The stream is accepted, goes through its stages in order, and its tokens are the final text."""
    events = [event async for event in client.analyze("Describe this image.", images=[PICTURE], max_tokens=40)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], mondrian.Accepted)
    completed = events[-1]
    assert isinstance(completed, mondrian.Completed)
    assert "".join(event.text for event in events if isinstance(event, mondrian.Token)) == completed.text
    assert completed.usage.image_tokens > 0
    progress = [event for event in events if isinstance(event, mondrian.Progress)]
    assert all(a.stage <= b.stage and a.fraction <= b.fraction for a, b in itertools.pairwise(progress))
    assert mondrian.Stage.UNKNOWN not in [event.stage for event in progress]


async def test_the_same_seed_gives_the_same_text_to_each_client(client: mondrian.AsyncClient, address: str) -> None:
    """Both clients and the command line get one text for one seed; the sampling that came back repeats it."""
    options = mondrian.Sampling(temperature=1.0, seed=7, max_tokens=32)
    first = await client.ask("What is this?", images=[PICTURE], sampling=options)
    again = await client.ask("What is this?", images=[PICTURE.read_bytes()], sampling=first.sampling)
    with mondrian.Client(address) as threaded:
        third = await asyncio.to_thread(threaded.ask, "What is this?", images=[PICTURE], sampling=options)
    ended = await run(
        *("analyze", str(PICTURE), "-p", "What is this?", "--seed", "7"),
        *("--temperature", "1", "--max-tokens", "32", "--address", address),
    )
    assert again.text == third.text == first.text
    assert (ended.status, ended.out) == (0, first.text if first.text.endswith("\n") else first.text + "\n")


async def test_leaving_the_loop_frees_the_slot(service: Running, client: mondrian.AsyncClient) -> None:
    """After a break the service holds nothing of the analysis."""
    async for event in client.analyze("Go on for ever.", max_tokens=4000, min_tokens=4000):
        if isinstance(event, mondrian.Token):
            assert service.held != IDLE
            break
    await eventually(lambda: service.held == IDLE)


@pytest.mark.alone
async def test_a_timeout_keeps_what_was_generated(client: mondrian.AsyncClient) -> None:
    """A call whose deadline comes while it generates completes with DEADLINE and its text."""
    began = time.monotonic()
    result = await client.ask("Go on for ever.", max_tokens=4000, min_tokens=4000, timeout=1.0)
    assert result.finish_reason is mondrian.FinishReason.DEADLINE
    assert result.text
    assert time.monotonic() - began < 2


async def test_ctrl_c_frees_the_slot(service: Running, address: str) -> None:
    """Ctrl-C on a terminal ends the command with 130 and the analysis on the server."""
    endless = ["analyze", "-p", "Go on.", "--max-tokens", "4000", "--min-tokens", "4000", "--address", address]
    async with terminal(endless) as shown:
        await shown.sees("Generating analysis... (")
        shown.type(b"\x03")
        assert await shown.end() == 130
    await eventually(lambda: service.held == IDLE)
    assert shown.screen.lines[-2:] == ["mondrian: cancelled", ""]


async def test_the_terminal_ends_with_the_text_and_a_summary(address: str) -> None:
    """A whole analysis leaves its text and one line on the screen."""
    async with terminal(["analyze", str(PICTURE), "--max-tokens", "24", "--address", address]) as shown:
        assert await shown.end() == 0
    *_, blank, summary, _ = shown.screen.lines
    assert blank == ""
    assert summary.startswith("✓ ")
    assert "tokens/s" in summary


async def test_a_file_that_is_no_picture_is_named(address: str) -> None:
    """The refusal names the file as the user wrote it."""
    ended = await run("analyze", str(PICTURE), __file__, "--address", address)
    assert ended.status == 2
    assert ended.err.startswith(f"mondrian: {__file__}: ")
    assert ended.err.count("\n") == 1


async def test_json_follows_the_grammar_of_the_stream(address: str) -> None:
    """Accepted first, completed last, sequences without a gap, token details where they were asked for."""
    ended = await run(
        *("analyze", "-p", "hi", "--max-tokens", "8", "--token-ids", "--log-probabilities"),
        *("--json", "--address", address),
    )
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert "accepted" in events[0]
    tokens = [event["token"] for event in events if "token" in event]
    assert all(len(token["ids"]) == token["tokenCount"] == len(token["logProbabilities"]) for token in tokens)
    assert sum(token["tokenCount"] for token in tokens) == events[-1]["completed"]["usage"]["outputTokens"]


async def test_the_catalogue_is_the_services(client: mondrian.AsyncClient, address: str) -> None:
    """The embedded model is ready, its name finds it, and the three advisors that ship are there."""
    models = await client.list_models()
    assert [(model.name, model.state) for model in models] == [("models/mondrian-tiny", mondrian.ModelState.READY)]
    assert await client.get_model("models/mondrian-tiny") == models[0]
    ended = await run("advisors", "--address", address)
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == ["albers", "ansel", "mondrian"]


async def test_the_life_of_a_created_analysis(client: mondrian.AsyncClient, address: str) -> None:
    """Create, watch, show, list, export and delete tell the same of one analysis, and then it is gone."""
    at = ("--address", address)
    created = await run("create", str(PICTURE), "--max-tokens", "16", "-a", "ansel", *at)
    name = created.out.strip()
    events = [event async for event in client.watch(name)]
    completed = events[-1]
    assert isinstance(completed, mondrian.Completed)
    analysis = await client.get(name)
    assert (analysis.text, analysis.usage, analysis.advisor) == (completed.text, completed.usage, "advisors/ansel")
    shown = await run("show", name[9:17], *at)
    assert shown.out.endswith(f"\n\n{analysis.text}\n")
    listed = await run("list", "--state", "completed", "--limit", "1", *at)
    assert listed.out.split("\t")[:2] == [name, "COMPLETED"]
    exported = await run("export", "--format", "jsonl", *at)
    rows = {row["name"]: row for row in map(json.loads, exported.out.splitlines())}
    assert (rows[name]["text"], rows[name]["outputTokens"]) == (completed.text, completed.usage.output_tokens)
    deleted = await run("delete", name, *at)
    assert (deleted.status, deleted.out) == (0, f"{name}\n")
    gone = await run("show", name, *at)
    assert (gone.status, gone.err) == (2, f"mondrian: there is no analysis {name!r}\n")


async def test_a_watch_begins_anywhere(client: mondrian.AsyncClient) -> None:
    """After each sequence the rest comes as it came the first time, from either client, while it runs and later."""
    name = (await client.create("Go on.", max_tokens=24, min_tokens=24)).name
    events = [event async for event in client.watch(name)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    async with threaded_client(client.address) as threaded:
        for after in (0, 1, len(events) // 2, len(events) - 1, len(events)):
            assert [event async for event in client.watch(name, after)] == events[after:]
            assert await asyncio.to_thread(list, threaded.watch(name, after)) == events[after:]


async def test_a_request_id_leads_to_one_analysis(client: mondrian.AsyncClient) -> None:
    """Create, analyze and ask with one request id tell of one analysis; another request with it is refused."""
    options = mondrian.AnalyzeOptions(request_id="once", max_tokens=8)
    first = await client.create("hi", **options)
    answers = await asyncio.gather(*(client.ask("hi", **options) for _ in range(5)))
    assert {answer.analysis for answer in answers} == {first.name}
    assert len({answer.text for answer in answers}) == 1
    with pytest.raises(mondrian.RequestIdReused):
        await client.create("something else", **options)


async def test_leaving_a_watch_leaves_the_analysis(service: Running, client: mondrian.AsyncClient) -> None:
    """It runs on after its watcher has gone, until it is cancelled by name; then a watch tells the same end."""
    name = (await client.create("Go on for ever.", max_tokens=4000, min_tokens=4000)).name
    async with client.watch(name) as stream:
        async for event in stream:
            if isinstance(event, mondrian.Token):
                break
    with pytest.raises(mondrian.AnalysisActive):
        await client.delete(name)
    assert (await client.get(name)).progress is not None
    assert (await client.cancel(name)).state is mondrian.AnalysisState.CANCELLED
    with pytest.raises(mondrian.AnalysisCancelled) as caught:
        async for _ in client.watch(name):
            pass
    assert caught.value.stage is mondrian.Stage.GENERATING
    assert type((await client.get(name)).error) is mondrian.AnalysisCancelled
    await eventually(lambda: service.held == IDLE)


async def test_list_goes_through_pages(client: mondrian.AsyncClient) -> None:
    """Pages of two make the list that one page makes, newest first."""
    for _ in range(3):
        await client.ask("hi", max_tokens=1)
    every = [analysis.name async for analysis in client.list()]
    assert [analysis.name async for analysis in client.list(page_size=2)] == every
    times = [analysis.create_time async for analysis in client.list()]
    assert times == sorted(times, reverse=True)
    assert [analysis async for analysis in client.list(states=[mondrian.AnalysisState.ACTIVE])] == []
