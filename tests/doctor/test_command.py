"""`mondrian doctor` as a program: with a server beside it or without, in a pipe, as JSON and on a terminal."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import mondrian
from mondrian_server.callers.editing import add_key
from mondrian_server.callers.limits import CallerLimits
from tests.checkpoints import write_truncated
from tests.cli.programs import MONDRIAN as COMMAND
from tests.cli.programs import PIPE, environment, start, terminal
from tests.conditions import eventually
from tests.service.calls import settings_for, started
from tests.service.programs import program

PATIENCE_S = 100.0
Findings = Mapping[str, Mapping[str, str]]


async def examine(folder: Path, *arguments: str, slots: str = "4") -> tuple[int, Findings]:
    """Run the doctor on a data directory and ports of its own; return its status and what it found."""
    quiet = ("--data-dir", str(folder / "data"), "--grpc-address", "127.0.0.1:0", "--http-address", "")
    process = await start("doctor", "--json", *quiet, *arguments, MONDRIAN_SLOTS=slots)
    async with asyncio.timeout(PATIENCE_S):
        out, errors = await process.communicate()
    assert process.returncode is not None
    assert "Traceback" not in errors.decode()
    return process.returncode, {one["check"]: one for one in map(json.loads, out.decode().splitlines())}


def results(found: Findings) -> dict[str, str]:
    """Return the results alone."""
    return {check: finding["result"] for check, finding in found.items()}


def files_in(folder: Path) -> list[Path]:
    """Return what stands in a folder."""
    return list(folder.iterdir())


async def test_a_machine_that_is_well(tmp_path: Path) -> None:
    """Everything is ok, the model is loaded and says a token, and nothing is left behind."""
    status, found = await examine(tmp_path)
    assert (status, set(results(found).values())) == (0, {"ok"})
    assert {"versions", "settings", "device", "data directory", "disk", "gRPC port", "server", "model"} <= set(found)
    assert "smolvlm, 3.2 M parameters" in found["model loads"]["text"]
    assert found["first token"]["text"].startswith("after ")
    assert files_in(tmp_path) == []


async def test_a_damaged_model_is_a_problem(tmp_path: Path) -> None:
    """Weights that are cut short look whole from outside; loading them tells, with what to do."""
    model = write_truncated(tmp_path / "model")
    status, found = await examine(tmp_path, "--model", str(model))
    assert (status, found["model"]["result"], found["model loads"]["result"]) == (1, "ok", "problem")
    assert str(model) in found["model loads"]["text"]
    assert "--model" in found["model loads"]["advice"]


async def test_faulty_settings_are_problems(tmp_path: Path) -> None:
    """Each fault is a line, whatever its source; what else depends on settings is not looked at."""
    status, found = await examine(tmp_path, slots="0")
    assert (status, results(found)) == (1, {"versions": "ok", "settings": "problem"})
    assert found["settings"]["text"].startswith("MONDRIAN_SLOTS: must be greater than or equal to 1")


async def test_beside_a_server_that_runs(tmp_path: Path) -> None:
    """Its health and model are told, its folder and ports are its own, and the model is not loaded a second time."""
    settings = settings_for(tmp_path / "data", http_address="127.0.0.1:0")
    async with started(settings) as up:
        assert up.service.gateway is not None
        at = ("--grpc-address", f"127.0.0.1:{up.service.port}")
        status, found = await examine(tmp_path, *at, "--http-address", f"127.0.0.1:{up.service.gateway.port}")
        assert (status, set(results(found).values())) == (0, {"ok"})
        assert found["server"]["text"].startswith("serves models/mondrian-tiny: ready, 0 of 32 slots in use")
        assert "a Mondrian server answers" in found["gRPC port"]["text"]
        assert "a Mondrian server answers" in found["HTTP port"]["text"]
        assert "not tried" in found["model loads"]["text"]
        status, found = await examine(tmp_path, "--no-model")
        assert (status, found["data directory"]["result"]) == (1, "problem")
        assert "does not answer at this address" in found["data directory"]["text"]


async def test_beside_a_server_with_keys(tmp_path: Path) -> None:
    """A server that tells its models to nobody without a key is asked for its health alone."""
    keys_file = tmp_path / "keys.toml"
    key = add_key(keys_file, "phone", CallerLimits())
    async with started(settings_for(tmp_path / "data", keys_file=keys_file)) as up:
        at = ("--grpc-address", f"127.0.0.1:{up.service.port}", "--keys-file", str(keys_file))
        status, found = await examine(tmp_path, *at)
    assert (status, set(results(found).values())) == (0, {"ok"})
    assert found["server"]["text"].endswith("to callers with a key alone; it serves")
    assert found["keys file"]["text"].endswith("1 in force, of 1 callers")
    assert key.text not in str(found)


async def test_beside_a_server_without_an_engine(tmp_path: Path) -> None:
    """A server whose engine is down answers, and the doctor says what is wrong with it."""
    pauses = ("--engine-restart-backoff-s", "600", "--engine-restart-backoff-max-s", "600")
    async with program(tmp_path, *pauses, "--http-address", "") as server:
        (engine,) = (one for one in server.family if "mondrian: engine" in one.cmdline())
        engine.kill()

        async def is_down() -> bool:
            async with mondrian.AsyncClient(f"127.0.0.1:{server.port}") as client:
                return (await client.list_models())[0].state is mondrian.ModelState.UNAVAILABLE

        await eventually(is_down)
        status, found = await examine(tmp_path, "--grpc-address", f"127.0.0.1:{server.port}")
    assert (status, found["server"]["result"]) == (1, "problem")
    assert "its engine is down" in found["server"]["text"]
    assert "log" in found["server"]["advice"]


async def test_lines_in_a_pipe(tmp_path: Path) -> None:
    """Result, what was looked at, what was found and what to do, with tabs between; nothing is loaded if so asked."""
    arguments = ("--no-model", "--data-dir", str(tmp_path / "data"), "--grpc-address", "127.0.0.1:0")
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "doctor", *arguments, "--model", str(tmp_path / "none"), stdout=PIPE, env=environment()
    )
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    lines = [line.split("\t") for line in out.decode().splitlines()]
    assert {len(cells) for cells in lines} == {4}
    by_check = {check: (result, bool(advice)) for result, check, _, advice in lines}
    assert by_check["versions"] == ("ok", False)
    assert by_check["model"] == ("problem", True)
    assert "model loads" not in by_check


async def test_a_table_on_a_terminal(tmp_path: Path) -> None:
    """People see a table within their columns, advice below what it is about."""
    arguments = ["doctor", "--no-model", "--data-dir", str(tmp_path / "data"), "--grpc-address", "127.0.0.1:0"]
    async with terminal([*arguments, "--model", "none"]) as shown:
        async with asyncio.timeout(PATIENCE_S):
            assert shown.process is not None
            assert await shown.process.wait() == 1
        await shown.end()
    lines = shown.screen.lines
    assert lines[0].split() == ["Result", "Check", "Finding"]
    (line,) = (number for number, line in enumerate(lines) if line.startswith("problem"))
    assert lines[line].split(maxsplit=2) == ["problem", "model", "none is no folder and no Hugging Face id"]
    assert lines[line + 1].strip().startswith("→ name another one with --model")
