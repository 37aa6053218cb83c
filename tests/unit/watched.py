"""One analysis over a real log, without queue and engine: what it wrote, and the ends that it told."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from mondrian_server.analyses.analysis import Analysis
from mondrian_server.analyses.request import AnalysisRequest, Delivery
from mondrian_server.analyses.resolution import Defaults, resolve
from mondrian_server.analyses.spec import Spec
from mondrian_server.events import Accepted, Event, Payload, Progress, Stage, Terminal, Token
from tests.unit.office import LOCAL, TestableLog
from tests.unit.stand_ins import ADVISORS, stage, tokens


def spec_of(*, deadline_in_s: float | None = None, details: bool = False, **delivery: float) -> Spec:
    """Return what to do; intervals are long unless given, so that only what is tested happens."""
    policy = replace(Delivery(token_interval_s=60.0, progress_interval_s=60.0), **delivery)
    request = AnalysisRequest(prompt="?", delivery=policy, token_ids=details, log_probabilities=details)
    return Spec(
        request=request,
        resolved=resolve(request, Defaults(model="tiny"), ADVISORS),
        image_count=1,
        deadline_time_s=None if deadline_in_s is None else time.time() + deadline_in_s,
    )


class Watched:
    """An analysis, what it wrote, and the ends that it told."""

    def __init__(self, log: TestableLog, spec: Spec, name: str) -> None:
        """Hold an analysis that the log knows."""
        self.log = log
        self.spec = spec
        self.name = name
        self.ends: list[Terminal] = []
        self.analysis = Analysis(name, spec, caller=LOCAL, log=log, on_end=self._ended)

    def _ended(self, analysis: Analysis, terminal: Terminal) -> None:
        assert analysis.ended
        assert self.events[-1].payload is terminal, "the end is in the log before it is told"
        self.ends.append(terminal)

    @property
    def events(self) -> Sequence[Event]:
        """All events so far."""
        return list(self.log.written[self.name])

    @property
    def payloads(self) -> list[Payload]:
        """What happened so far."""
        return [event.payload for event in self.events]

    @property
    def sequences(self) -> list[int]:
        """The sequences so far."""
        return [event.sequence for event in self.events]

    @property
    def tokens(self) -> list[Token]:
        """The token events so far."""
        return [payload for payload in self.payloads if isinstance(payload, Token)]

    @property
    def progress(self) -> list[Progress]:
        """The progress events so far."""
        return [payload for payload in self.payloads if isinstance(payload, Progress)]

    @property
    def last(self) -> Payload:
        """The newest event."""
        return self.payloads[-1]

    @property
    def timers(self) -> dict[str, asyncio.TimerHandle]:
        """What the event loop has of the analysis to call."""
        return next(value for name, value in vars(self.analysis).items() if name.endswith("timers"))

    def generate(self, *texts: str) -> None:
        """Let the engine report its stages and one token for each text."""
        for name in (Stage.PREPARING, Stage.PREFILL, Stage.GENERATING):
            self.analysis.stage_reported(stage(1, name, done=10))
        for text in texts:
            self.analysis.tokens_generated(tokens(1, text))


async def begin(
    log: TestableLog, *, name: str = "analyses/1", deadline_in_s: float | None = None, **changes: float
) -> Watched:
    """Begin an analysis and accept it."""
    spec = spec_of(deadline_in_s=deadline_in_s, **changes)  # type: ignore[arg-type]  # `details` is a bool
    await log.begin(name, spec)
    watched = Watched(log, spec, name)
    watched.analysis.accept(
        Accepted(model="models/tiny", advisor="", sampling=spec.resolved.sampling, context_tokens=0, queue_position=2)
    )
    return watched
