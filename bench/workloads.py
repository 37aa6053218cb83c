"""Workloads: what is asked of every contender, and what of it is reported."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.contenders import BARE_EIGHT, BARE_ONE, BARE_SPED_UP, GRPC, GRPC_EACH, PEER, SSE, Contender, Measured
from bench.figures import Figures, gaps, percentile, stream_figures
from bench.material import ADVICE, QUESTIONS, question, write_pictures
from bench.plan import Request, When

ALL = (BARE_ONE, BARE_EIGHT, BARE_SPED_UP, PEER, GRPC, GRPC_EACH, SSE)
_COUNTED = ("tokens/s", "first p50 s", "first p99 s", "between p50 ms", "between p99 ms", "CPU s/1000", "peak MB")


@dataclass(slots=True, kw_only=True)
class Setting:
    """What runs depend on beside the contender.

    tokens: how long each answer is.
    capacity: analyses a second that the bare generator comes to; 0: not known yet.
    """

    folder: Path
    tokens: int
    long_prompt: str
    quick: bool
    capacity: float = 0.0

    def requests(self, count: int, seed: int, **settings: Any) -> list[Request]:
        """Return requests with pictures and questions that are all different."""
        paths = write_pictures(self.folder / "pictures", count, seed)
        options = {"max_tokens": self.tokens} | settings
        return [Request(prompt=question(number), image=path, **options) for number, path in enumerate(paths)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One table of the report.

    measure: runs it on a contender, in a round of that number, and returns its figures.
    """

    name: str
    title: str
    contenders: Sequence[str]
    columns: Sequence[str]
    measure: Callable[[Contender, Setting, int], Figures]
    note: str = ""


def _seed(contender: Contender, kind: int, round_: int) -> int:
    return kind * 100_000 + contender.salt + round_


def _streams(count: int) -> Workload:
    def measure(contender: Contender, setting: Setting, round_: int) -> Figures:
        many = min(count, 4) if setting.quick else count
        figures = stream_figures(contender.measure(setting.requests(many, _seed(contender, count, round_))))
        if contender.name in (BARE_ONE, BARE_EIGHT) and count == 32:
            setting.capacity = max(setting.capacity, figures["tokens/s"] / setting.tokens)
        return figures

    noun = "analysis" if count == 1 else "analyses at once"
    return Workload(
        name=f"streams-{count}", title=f"{count} image {noun}", contenders=ALL, columns=_COUNTED, measure=measure
    )


def _poisson(percent: int) -> Workload:
    def measure(contender: Contender, setting: Setting, round_: int) -> Figures:
        count = 4 if setting.quick else 24
        chance = random.Random(round_ * 100 + percent)  # noqa: S311 # nothing secret
        rate = (setting.capacity or 2.0) * percent / 100
        requests, at_s = list[Request](), 0.0
        for number, one in enumerate(setting.requests(count, _seed(contender, 300 + percent, round_))):
            at_s += chance.expovariate(rate) if number else 0.0
            requests.append(Request(prompt=one.prompt, image=one.image, max_tokens=one.max_tokens, at_s=at_s))
        return stream_figures(contender.measure(requests))

    return Workload(
        name=f"poisson-{percent}",
        title=f"Poisson arrivals at {percent} % of the bare generator's capacity",
        contenders=(BARE_ONE, PEER, GRPC, SSE),
        columns=(*_COUNTED[:5], "queue p50 s", "queue p99 s", *_COUNTED[5:]),
        measure=measure,
        note="Time in queue is what Mondrian itself tells; the others do not tell it.",
    )


def _measure_pause(contender: Contender, setting: Setting, round_: int) -> Figures:
    tokens = 120 if setting.quick else 300
    running = setting.requests(8, _seed(contender, 501, round_), max_tokens=tokens)
    moment = When(requests=tuple(range(8)), tokens=30)
    late = Request(prompt=f"{round_} {setting.long_prompt}", max_tokens=8, when=moment)
    seen = contender.measure([*running, late]).run.seen
    begin, end = seen[8].sent_s, seen[8].arrivals[0][0] + 0.2
    beside = [gap for one in seen[:8] for gap in _gaps_between(one.arrivals, begin, end)]
    before = [gap for one in seen[:8] for gap in _gaps_between(one.arrivals, 0.0, begin)]
    return {
        "longest pause ms": max(beside, default=float("nan")) * 1e3,
        "step before, p50 ms": percentile(before, 50) * 1e3,
        "first of the long s": seen[8].first_s,
        "prompt tokens": seen[8].counts.get("prompt_tokens", float("nan")),
    }


def _gaps_between(arrivals: Sequence[tuple[float, int]], begin: float, end: float) -> list[float]:
    times = [at for at, _ in arrivals]
    return [b - a for a, b in itertools.pairwise(times) if b >= begin and a <= end]


def _measure_panel(contender: Contender, setting: Setting, round_: int) -> Figures:
    (picture,) = write_pictures(setting.folder / "pictures", 1, _seed(contender, 601, round_))
    requests = [
        Request(prompt=f"{advice}\n\n{QUESTIONS[0]}", image=picture, max_tokens=setting.tokens) for advice in ADVICE
    ]
    measured = contender.measure(requests)
    seen = measured.run.seen
    computed = [one.counts.get("prompt_tokens", float("nan")) - one.counts.get("cached_tokens", 0) for one in seen]
    figures = {
        "all first tokens s": max(one.arrivals[0][0] for one in seen) - min(one.sent_s for one in seen),
        "prompt tokens": sum(one.counts.get("prompt_tokens", float("nan")) for one in seen),
        "computed": sum(computed),
        "tokens/s": stream_figures(measured)["tokens/s"],
    }
    if all("encode_s" in one.counts for one in seen):
        figures["pictures encoded"] = sum(one.counts["encode_s"] > 0 for one in seen)
    return figures


