"""Engine processes under test: real ones over real socket pairs, and requests for them."""

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import psutil

from mondrian_server.child import CHANNEL_VARIABLE
from mondrian_server.engine.protocol import (
    Beat,
    Cancel,
    Configure,
    EngineConfig,
    FromEngine,
    LoadFailed,
    Loading,
    Ready,
    RowCancelled,
    RowDone,
    RowFailed,
    RowGaveWay,
    RowSampling,
    RowStage,
    RowTokens,
    RowUpdate,
    Step,
    Submit,
)
from mondrian_server.events import Stage
from mondrian_server.framing import BlockingChannel
from mondrian_server.pictures import Picture

_PATIENCE_S = 60.0

Closing = RowDone | RowFailed | RowCancelled | RowGaveWay


@dataclass(slots=True, kw_only=True)
class Seen:
    """What the engine told about one row."""

    updates: list[RowUpdate] = field(default_factory=list[RowUpdate])

    @property
    def closing(self) -> Closing | None:
        """The row's closing update, if it has come."""
        last = self.updates[-1] if self.updates else None
        return last if isinstance(last, Closing) else None

    @property
    def done(self) -> RowDone:
        """The closing update of a row that must be complete."""
        assert isinstance(self.closing, RowDone), self.closing
        return self.closing

    @property
    def tokens(self) -> list[RowTokens]:
        """The row's token updates."""
        return [update for update in self.updates if isinstance(update, RowTokens)]

    @property
    def ids(self) -> list[int]:
        """The ids of its tokens; empty unless details were asked for."""
        return [i for update in self.tokens for i in update.ids]

    @property
    def log_probabilities(self) -> list[float]:
        """The log-probabilities of its tokens; empty unless details were asked for."""
        return [value for update in self.tokens for value in update.log_probabilities]

    @property
    def text(self) -> str:
        """Its text so far."""
        tail = self.closing.text if isinstance(self.closing, RowDone) else ""
        return "".join(update.text for update in self.tokens) + tail

    @property
    def stages(self) -> list[Stage]:
        """The stages that it told, in order, repetitions left out."""
        stages = [update.stage for update in self.updates if isinstance(update, RowStage)]
        return [stage for n, stage in enumerate(stages) if n == 0 or stages[n - 1] != stage]


class Engine:
    """An engine process and everything that it has told."""

    def __init__(self, model: Path | str, *, variables: Mapping[str, str] | None = None, **config: Any):
        """Start it, with these variables beside our own, and send its configuration."""
        ours, theirs = socket.socketpair()
        environment = os.environ | dict(variables or {}) | {CHANNEL_VARIABLE: str(theirs.fileno())}
        command = (sys.executable, "-m", "mondrian_server.engine.process")
        self.model = model
        self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment)
        theirs.close()
        self._socket = ours
        self._channel: BlockingChannel[Any] = BlockingChannel(ours, FromEngine)
        ours.settimeout(_PATIENCE_S)
        settings: dict[str, Any] = {"slots": 8, "prefill_step_tokens": 128} | config
        self._channel.send(Configure(config=EngineConfig(model=str(model), **settings)))
        self.process = psutil.Process(self._process.pid)
        self.rows: defaultdict[int, Seen] = defaultdict(Seen)
        self.loading: list[Loading] = []
        self.beats: list[Beat] = []
        self.steps: list[Step] = []
        self.start: Ready | LoadFailed | None = None
        self._last_row = 0

    def __enter__(self) -> Self:
        """Return the engine itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel and see the process end."""
        self.hang_up()
        try:
            self.exit_status()
        finally:
            self._process.kill()
            self._process.wait()

    def hang_up(self) -> None:
        """Close this end of the channel."""
        self._socket.close()

    def exit_status(self) -> int:
        """Wait for the process's end."""
        return self._process.wait(timeout=_PATIENCE_S)

    def ready(self) -> "Engine":
        """Wait until the model is loaded."""
        self.until(lambda: self.start is not None)
        assert isinstance(self.start, Ready), self.start
        return self

    def submit(self, request: Submit) -> int:
        """Submit a request under the next row number and return that."""
        self._last_row += 1
        self._channel.send(msgspec.structs.replace(request, row=self._last_row))
        return self._last_row

    def cancel(self, row: int) -> None:
        """Cancel a row."""
        self._channel.send(Cancel(row=row))

    def until(self, condition: Callable[[], bool]) -> None:
        """Take frames in until the condition holds; a step changes all at once."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "the engine did not come so far in time"
            frame = self._channel.receive()
            assert frame is not None, "the engine ended"
            self._take(frame)

    def _take(self, frame: Any) -> None:
        match frame:
            case Beat():
                self.beats.append(frame)
            case Loading():
                self.loading.append(frame)
            case Step():
                self.steps.append(frame)
                for update in frame.rows:
                    self.rows[update.row].updates.append(update)
            case _:
                self.start = frame

    def closed(self, rows: Iterable[int]) -> list[Seen]:
        """Wait until all these rows are closed and return what was told about them."""
        wanted = list(rows)
        self.until(lambda: all(self.rows[row].closing for row in wanted))
        return [self.rows[row] for row in wanted]

    def run(self, *requests: Submit) -> list[Seen]:
        """Submit requests at once and wait for their ends."""
        return self.closed([self.submit(request) for request in requests])

    def run_alone(self, requests: Sequence[Submit]) -> list[Seen]:
        """Submit requests one after the other, each when the one before has ended."""
        return [self.run(request)[0] for request in requests]


def request(prompt: str = "What is in the picture?", *, pictures: Sequence[Picture] = (), **settings: Any) -> Submit:
    """Return a request: greedy, 16 tokens, with details, but for what `settings` say."""
    sampling: dict[str, Any] = {
        "max_tokens": 16,
        "default_max_tokens": 16,
        "min_tokens": 0,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": 1,
        "stop": (),
    }
    own = {name: settings.pop(name) for name in list(settings) if name in sampling}
    frame: dict[str, Any] = {"instructions": "", "cache_scope": "tests", "details": True} | settings
    return Submit(row=0, prompt=prompt, pictures=tuple(pictures), sampling=RowSampling(**sampling | own), **frame)


def picture(seed: int, *, width: int = 96, height: int = 64) -> Picture:
    """Return a picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8).tobytes()
    digest = hashlib.sha256(width.to_bytes(4, "big") + height.to_bytes(4, "big") + pixels).digest()
    return Picture(width=width, height=height, pixels=pixels, digest=digest)
