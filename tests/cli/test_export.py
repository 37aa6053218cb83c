"""`mondrian export`: final texts and nothing else, in CSV that is safe to open and in exact JSON lines."""

import csv
import io
import json
from pathlib import Path

import pytest

from mondrian.v1 import analysis_pb2 as pb
from tests.cli.kept import COMPLETE, FAILED, keep
from tests.cli.programs import run_here
from tests.client.scripted_server import ScriptedServer

Capture = pytest.CaptureFixture[str]
TEXT = '=1+1, "a"\ncat\x1b[2J 貓'


async def test_json_lines_are_exact(server: ScriptedServer, capsys: Capture) -> None:
    """Only complete analyses, with everything that a table of answers needs."""
    keep(server)
    ended = await run_here(capsys, "export", "--format", "jsonl", "--address", server.address)
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {
            "name": COMPLETE,
            "state": "COMPLETED",
            "advisor": "advisors/ansel",
            "model": "models/m",
            "instructions": "",
            "prompt": "-What,\nis it?",
            "imageCount": 1,
            "createTime": "2023-11-14T22:13:20.000Z",
            "endTime": "2023-11-14T22:14:20.000Z",
            "totalS": 4.5,
            "promptTokens": 70,
            "outputTokens": 12,
            "finishReason": "MAX_TOKENS",
            "error": None,
            "text": TEXT,
        }
    ]
    assert (ended.status, ended.err) == (0, "")


async def test_csv_holds_no_formula(server: ScriptedServer, capsys: Capture) -> None:
    """A cell that a spreadsheet could run gets a ' before it; taking it off gives the text back, line ends and all."""
    keep(server)
    ended = await run_here(capsys, "export", "--format", "csv", "--address", server.address)
    heading, row = csv.reader(io.StringIO(ended.out, newline=""))
    cells = dict(zip(heading, row, strict=True))
    assert cells["text"] == "'" + TEXT
    assert cells["prompt"] == "'-What,\nis it?"
    assert (cells["name"], cells["output_tokens"], cells["error"]) == (COMPLETE, "12", "")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1+1", "'\t=1+1"),
        ("\r\n+1", "'\r\n+1"),
        ("\N{FULLWIDTH EQUALS SIGN}1", "'\N{FULLWIDTH EQUALS SIGN}1"),
        ("'quoted'", "''quoted'"),
        ("a = b", "a = b"),
        ("", ""),
    ],
    ids=["at", "tab", "line end", "full width", "quote", "plain", "empty"],
)
async def test_every_way_into_a_formula_is_shut(server: ScriptedServer, capsys: Capture, text: str, cell: str) -> None:
    """White space before the sign does not help, nor does a wide form of it."""
    keep(server)
    server.analyses[COMPLETE].text = text
    ended = await run_here(capsys, "export", "--format", "csv", "--address", server.address)
    _, row = csv.reader(io.StringIO(ended.out, newline=""))
    assert row[-1] == cell


async def test_no_part_of_a_text_is_exported(server: ScriptedServer, capsys: Capture) -> None:
    """With --state other analyses come too, but never their unfinished texts."""
    keep(server)
    states = ("--state", "active", "--state", "failed", "--state", "completed")
    ended = await run_here(capsys, "export", "--format", "jsonl", *states, "--address", server.address)
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [(row["state"], row["text"]) for row in rows] == [("ACTIVE", None), ("COMPLETED", TEXT), ("FAILED", None)]
    assert rows[2]["error"] == "ENGINE_CRASHED"


async def test_a_file_appears_once_it_is_whole(server: ScriptedServer, capsys: Capture, tmp_path: Path) -> None:
    """What was there is replaced by the whole export, and kept when the export fails."""
    keep(server)
    target = tmp_path / "answers.csv"
    target.write_text("old")
    options = ("export", "--format", "csv", "--output", str(target), "--address", server.address)
    ended = await run_here(capsys, *options)
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    whole = target.read_bytes()
    assert whole.startswith(b"name,state,")
    assert whole.endswith('貓"\r\n'.encode())
    await server.stop()
    assert (await run_here(capsys, *options)).status == 3
    assert target.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [target]  # noqa: ASYNC240 - a temporary folder


async def test_a_file_that_cannot_be_written_is_told(server: ScriptedServer, capsys: Capture, tmp_path: Path) -> None:
    """The line names the file; the exit code is 2."""
    keep(server)
    target = tmp_path / "absent" / "answers.csv"
    ended = await run_here(capsys, "export", "--format", "csv", "--output", str(target), "--address", server.address)
    assert (ended.status, ended.err) == (2, f"mondrian: cannot write {target}: No such file or directory\n")


async def test_all_pages_are_exported(server: ScriptedServer, capsys: Capture) -> None:
    """Nothing is left behind on later pages."""
    keep(server)
    for number in range(7):
        twin = pb.Analysis()
        twin.CopyFrom(server.analyses[COMPLETE])
        twin.name = f"analyses/{number}"
        server.analyses[twin.name] = twin
    del server.analyses[FAILED]
    ended = await run_here(capsys, "export", "--format", "jsonl", "--address", server.address)
    assert ended.out.count("\n") == 8
