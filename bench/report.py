"""The report: what was measured, as tables, with the machine and the versions, and how it stands against the bounds."""

import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench.bounds import BOUNDS
from bench.figures import Figures, merge, shown
from bench.plot import draw
from bench.transport import TRANSPORT
from bench.workloads import WORKLOADS

_PACKAGES = (
    "mlx",
    "mlx-vlm",
    "numpy",
    "transformers",
    "grpcio",
    "protobuf",
    "uvicorn",
    "sse-starlette",
    "mondrian-vision",
)

_INTRODUCTION = """\
Written by `make bench`; nothing here gates a test. Every figure is the median over rounds, with the range behind it;
in each round the contenders are asked one after the other, on the same checkpoint, so that what else happens on the
machine falls on all of them alike. All contenders run all the time and stand idle while another is asked. The client is
a process of its own, the same for all; it counts tokens, not frames.

- **bare**: mlx-vlm's `BatchGenerator` in one process, its weights widened to float32 as the engine does, admitting and
  prefilling one picture at a time or eight. The better of the two is the limit in the bounds. *Our linear
  layers* is the same with the engine's linear layers: what the rest of the engine adds or costs. One process holds both
  models.
- **mlx_vlm.server**: as it comes, over SSE. Its vision cache and its settings are its own.
- **Mondrian**: as it comes, over gRPC, over gRPC with `token_interval = 0` (each step is sent), and over SSE.

The checkpoint is the embedded model with its end of turn silenced, so that each answer has its full length everywhere.
*between* is the time between two deliveries of one stream: by default Mondrian collects tokens for 100 ms. *CPU* is
processor time of the server's processes for 1,000 tokens, *peak* their memory, shared pages counted by their share.
"""


@dataclass(slots=True, kw_only=True)
class Results:
    """Figures by workload and contender, one mapping for each round."""

    rounds: int
    tokens: int
    figures: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)

    @classmethod
    def begin(cls, *, rounds: int, tokens: int) -> "Results":
        """Begin without any."""
        return cls(rounds=rounds, tokens=tokens)

    def add(self, workload: str, contender: str, figures: Figures, *, load: float | None = None) -> None:
        """Take in a run; `load` is what the machine did before it."""
        self.figures.setdefault(workload, {}).setdefault(contender, []).append(figures)
        self.loads.append(os.getloadavg()[0] if load is None else load)

    def as_data(self) -> Mapping[str, Any]:
        """Return everything as JSON takes it."""
        return {"figures": self.figures, "loads": self.loads, "tokens": self.tokens}

    def take_in(self, data: Mapping[str, Any]) -> None:
        """Add what `as_data` has given."""
        self.loads += data["loads"]
        self.tokens = data["tokens"]
        for workload, contenders in data["figures"].items():
            for contender, rounds in contenders.items():
                self.figures.setdefault(workload, {}).setdefault(contender, []).extend(rounds)


def write_report(results: Results, output: Path, *, quick: bool) -> bool:
    """Write the tables, and beside them the plot; return whether there is one."""
    plot = output.with_suffix(".svg")
    drawn = draw(results.figures, plot)
    parts = ["# Measurements", _INTRODUCTION]
    if quick:
        parts.append("**A quick run: it shows that the bench works, and measures nothing.**")
    parts += [_machine(results), _bounds(results)]
    if drawn:
        parts.append(f"![Tokens per second and time to first token, side by side]({plot.name})")
    parts += [
        _workload(results, workload.name, workload.title, workload.columns, workload.note) for workload in WORKLOADS
    ]
    parts += [_workload(results, name, title, (), note) for name, (title, note) in TRANSPORT.items()]
    findings = output.with_name("findings.md")
    if findings.exists():
        parts.append(findings.read_text().strip())
    output.write_text("\n\n".join(part.strip() for part in parts if part) + "\n")
    return drawn


def _workload(results: Results, name: str, title: str, columns: Sequence[str], note: str) -> str:
    contenders = results.figures.get(name)
    if not contenders:
        return ""
    merged = {contender: merge(rounds) for contender, rounds in contenders.items()}
    columns = [c for c in columns if any(c in figures for figures in merged.values())] or [
        c for figures in merged.values() for c in figures
    ]
    columns = list(dict.fromkeys(columns))
    rows = [(who, *(shown(figures.get(column, ())) for column in columns)) for who, figures in merged.items()]
    rounds = max(len(values) for values in contenders.values())
    head = f"## {title}\n\n{_table(('', *columns), rows)}\n\nRounds: {rounds}."
    return f"{head} {note}" if note else head


def _bounds(results: Results) -> str:
    rows: list[Sequence[str]] = []
    for bound in BOUNDS:
        values = bound.values(results.figures)
        if values:
            reached = bound.holds(statistics.median(values))
            rows.append((bound.title, bound.text, shown(values), "yes" if reached else "**no**"))
    return "## Bounds\n\n" + _table(("what", "bound", "measured", "reached"), rows) if rows else ""


def _machine(results: Results) -> str:
    rows = [
        ("when", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("machine", f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"),
        ("system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"),
        ("versions", ", ".join(f"{name} {version(name)}" for name in _PACKAGES)),
        ("commit", _commit()),
        ("answers", f"{results.tokens} tokens each, greedy unless the table says otherwise"),
    ]
    if results.loads:
        rows.append(("load before each run", f"{shown(results.loads)}: 1 and less is a quiet machine"))
    return _table(("", ""), rows)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ("git", "rev-parse", "--short", "HEAD")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
