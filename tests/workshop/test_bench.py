"""`make bench` runs, in its quick mode: it measures, and writes its tables."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_quick_run_measures_both_sides_and_writes_its_tables(tmp_path: Path) -> None:
    """One stream of the bare generator and of Mondrian: every token comes, and the report names both."""
    report, raw = tmp_path / "new" / "results.md", tmp_path / "another" / "raw.json"
    what = ("--quick", "--workloads", "streams-1", "--contenders", "bare,mondrian grpc")
    subprocess.run(
        (sys.executable, "-m", "bench", *what, "--output", str(report), "--raw", str(raw)),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        check=True,
        capture_output=True,
        timeout=110,
    )
    figures = json.loads(raw.read_text())["figures"]["streams-1"]
    assert {"bare, one by one", "bare, in eights", "Mondrian gRPC", "Mondrian gRPC, interval 0"} <= set(figures)
    assert all(rounds[0]["tokens/s"] > 0 and rounds[0]["failed"] == 0 for rounds in figures.values())
    assert all(f"| {name} |" in report.read_text() for name in figures)
    assert "tokens/s of Mondrian gRPC at 1, of the bare engine's" in report.read_text()