def _measure_mixed(contender: Contender, setting: Setting, round_: int) -> Figures:
    count = 8 if setting.quick else 32
    greedy = stream_figures(contender.measure(setting.requests(count, _seed(contender, 701, round_))))
    chance = random.Random(round_)  # noqa: S311 # nothing secret
    mixed = [
        Request(
            prompt=one.prompt,
            image=one.image,
            max_tokens=one.max_tokens,
            sampling={
                "temperature": chance.choice((0.0, 0.4, 0.8, 1.0)),
                "top_p": chance.choice((1.0, 0.95, 0.9)),
                "top_k": chance.choice((0, 20, 40)),
                "min_p": chance.choice((0.0, 0.05)),
                "repetition_penalty": chance.choice((1.0, 1.1)),
                "seed": number,
            },
        )
        for number, one in enumerate(setting.requests(count, _seed(contender, 703, round_)))
    ]
    sampled = stream_figures(contender.measure(mixed))
    return {
        "greedy tokens/s": greedy["tokens/s"],
        "mixed tokens/s": sampled["tokens/s"],
        "mixed/greedy": sampled["tokens/s"] / greedy["tokens/s"],
        "CPU greedy s/1000": greedy["CPU s/1000"],
        "CPU mixed s/1000": sampled["CPU s/1000"],
    }


def _measure_cancel(contender: Contender, setting: Setting, round_: int) -> Figures:
    del setting
    slots = 32
    last = When(requests=(slots,), tokens=3)
    running = [Request(prompt=f"{round_} {question(number)}", max_tokens=2000, cancel=last) for number in range(slots)]
    running[0] = Request(
        prompt=f"{round_} first", max_tokens=2000, cancel=When(requests=tuple(range(1, slots)), tokens=40)
    )
    waits = Request(prompt=f"{round_} who waits", max_tokens=5, when=When(requests=tuple(range(slots)), tokens=5))
    seen = contender.measure([*running, waits]).run.seen
    cancelled, waiting = seen[0].cancelled_s, seen[slots]
    assert cancelled is not None
    entered = [at for stage, at in waiting.stages.items() if stage.endswith(("PREPARING", "PREFILL"))]
    return {
        "slot's next use ms": (min(entered) - cancelled) * 1e3 if entered else float("nan"),
        "first token of the next ms": (waiting.arrivals[0][0] - cancelled) * 1e3,
        "step p50 ms": percentile(gaps(seen[1]), 50) * 1e3,
    }


def _measure_crash(contender: Contender, setting: Setting, round_: int) -> Figures:
    running = setting.requests(8, _seed(contender, 801, round_), max_tokens=2 * setting.tokens)
    engine = _engine_of(contender.process.pid)
    moment = When(requests=tuple(range(8)), tokens=max(5, setting.tokens // 4))
    measured = contender.measure(running, kill=engine, kill_when=moment)
    return _crash_figures(measured)


def _crash_figures(measured: Measured) -> Figures:
    killed, seen = measured.run.killed_s, measured.run.seen
    spans = [
        min((at for at, _ in one.arrivals if at > killed + 0.05), default=float("nan"))
        - max(at for at, _ in one.arrivals if at <= killed + 0.05)
        for one in seen
    ]
    return {
        "without a token, p50 s": percentile(spans, 50),
        "longest s": max(spans),
        "streams completed": sum(not one.error and one.tokens > 0 for one in seen),
        "tokens lost or doubled": sum(abs(one.tokens - sum(n for _, n in one.arrivals)) for one in seen),
    }


def _engine_of(pid: int) -> int:
    for child in psutil.Process(pid).children(recursive=True):
        if "engine" in " ".join(child.cmdline()):
            return child.pid
    raise LookupError("the server has no engine")


WORKLOADS = (
    _streams(1),
    _streams(8),
    _streams(32),
    _streams(64),
    _poisson(50),
    _poisson(80),
    _poisson(95),
    Workload(
        name="pause",
        title="A prompt of 1,500 tokens arriving beside 8 running streams",
        contenders=(BARE_ONE, PEER, GRPC_EACH),
        columns=("longest pause ms", "step before, p50 ms", "first of the long s", "prompt tokens"),
        measure=_measure_pause,
    ),
    Workload(
        name="panel",
        title="One image, five advisors' prompts, at once",
        contenders=(BARE_ONE, PEER, GRPC, SSE),
        columns=("all first tokens s", "prompt tokens", "computed", "pictures encoded", "tokens/s"),
        measure=_measure_panel,
        note="Pictures encoded and prompt tokens computed are the contenders' own counters.",
    ),
    Workload(
        name="mixed",
        title="Mixed sampling settings in one batch of 32",
        contenders=(GRPC,),
        columns=("greedy tokens/s", "mixed tokens/s", "mixed/greedy", "CPU greedy s/1000", "CPU mixed s/1000"),
        measure=_measure_mixed,
        note="mlx_vlm.server gives all rows of a batch the first one's sampler, so there is nothing to compare with.",
    ),
    Workload(
        name="cancel",
        title="Cancel: 32 rows run, one waits, one is cancelled",
        contenders=(GRPC_EACH,),
        columns=("slot's next use ms", "first token of the next ms", "step p50 ms"),
        measure=_measure_cancel,
        note="mlx_vlm.server fills slots by eights, once eight are free; one that is freed has no next use to time.",
    ),
    Workload(
        name="crash",
        title="The engine is killed under 8 streams",
        contenders=(GRPC_EACH,),
        columns=("without a token, p50 s", "longest s", "streams completed", "tokens lost or doubled"),
        measure=_measure_crash,
        note="The other contenders are one process: a crash ends every stream.",
    ),
)
