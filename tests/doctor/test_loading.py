"""Loading the model: engines that load and answer, and those that fail at each point of it."""

from pathlib import Path

import psutil
import pytest

from mondrian_server.doctor.finding import Finding, Level
from mondrian_server.doctor.model import EngineParts, find_by_loading
from mondrian_server.engine.protocol import EngineConfig
from mondrian_server.engine.supervisor import SupervisionLimits
from tests.scripted_engine import Fault, Life, command

DEADLY = "What do you see?"


async def findings(folder: Path, life: Life) -> dict[str, Finding]:
    """Return what is found of an engine that lives so, and check that it is gone afterwards."""
    parts = EngineParts(
        config=EngineConfig(model="scripted", slots=2, prefill_step_tokens=512),
        limits=SupervisionLimits(beat_timeout_s=1.0, operation_limit_s=1.0),
        command=command([life], folder / "starts"),
    )
    found = {finding.check: finding async for finding in find_by_loading(parts)}
    assert not [one for one in psutil.Process().children() if str(folder) in " ".join(one.cmdline())]
    return found


async def test_an_engine_that_answers_is_well(tmp_path: Path) -> None:
    """How long it loaded and what it is are told, and when its first token came."""
    found = await findings(tmp_path, Life(load_s=0.1))
    assert {check: finding.level for check, finding in found.items()} == {
        "model loads": Level.OK,
        "first token": Level.OK,
    }


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(what="load_failed", at="load", message="scripted: config.json is missing"), "config.json is missing"),
        (Fault(what="crash", at="start"), "the engine ends"),
        (Fault(what="exit", at="load"), "the engine ends"),
        (Fault(what="silence", at="load"), "falls silent"),
        (Fault(what="garbage", at="load"), "the engine ends"),
    ],
    ids=["refusal", "crash", "exit", "silence", "garbage"],
)
async def test_an_engine_that_does_not_load_is_a_problem(tmp_path: Path, fault: Fault, said: str) -> None:
    """Whatever ends it, one finding says so and what to do, and it is not tried again."""
    found = await findings(tmp_path, Life(fault=fault))
    assert list(found) == ["model loads"]
    assert (found["model loads"].level, bool(found["model loads"].advice)) == (Level.PROBLEM, True)
    assert said in found["model loads"].text


async def test_an_engine_that_dies_over_its_first_row_is_a_problem(tmp_path: Path) -> None:
    """It loads, and says nothing."""
    found = await findings(tmp_path, Life(deadly_word=DEADLY))
    assert (found["model loads"].level, found["first token"].level) == (Level.OK, Level.PROBLEM)
    assert found["first token"].advice
