"""The program of the scripted engine: speaks the engine protocol over its channel, and follows a script.

It is run by its path, `python program.py SCRIPT STARTS`: the script is JSON, and STARTS is a file that grows by a byte
at each start, so that each start can live another life of the script.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

import msgspec

from mondrian_server.child import channel_socket
from mondrian_server.engine.protocol import (
    IDLE,
    Beat,
    Cancel,
    Configure,
    EngineConfig,
    LoadFailed,
    Loading,
    ModelDescription,
    Ready,
    RowCancelled,
    RowDone,
    RowGaveWay,
    RowStage,
    RowTokens,
    RowUpdate,
    Step,
    Submit,
    ToEngine,
)
from mondrian_server.events import FinishReason, Stage
from mondrian_server.framing import BlockingChannel

PROMPT_TOKENS = 10
"""What each prompt is said to have, whatever it is."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that goes wrong.

    what: `exit` ends in order with `status`; `crash` dies of SIGKILL; `silence` stops everything, the beats included;
        `hang` is an operation without end while the beats go on; `garbage` sends bytes that are no frame and goes on
        to beat; `load_failed` says so and ends.
    at: before the first beat, in the middle of loading, when ready, or after so many `tokens` of all rows together.
    after_s: how much later.
    """

    what: Literal["exit", "crash", "silence", "hang", "garbage", "load_failed"]
    at: Literal["start", "load", "ready", "tokens"]
    tokens: int = 0
    after_s: float = 0.0
    status: int = 1
    message: str = "the model cannot be loaded"


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One life of the engine.

    load_s, load_bytes: how long loading takes, told in `load_frames` frames; `downloads`: as a download.
    step_s: the time of one step, which gives each row one token.
    prepare_s: how long a row stays in PREPARING.
    tokens: what a row generates before it ends its turn, unless its own `max_tokens` comes first.
    fault: what goes wrong, if anything.
    deadly_word: a row whose prompt contains it kills the engine when its prompt is read; empty: none does.
    """

    load_s: float = 0.0
    load_bytes: int = 1000
    load_frames: int = 4
    downloads: bool = False
    step_s: float = 0.01
    prepare_s: float = 0.0
    tokens: int = 20
    context_tokens: int = 1000
    fault: Fault | None = None
    deadly_word: str = ""


def command(lives: Sequence[Life], starts_file: Path) -> tuple[str, ...]:
    """Return the command of an engine that lives `lives` one after the other, and the last one again and again."""
    return (sys.executable, __file__, msgspec.json.encode(lives).decode(), str(starts_file))


def starts(starts_file: Path) -> int:
    """Return how often the engine of that file was started."""
    return starts_file.stat().st_size if starts_file.exists() else 0


class _Row:
    """A row: how far it is."""

    def __init__(self, submit: Submit, life: Life) -> None:
        limit = submit.sampling.max_tokens or submit.sampling.default_max_tokens
        self.number = submit.row
        self.details = submit.details
        self.scope = submit.cache_scope
        self.is_deadly = life.deadly_word != "" and life.deadly_word in submit.prompt
        self.tokens = len(submit.prior_ids)
        self.told = False
        self.last = min(limit, life.tokens)
        self.reason = FinishReason.MAX_TOKENS if limit <= life.tokens else FinishReason.STOP
        self.prepare_until: float | None = None

    def stage(self, stage: Stage) -> RowStage:
        done = PROMPT_TOKENS if stage is Stage.GENERATING else 0
        return RowStage(
            row=self.number,
            stage=stage,
            prompt_tokens_done=done,
            prompt_tokens_total=PROMPT_TOKENS,
            max_output_tokens=self.last,
        )

    def next_token(self) -> RowTokens:
        self.tokens += 1
        return RowTokens(
            row=self.number,
            text=f"t{self.tokens} ",
            count=1,
            ids=(self.tokens,),
            log_probabilities=(-0.5,) if self.details else (),
        )

    def done(self) -> RowDone:
        return RowDone(
            row=self.number,
            text="",
            finish_reason=self.reason,
            stop_sequence="",
            prompt_tokens=PROMPT_TOKENS,
            image_tokens=0,
            cached_tokens=0,
            output_tokens=self.tokens,
            prepare_s=0.0,
            encode_s=0.0,
            prefill_s=0.0,
        )


