"""Bounds: what must be reached, each as a figure of paired runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.contenders import BARE_EIGHT, BARE_ONE, GRPC, GRPC_EACH, PEER
from bench.figures import Figures

All = Mapping[str, Mapping[str, Sequence[Figures]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One line of the table of bounds. `values` gives one number for each round in which all that it needs was run."""

    title: str
    text: str
    values: Callable[[All], Sequence[float]]
    holds: Callable[[float], bool]


def _rounds(figures: All, workload: str, contender: str, name: str) -> Sequence[float]:
    return [one[name] for one in figures.get(workload, {}).get(contender, ()) if name in one]


def _limit(figures: All, workload: str) -> Sequence[float]:
    one, eight = (_rounds(figures, workload, who, "tokens/s") for who in (BARE_ONE, BARE_EIGHT))
    return [max(pair) for pair in zip(one, eight, strict=False)] or one or eight


def _divided(ours: Sequence[float], theirs: Sequence[float]) -> Sequence[float]:
    return [a / b for a, b in zip(ours, theirs, strict=False)]


def _throughput(count: int, who: str, least: float) -> Bound:
    workload = f"streams-{count}"
    return Bound(
        title=f"tokens/s of {who} at {count}, of the bare engine's",
        text=f"≥ {least:.2f}",
        values=lambda figures: _divided(_rounds(figures, workload, who, "tokens/s"), _limit(figures, workload)),
        holds=lambda value: value >= least,
    )


def _peer(workload: str, title: str, name: str, who: str, most: float = 0.0, least: float = 0.0) -> Bound:
    return Bound(
        title=title,
        text=f"≤ {most:.2f}" if most else f"≥ {least:.2f}",
        values=lambda figures: _divided(_rounds(figures, workload, who, name), _rounds(figures, workload, PEER, name)),
        holds=lambda value: value <= most if most else value >= least,
    )


def _own(workload: str, who: str, name: str, title: str, *, most: float = 0.0, least: float = 0.0) -> Bound:
    return Bound(
        title=title,
        text=f"≤ {most:g}" if most else f"≥ {least:g}",
        values=lambda figures: _rounds(figures, workload, who, name),
        holds=lambda value: value <= most if most else value >= least,
    )


def _first(count: int, percent: int, most: float) -> Bound:
    title = f"time to first token at {count}, p{percent}, of mlx_vlm.server's"
    return _peer(f"streams-{count}", title, f"first p{percent} s", GRPC, most=most)


_COUNTS = (1, 8, 32, 64)

BOUNDS: Sequence[Bound] = (
    *(_throughput(count, GRPC, 0.95) for count in _COUNTS),
    *(_throughput(count, GRPC_EACH, 0.90) for count in _COUNTS),
    *(
        _peer(f"streams-{count}", f"tokens/s at {count}, of mlx_vlm.server's", "tokens/s", GRPC, least=1.0)
        for count in _COUNTS
    ),
    _first(32, 50, 0.80),
    _first(32, 99, 0.55),
    _first(64, 50, 0.55),
    _first(64, 99, 0.65),
    _peer("pause", "pause by a long prompt, of mlx_vlm.server's", "longest pause ms", GRPC_EACH, most=1 / 3),
    _own("panel", GRPC, "pictures encoded", "five advisors: pictures encoded", most=1),
    _peer("panel", "five advisors: all first tokens, of mlx_vlm.server's", "all first tokens s", GRPC, most=0.5),
    _own("mixed", GRPC, "mixed/greedy", "mixed sampling, of greedy tokens/s", least=0.85),
    _own("transport-watchers", GRPC, "events/s", "1,000 watchers of 10 analyses: events/s", least=20_000),
    _own("transport-watchers", GRPC, "kB/watcher", "memory of a watcher, kB", most=50),
    _own("durability", GRPC, "log/no log", "tokens/s with the log, of those without", least=0.97),
)
