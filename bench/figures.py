"""Figures: what runs come to, as named numbers, and their medians and ranges over rounds."""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bench.contenders import Measured
from bench.plan import Seen

Figures = dict[str, float]


def percentile(values: Sequence[float], q: float) -> float:
    """Return a percentile; of nothing, not a number."""
    return float(np.percentile(values, q)) if values else float("nan")


def stream_figures(measured: Measured) -> Figures:
    """Return what every workload of streams reports."""
    seen = [one for one in measured.run.seen if one.arrivals and not one.error]
    tokens = sum(one.tokens for one in seen)
    wall = max(one.arrivals[-1][0] for one in seen) - min(one.sent_s for one in seen)
    first = [one.first_s for one in seen]
    between = [gap for one in seen for gap in gaps(one)]
    queued = [one.counts["queue_s"] for one in seen if "queue_s" in one.counts]
    return {
        "tokens/s": tokens / wall,
        "first p50 s": percentile(first, 50),
        "first p99 s": percentile(first, 99),
        "between p50 ms": percentile(between, 50) * 1e3,
        "between p99 ms": percentile(between, 99) * 1e3,
        "CPU s/1000": measured.cpu_s / tokens * 1e3,
        "peak MB": measured.peak_bytes / 1e6,
        "queue p50 s": percentile(queued, 50),
        "queue p99 s": percentile(queued, 99),
        "failed": len(measured.run.seen) - len(seen),
    }


def gaps(seen: Seen) -> list[float]:
    """Return the times between deliveries of one stream; what comes in one delivery has no time between."""
    times = [at for at, _ in seen.arrivals]
    return [after - before for before, after in itertools.pairwise(times)]


def merge(rounds: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return each figure's values over rounds."""
    values: dict[str, list[float]] = {}
    for one in rounds:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return values


def median(values: Sequence[float]) -> float:
    """Return the median of what is a number."""
    numbers = _numbers(values)
    return statistics.median(numbers) if numbers else float("nan")


def shown(values: Sequence[float]) -> str:
    """Return a median and its range, as text."""
    numbers = _numbers(values)
    if not numbers:
        return "–"
    middle, low, high = statistics.median(numbers), min(numbers), max(numbers)
    if len(numbers) == 1 or _text(low) == _text(high):
        return _text(middle)
    return f"{_text(middle)} ({_text(low)}–{_text(high)})"


def _text(value: float) -> str:
    if value == 0:
        return "0"
    size = abs(value)
    return (
        f"{value:.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
        if size >= 0.1
        else f"{value:.3f}"
    )


def _numbers(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
