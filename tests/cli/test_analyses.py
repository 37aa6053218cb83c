"""`mondrian create`, `list`, `show`, `cancel` and `delete`: analyses that the server keeps."""

import json
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from mondrian.v1 import analysis_pb2 as pb
from tests.cli.kept import ACTIVE, CANCELLED, COMPLETE, FAILED, keep
from tests.cli.programs import run, run_here, terminal
from tests.client.scripted_server import ANALYSIS, ScriptedServer, rich_status

Capture = pytest.CaptureFixture[str]


async def test_create_prints_the_name(server: ScriptedServer, tmp_path: Path) -> None:
    """Stdout is the name alone; the options reach the server, a file and standard input too."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"picture")
    options = ("-p", "What?", "--seed", "7", "--stop", "END", "--time-limit", "1m", "--token-ids")
    ended = await run("create", str(picture), "-", *options, "--address", server.address, given=b"given")
    assert (ended.status, ended.out, ended.err) == (0, f"{ANALYSIS}\n", "")
    expected = pb.AnalysisConfig(
        prompt="What?",
        images=[pb.Image(data=b"picture"), pb.Image(data=b"given")],
        sampling=pb.Sampling(seed=7, stop=["END"]),
        token_detail=pb.TokenDetail(ids=True),
        delivery=pb.Delivery(),
    )
    expected.time_limit.FromSeconds(60)
    assert server.creations[0].config == expected


async def test_create_can_print_the_analysis(server: ScriptedServer, capsys: Capture) -> None:
    """With --json it is the whole resource on one line."""
    ended = await run_here(capsys, "create", "-p", "hi", "--json", "--address", server.address)
    assert json_format.Parse(ended.out, pb.Analysis()) == server.analyses[ANALYSIS]
    assert ended.out.count("\n") == 1


async def test_create_refuses_what_analyze_refuses(server: ScriptedServer, capsys: Capture) -> None:
    """Nothing to ask, and a file that is not there, are told before anything is sent."""
    nothing = await run_here(capsys, "create", "--address", server.address)
    absent = await run_here(capsys, "create", "absent.png", "--address", server.address)
    assert nothing.err == "mondrian: give an image, a --prompt or both (see mondrian create --help)\n"
    assert absent.err == "mondrian: cannot read absent.png: No such file or directory\n"
    assert (nothing.status, absent.status, server.creations) == (2, 2, [])


async def test_list_in_a_pipe_is_tabs(server: ScriptedServer, capsys: Capture) -> None:
    """One line each: name, state, time, advisor, tokens and the beginning of the text, without escape sequences."""
    keep(server)
    ended = await run_here(capsys, "list", "--address", server.address)
    time = "2023-11-14T22:13:20.000+00:00"
    assert ended.out.splitlines() == [
        f"{ACTIVE}\tACTIVE\t{time}\t\t2\tSo far",
        f'{COMPLETE}\tCOMPLETED\t{time}\tadvisors/ansel\t12\t=1+1, "a" cat 貓',
        f"{FAILED}\tFAILED\t{time}\t\t1\tpartial",
        f"{CANCELLED}\tCANCELLED\t{time}\t\t0\t(expired)",
    ]


async def test_list_on_a_terminal_is_a_table(server: ScriptedServer) -> None:
    """Short names, the stage and fraction of what is active, rough ages; one line each, controls made harmless."""
    keep(server)
    server.analyses[COMPLETE].text += " and more words than fit beside all that on a terminal of eighty columns"
    async with terminal(["list", "--address", server.address]) as shown:
        assert await shown.end() == 0
    heading, active, complete, failed, cancelled, _ = shown.screen.lines
    assert heading.split() == ["Name", "State", "Age", "Advisor", "Tokens", "Text"]
    assert active.startswith("aaaaaaaa  generating 50%  ")
    assert complete.startswith("bbbbbbbb  completed ")
    assert "  ansel    12      =1+1" in complete
    assert complete.endswith("…")
    assert " d " in failed
    assert cancelled.endswith("(expired)")


async def test_list_filters_and_limits(server: ScriptedServer, capsys: Capture) -> None:
    """`--state` goes to the server; `--limit` fetches no page too many; 0 lists all."""
    keep(server)
    states = ("--state", "failed", "--state", "cancelled")
    some = await run_here(capsys, "list", *states, "--json", "--address", server.address)
    assert [json.loads(line)["name"] for line in some.out.splitlines()] == [FAILED, CANCELLED]
    assert list(server.listings[-1].states) == [pb.ANALYSIS_STATE_FAILED, pb.ANALYSIS_STATE_CANCELLED]
    server.listings.clear()
    two = await run_here(capsys, "list", "--limit", "2", "--address", server.address)
    assert (two.out.count("\n"), len(server.listings)) == (2, 1)
    every = await run_here(capsys, "list", "--limit", "0", "--address", server.address)
    assert every.out.count("\n") == 4


async def test_show_tells_all_that_is_known(server: ScriptedServer, capsys: Capture) -> None:
    """A fact a line, what is empty left out, then the text."""
    keep(server)
    active = await run_here(capsys, "show", ACTIVE, "--address", server.address)
    facts, _, text = active.out.partition("\n\n")
    assert "State:         active\n" in facts
    assert "Sampling:      top_p 0.5, seed 7\n" in facts
    assert "Progress:      50%, Generating analysis... (2 tokens, 9.0 tps)\n" in facts
    assert facts.endswith("Continued:     once")
    assert "Ended" not in facts
    assert text == "So far\n"
    complete = await run_here(capsys, "show", COMPLETE, "--address", server.address)
    assert "Prompt:        -What, is it?\nImages:        1\n" in complete.out
    assert "Result:        max tokens · 12 tokens · total 4.5 s\n" in complete.out
    assert complete.out.endswith('\n\n=1+1, "a"\ncat\x1b[2J 貓\n')
    failed = await run_here(capsys, "show", FAILED, "--address", server.address)
    assert "Error:         the engine crashed 3 times (ENGINE_CRASHED)\n" in failed.out


async def test_show_can_print_json(server: ScriptedServer, capsys: Capture) -> None:
    """With --json it is the resource, nothing lost."""
    keep(server)
    ended = await run_here(capsys, "show", FAILED, "--json", "--address", server.address)
    assert json_format.Parse(ended.out, pb.Analysis()) == server.analyses[FAILED]


@pytest.mark.parametrize("typed", [COMPLETE, "b" * 32, "b" * 6], ids=["name", "id", "beginning"])
async def test_a_name_may_be_typed_short(server: ScriptedServer, capsys: Capture, typed: str) -> None:
    """The whole name, the id, or an unambiguous beginning of it lead to the same analysis."""
    keep(server)
    ended = await run_here(capsys, "show", typed, "--json", "--address", server.address)
    assert json.loads(ended.out)["name"] == COMPLETE


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("bad", "'bad' is too short; give at least 6 characters of the name"),
        ("badbad", "none of the newest 500 analyses has a name like 'badbad'"),
        ("analyses/bad", "there is no analysis 'analyses/bad'"),
        ("f" * 32, f"there is no analysis 'analyses/{'f' * 32}'"),
    ],
    ids=["too short", "none", "whole name", "whole id"],
)
async def test_a_name_that_leads_nowhere_is_bad_input(
    server: ScriptedServer, capsys: Capture, typed: str, line: str
) -> None:
    """The line says why; the exit code is 2."""
    keep(server)
    ended = await run_here(capsys, "show", typed, "--address", server.address)
    assert (ended.status, ended.out, ended.err) == (2, "", f"mondrian: {line}\n")


async def test_an_ambiguous_beginning_names_those_that_it_may_be(server: ScriptedServer, capsys: Capture) -> None:
    """Two analyses that begin alike are told, and nothing is done to either."""
    keep(server)
    twin = "analyses/" + "b" * 31 + "0"
    server.analyses[twin] = pb.Analysis(name=twin, state=pb.ANALYSIS_STATE_COMPLETED)
    ended = await run_here(capsys, "delete", "bbbbbb", "--address", server.address)
    assert ended.err == f"mondrian: 'bbbbbb' may be {'b' * 32} or {'b' * 31}0\n"
    assert (ended.status, len(server.analyses)) == (2, 5)


async def test_cancel_says_what_became_of_it(server: ScriptedServer, capsys: Capture) -> None:
    """An active analysis is cancelled, an ended one was ended already; with --json the resource comes back."""
    keep(server)
    first = await run_here(capsys, "cancel", ACTIVE, "--address", server.address)
    second = await run_here(capsys, "cancel", COMPLETE, "--address", server.address)
    third = await run_here(capsys, "cancel", ACTIVE, "--json", "--address", server.address)
    assert first.out == f"{ACTIVE} is cancelled\n"
    assert second.out == f"{COMPLETE} had ended already: completed\n"
    assert json.loads(third.out)["state"] == "ANALYSIS_STATE_CANCELLED"
    assert (first.status, second.status, third.status) == (0, 0, 0)


async def test_delete_goes_on_after_an_error(server: ScriptedServer, capsys: Capture) -> None:
    """What was deleted stands on stdout, each error is a line on stderr, and the exit code is the first one's."""
    keep(server)
    ended = await run_here(capsys, "delete", COMPLETE, ACTIVE, "badccccc", "--address", server.address)
    assert ended.out.splitlines() == [COMPLETE, FAILED]
    assert ended.err == f"mondrian: {ACTIVE} is active\n"
    assert ended.status == 2
    assert set(server.analyses) == {ACTIVE, CANCELLED}


async def test_a_server_that_cannot_answer_is_told(server: ScriptedServer, capsys: Capture) -> None:
    """Exit code and line are those of every command; with --json the error is an object."""
    keep(server)
    server.refusals.append(rich_status(grpc.StatusCode.UNAVAILABLE, "the disk is full", reason="LOG_UNAVAILABLE"))
    ended = await run_here(capsys, "show", ACTIVE, "--json", "--address", server.address)
    assert ended.status == 3
    assert json.loads(ended.err)["error"]["reason"] == "LOG_UNAVAILABLE"
    await server.stop()
    ended = await run_here(capsys, "list", "--address", server.address)
    assert (ended.status, ended.out) == (3, "")
    assert ended.err == f"mondrian: no server answers at {server.address} (start one with `mondrian serve`)\n"