class _Engine:
    """The engine: one thread steps, one beats, one reads."""

    def __init__(
        self, end: socket.socket, channel: BlockingChannel[ToEngine], config: EngineConfig, life: Life
    ) -> None:
        self._end = end
        self._channel = channel
        self._config = config
        self._life = life
        self._sending = threading.Lock()
        self._operation = ("load", time.monotonic())
        self._lock = threading.Lock()
        self._rows: dict[int, _Row] = {}
        self._cancelled: set[int] = set()
        self._tokens = 0

    def run(self) -> NoReturn:
        self._fail_if("start")
        for work in (self._read, self._beat):
            threading.Thread(target=work, daemon=True).start()
        self._load()
        self._send(Ready(model=self._model()))
        ready_at = time.monotonic()
        while True:
            self._operation = ("decode" if self._rows else IDLE, time.monotonic())
            if self._is_due(ready_at):
                self._fail()
            time.sleep(self._life.step_s)
            self._step()

    def _is_due(self, ready_at: float) -> bool:
        fault = self._life.fault
        if fault is None:
            return False
        if fault.at == "tokens":
            return self._tokens >= fault.tokens
        return time.monotonic() >= ready_at + fault.after_s

    def _load(self) -> None:
        life = self._life
        for frame in range(life.load_frames):
            done = life.load_bytes * frame // life.load_frames
            total, downloading = life.load_bytes, life.downloads
            self._send(Loading(message="loading", done_bytes=done, total_bytes=total, downloading=downloading))
            time.sleep(life.load_s / life.load_frames)
            if frame == life.load_frames // 2:
                self._fail_if("load")

    def _step(self) -> None:
        with self._lock:
            cancelled = [row for row in self._cancelled if self._rows.pop(row, None)]
            self._cancelled.clear()
            updates: list[RowUpdate] = [RowCancelled(row=row) for row in cancelled]
            updates += self._share_out()
            for row in list(self._rows.values())[: self._config.slots]:
                updates += self._advance(row)
            held = min(len(self._rows), self._config.slots)
        if updates:
            self._send(Step(rows=tuple(updates), slots_in_use=held, peak_memory_bytes=4096))

    def _share_out(self) -> list[RowUpdate]:
        """Fill the slots as the real engine does: rows of scopes that hold less than others go before."""
        slots = self._config.slots
        at_work, waiting = list(self._rows.values())[:slots], list(self._rows.values())[slots:]
        updates: list[RowUpdate] = []
        while waiting:
            held = Counter(row.scope for row in at_work)
            row = min(waiting, key=lambda row: held[row.scope])
            if held[row.scope] + 1 >= max(held.values()):
                break
            giver = min((r for r in at_work if held[r.scope] == max(held.values())), key=lambda r: r.tokens)
            at_work[at_work.index(giver)] = row
            waiting.remove(row)
            if giver.prepare_until is None:  # It had not begun, so that nothing need be told.
                waiting.insert(0, giver)
            else:
                updates.append(RowGaveWay(row=giver.number))
        self._rows = {row.number: row for row in (*at_work, *waiting)}
        return updates

    def _advance(self, row: _Row) -> list[RowUpdate]:
        if row.prepare_until is None:
            row.prepare_until = time.monotonic() + self._life.prepare_s
            return [row.stage(Stage.PREPARING)]
        if time.monotonic() < row.prepare_until:
            return []
        if row.tokens >= row.last:
            del self._rows[row.number]
            return [row.done()]
        if row.is_deadly:
            self._send(Step(rows=(row.stage(Stage.PREFILL),), slots_in_use=len(self._rows), peak_memory_bytes=4096))
            os.kill(os.getpid(), signal.SIGABRT)
        stages = [] if row.told else [row.stage(Stage.PREFILL), row.stage(Stage.GENERATING)]
        row.told = True
        self._tokens += 1
        return [*stages, row.next_token()]

    def _read(self) -> None:
        while (frame := self._channel.receive()) is not None:
            with self._lock:
                match frame:
                    case Submit():
                        self._rows[frame.row] = _Row(frame, self._life)
                    case Cancel():
                        self._cancelled.add(frame.row)
                    case Configure():
                        pass
        os._exit(0)

    def _beat(self) -> None:
        while True:
            name, since = self._operation
            self._send(Beat(operation=name, operation_s=time.monotonic() - since, rows_held=len(self._rows)))
            time.sleep(self._config.beat_interval_s)

    def _send(self, frame: msgspec.Struct) -> None:
        with self._sending:
            self._channel.send(frame)

    def _fail_if(self, at: str) -> None:
        fault = self._life.fault
        if fault is not None and fault.at == at:
            time.sleep(fault.after_s)
            self._fail()

    def _fail(self) -> None:
        fault = self._life.fault
        assert fault is not None
        match fault.what:
            case "exit":
                os._exit(fault.status)
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "load_failed":
                self._send(LoadFailed(message=fault.message))
                os._exit(1)
            case "silence":
                with self._sending:
                    _wait_for_ever()
            case "hang":
                self._operation = ("decode", time.monotonic())
                _wait_for_ever()
            case "garbage":
                with self._sending:
                    self._end.sendall(b"\x05\x00\x00\x00these are no frames")

    def _model(self) -> ModelDescription:
        return ModelDescription(
            architecture="scripted",
            context_tokens=self._life.context_tokens,
            slots=self._config.slots,
            parameters=1,
            weights_bytes=self._life.load_bytes,
            quantization_bits=0,
            accepts_images=True,
        )


def _wait_for_ever() -> NoReturn:
    while True:
        time.sleep(3600)


def main(script: str, starts_file: str) -> None:
    """Live the life whose turn it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lives = msgspec.json.decode(script, type=list[Life])
    with Path(starts_file).open("ab") as file:
        file.write(b".")
    life = lives[min(starts(Path(starts_file)), len(lives)) - 1]
    end = channel_socket()
    channel: BlockingChannel[ToEngine] = BlockingChannel(end, ToEngine)
    first = channel.receive()
    if isinstance(first, Configure):
        _Engine(end, channel, first.config, life).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
