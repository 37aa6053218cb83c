"""`make bench`: measures Mondrian beside what a user would pick instead, and writes bench/results.md and a plot."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from bench.contenders import BARE_ONE, NAMES, Contender, started
from bench.figures import Figures, median
from bench.figures import merge as merge_rounds
from bench.material import EMBEDDED, long_prompt, write_endless
from bench.report import Results, write_report
from bench.transport import TRANSPORT, measure_transport
from bench.workloads import WORKLOADS, Setting, Workload

HERE = Path(__file__).parent
_FAILURES = (LookupError, ValueError, RuntimeError, subprocess.SubprocessError)
"""What costs the run one measurement, and not the others."""
_KNOWN = (*(workload.name for workload in WORKLOADS), *TRANSPORT)


def _names(known: Sequence[str], wanted: str) -> tuple[str, ...]:
    """Return the known names that begin with one of the wanted words; an empty wish is for all."""
    words = [word.strip().lower() for word in wanted.split(",") if word.strip()]
    chosen = tuple(name for name in known if not words or any(name.lower().startswith(word) for word in words))
    if not chosen:
        raise click.UsageError(f"none of {', '.join(known)} begins with {wanted!r}")
    return chosen


@click.command(context_settings={"show_default": True})
@click.option("--workloads", default="", help=f"Which, by the beginnings of their names: {', '.join(_KNOWN)}.")
@click.option("--contenders", default="", help=f"Which, by the beginnings of their names: {', '.join(NAMES)}.")
@click.option("--rounds", default=5, help="How often each is measured.")
@click.option("--tokens", default=100, help="How long each answer is.")
@click.option(
    "--quick", is_flag=True, help="One round of everything, small: shows that it works, and measures nothing."
)
@click.option("--output", type=click.Path(path_type=Path), default=HERE / "results.md", help="Where the tables go.")
@click.option(
    "--raw",
    type=click.Path(path_type=Path),
    help="Where the figures go as JSON, after each round; --merge takes them in.",
)
@click.option("--merge", type=click.Path(path_type=Path, exists=True), multiple=True, help="Earlier --raw files.")
def main(
    workloads: str,
    contenders: str,
    rounds: int,
    tokens: int,
    quick: bool,
    output: Path,
    raw: Path | None,
    merge: Sequence[Path],
) -> None:
    """Measure Mondrian beside the bare engine and mlx_vlm.server on this machine."""
    rounds, tokens = (1, 8) if quick else (rounds, tokens)
    wanted, asked = _names(_KNOWN, workloads), _names(NAMES, contenders)
    for file in filter(None, (output, raw)):  # Not an hour later, when there is something to write.
        file.parent.mkdir(parents=True, exist_ok=True)
    results = Results.begin(rounds=rounds, tokens=tokens)
    for earlier in merge:
        results.take_in(json.loads(earlier.read_text()))
    chosen = [workload for workload in WORKLOADS if workload.name in wanted]

    def keep() -> None:
        if raw:
            raw.write_text(json.dumps(results.as_data(), indent=1))

    with tempfile.TemporaryDirectory(prefix="mondrian-bench-") as folder:
        if chosen and rounds:
            _measure(results, chosen, asked, Path(folder), keep, rounds=rounds, tokens=tokens, quick=quick)
        for name in (name for name in TRANSPORT if name in wanted):
            for round_ in range(rounds):
                _say(f"round {round_ + 1}/{rounds}  {name}")
                _one_transport(results, name, Path(folder), quick=quick)
                keep()
    drawn = write_report(results, output, quick=quick)
    _say(f"written: {output}{' and its plot' if drawn else '; no plot (it needs matplotlib, of the group `bench`)'}")


def _measure(
    results: Results,
    workloads: Sequence[Workload],
    contenders: Sequence[str],
    folder: Path,
    keep: Callable[[], None],
    *,
    rounds: int,
    tokens: int,
    quick: bool,
) -> None:
    model = str(write_endless(folder / "mondrian-tiny"))
    needed = [name for name in contenders if any(name in workload.contenders for workload in workloads)]
    _say(f"starting {', '.join(needed)}")
    with started(needed, model, folder) as running:
        setting = Setting(folder=folder, tokens=tokens, long_prompt=_long_prompt(300 if quick else 1500), quick=quick)
        setting.capacity = _capacity(results, tokens)
        for contender in running.values():
            contender.measure(setting.requests(2, 900))
        began = time.monotonic()
        for round_ in range(rounds):
            for workload in workloads:
                _say(f"{time.monotonic() - began:5.0f} s  round {round_ + 1}/{rounds}  {workload.name}")
                for name in needed:
                    if name in workload.contenders:
                        _one(results, workload, running[name], setting, round_)
            keep()


def _capacity(results: Results, tokens: int) -> float:
    """Return the analyses a second that the bare generator came to in an earlier run; 0: there was none."""
    earlier = merge_rounds(results.figures.get("streams-32", {}).get(BARE_ONE, ()))
    return median(earlier["tokens/s"]) / tokens if earlier else 0.0


def _one(results: Results, workload: Workload, contender: Contender, setting: Setting, round_: int) -> None:
    load = os.getloadavg()[0]
    try:
        figures = workload.measure(contender, setting, round_)
    except _FAILURES as error:
        _say(f"    {contender.name:<28} failed: {error!r}")
        return
    results.add(workload.name, contender.name, figures, load=load)
    _say(f"    {contender.name:<28} {_line({name: figures[name] for name in workload.columns if name in figures})}")


def _one_transport(results: Results, name: str, folder: Path, *, quick: bool) -> None:
    try:
        measured = measure_transport(name, folder, quick=quick)
    except _FAILURES as error:
        _say(f"    failed: {error!r}")
        return
    for contender, figures in measured.items():
        results.add(name, contender, figures)
        _say(f"    {contender:<28} {_line(figures)}")


def _long_prompt(tokens: int) -> str:
    from tokenizers import Tokenizer  # noqa: PLC0415 # only where it is needed

    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    return long_prompt(tokens, lambda text: tokenizer.encode(text).ids)


def _line(figures: Figures) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in figures.items())


def _say(text: str) -> None:
    click.echo(text)


if __name__ == "__main__":
    main()
