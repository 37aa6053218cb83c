"""`mondrian advisors` and `mondrian models`: tables for people, tabs and JSON for programs."""

import json

import pytest

from mondrian.v1 import advisor_service_pb2 as advisors_pb
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import model_service_pb2 as models_pb
from tests.cli.programs import run, terminal
from tests.client.scripted_server import ScriptedServer


@pytest.fixture(autouse=True)
def _offering(server: ScriptedServer) -> None:
    server.advisors = [
        advisors_pb.Advisor(name="advisors/albers", display_name="Albers", description="Colour, and its\tneighbours."),
        advisors_pb.Advisor(
            name="advisors/ansel",
            display_name="Ansel",
            description="Light.",
            instructions="Look [b]twice[/b].",
            sampling=pb.Sampling(temperature=0.0, stop=["END"]),
        ),
    ]
    server.models = [
        models_pb.Model(
            name="models/mondrian-tiny",
            state=models_pb.MODEL_STATE_READY,
            architecture="smolvlm",
            context_tokens=4096,
            slots=32,
            slots_in_use=2,
            queue_length=1,
            parameters=3_173_760,
            weights_bytes=12_695_040,
            accepts_images=True,
            quantization_bits=4,
            kv_cache_bits=8,
            active_memory_bytes=14_000_000,
            peak_memory_bytes=31_000_000,
            adapter="sketches",
            thinking=True,
            thinking_budget_tokens=1000,
            trusts_remote_code=True,
        ),
        models_pb.Model(
            name="models/next",
            state=models_pb.MODEL_STATE_LOADING,
            downloading=True,
            loaded_bytes=1_500_000,
            total_bytes=6_000_000,
        ),
    ]


async def test_advisors_in_a_pipe_are_tabbed_lines(server: ScriptedServer) -> None:
    """Id, name and description, one advisor a line; tabs inside are spaces."""
    ended = await run("advisors", "--address", server.address)
    assert ended.out == "albers\tAlbers\tColour, and its neighbours.\nansel\tAnsel\tLight.\n"
    assert (ended.status, ended.err) == (0, "")


async def test_models_in_a_pipe_are_tabbed_lines(server: ScriptedServer) -> None:
    """Plain numbers, in the documented order."""
    ended = await run("models", "--address", server.address)
    assert ended.out == (
        "models/mondrian-tiny\tREADY\tsmolvlm\t4096\t2\t32\t1\t3173760\t12695040\t4\t8\t14000000\t31000000\t0\t0\n"
        "models/next\tLOADING\t\t0\t0\t0\t0\t0\t0\t0\t0\t0\t0\t1500000\t6000000\n"
    )


async def test_advisors_as_json_are_the_wires_messages(server: ScriptedServer) -> None:
    """One advisor a line, in proto3 JSON; what the advisor does not set is absent."""
    ended = await run("advisors", "--json", "--address", server.address)
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {
            "name": "advisors/albers",
            "displayName": "Albers",
            "description": "Colour, and its\tneighbours.",
            "instructions": "",
            "sampling": {"stop": []},
        },
        {
            "name": "advisors/ansel",
            "displayName": "Ansel",
            "description": "Light.",
            "instructions": "Look [b]twice[/b].",
            "sampling": {"temperature": 0.0, "stop": ["END"]},
        },
    ]


async def test_models_as_json_are_the_wires_messages(server: ScriptedServer) -> None:
    """One model a line, in proto3 JSON with zeros."""
    ended = await run("models", "--json", "--address", server.address)
    first, second = (json.loads(line) for line in ended.out.splitlines())
    assert (first["name"], first["state"], first["parameters"]) == (
        "models/mondrian-tiny",
        "MODEL_STATE_READY",
        "3173760",
    )
    assert (second["state"], second["slotsInUse"]) == ("MODEL_STATE_LOADING", 0)


async def test_models_on_a_terminal_are_a_table(server: ScriptedServer) -> None:
    """Headings, names and numbers for people, within 80 columns."""
    async with terminal(["models", "--address", server.address]) as shown:
        assert await shown.end() == 0
    assert [line.split() for line in shown.screen.lines[:3]] == [
        ["Name", "State", "Architecture", "Context", "Busy", "Waiting", "Size"],
        ["mondrian-tiny", "ready", "smolvlm", "4,096", "2/32", "1", "3.2", "M,", "12.7", "MB"],
        ["next", "loading", "0/0", "0"],
    ]
    assert [line.strip() for line in shown.screen.lines[3:6]] == [
        "mondrian-tiny: 14.0 MB of memory, 31.0 MB at most, weights in 4 bits, keys and",
        "values in 8 bits, adapter sketches, thinks for at most 1,000 tokens, may run",
        "code of its own.",
    ]
    assert shown.screen.lines[6].strip() == "next: 1.5 MB of 6.0 MB downloaded."


async def test_advisors_on_a_terminal_are_a_table(server: ScriptedServer) -> None:
    """Headings, and one advisor a row."""
    async with terminal(["advisors", "--address", server.address]) as shown:
        assert await shown.end() == 0
    assert [line.split()[0] for line in shown.screen.lines[:3]] == ["Id", "albers", "ansel"]


@pytest.mark.parametrize("command", ["advisors", "models"])
async def test_no_server_is_told_at_once(server: ScriptedServer, command: str) -> None:
    """The line says where nobody answers; the exit code is 3."""
    await server.stop()
    ended = await run(command, "--address", server.address)
    assert (ended.status, ended.out) == (3, "")
    assert ended.err == f"mondrian: no server answers at {server.address} (start one with `mondrian serve`)\n"
