"""Stand-ins: an engine, a decoder and advisors that do what a test says, as the collaborators of the domain."""

import asyncio
from dataclasses import replace

from mondrian_server.advisors import Advisor, Advisors
from mondrian_server.engine.interface import EngineListener, EngineState, EngineStatus
from mondrian_server.engine.protocol import (
    Loading,
    ModelDescription,
    RowCancelled,
    RowDone,
    RowStage,
    RowTokens,
    RowUpdate,
    Step,
    Submit,
)
from mondrian_server.errors import InvalidImage
from mondrian_server.events import FinishReason, Stage
from mondrian_server.pictures import Picture
from mondrian_server.sampling import Sampling

MODEL = ModelDescription(
    architecture="smolvlm",
    context_tokens=1024,
    slots=2,
    parameters=3_000_000,
    weights_bytes=12_000_000,
    quantization_bits=4,
    accepts_images=True,
    kv_cache_bits=8,
    kv_cache_group_size=32,
    adapter="sketches",
    thinking=True,
    thinking_budget_tokens=100,
    trusts_remote_code=True,
)

ANSEL = Advisor(
    id="ansel",
    display_name="Ansel",
    description="Looks at light.",
    instructions="Speak of light.",
    sampling=Sampling(temperature=0.5, max_tokens=100, stop=("END",)),
)

ADVISORS = Advisors([ANSEL])


class ScriptedEngine:
    """An `Engine` that writes down what it is told; the test says what becomes of it."""

    def __init__(self, state: EngineState = EngineState.READY) -> None:
        """Begin in `state`."""
        self.status = EngineStatus(state=state, model=MODEL if state is EngineState.READY else None)
        self.submitted: list[Submit] = []
        self.cancelled: list[int] = []
        self.listener: EngineListener | None = None

    @property
    def rows(self) -> list[int]:
        """The rows that were submitted."""
        return [submit.row for submit in self.submitted]

    @property
    def prompts(self) -> list[str]:
        """The prompts that were submitted."""
        return [submit.prompt for submit in self.submitted]

    def submit(self, row: Submit) -> None:
        """Write a row down."""
        self.submitted.append(row)

    def cancel(self, row: int) -> None:
        """Write a cancel down."""
        self.cancelled.append(row)

    def step(self, *updates: RowUpdate, peak_memory_bytes: int = 0) -> None:
        """Tell the listener what a step gave."""
        assert self.listener
        self.listener.engine_step(Step(rows=updates, slots_in_use=0, peak_memory_bytes=peak_memory_bytes))

    def close_cancelled(self) -> None:
        """Answer every cancel."""
        rows, self.cancelled = self.cancelled, []
        self.step(*(RowCancelled(row=row) for row in rows))

    def become(self, state: EngineState, *, failures: int = 0, loading: Loading | None = None) -> None:
        """Change the state, and tell the listener as the supervisor does."""
        model = MODEL if state is EngineState.READY else self.status.model
        self.status = replace(self.status, state=state, failures=failures, loading=loading, model=model)
        if self.listener:
            self.listener.engine_changed(self.status)

    def die(self, *, failures: int = 0, killed_from_outside: bool = False) -> None:
        """Be lost, and tell the listener in the supervisor's order."""
        self.status = replace(self.status, killed_from_outside=killed_from_outside)
        self.become(EngineState.DOWN, failures=failures)
        if self.listener:
            self.listener.engine_lost()


def stage(row: int, stage: Stage, *, done: int = 0, max_output_tokens: int = 20) -> RowStage:
    """Return a row's report of a stage, of a prompt of 10 tokens."""
    return RowStage(
        row=row, stage=stage, prompt_tokens_done=done, prompt_tokens_total=10, max_output_tokens=max_output_tokens
    )


def tokens(row: int, text: str, count: int = 1, *, ids: tuple[int, ...] = ()) -> RowTokens:
    """Return new tokens of a row: those of `ids`, or `count` of ids that do not matter."""
    ids = ids or tuple(range(count))
    return RowTokens(row=row, text=text, count=len(ids), ids=ids, log_probabilities=(-0.5,) * len(ids))


def done(row: int, *, text: str = "", output_tokens: int = 1) -> RowDone:
    """Return the closing update of a row that ended its turn."""
    return RowDone(
        row=row,
        text=text,
        finish_reason=FinishReason.STOP,
        stop_sequence="",
        prompt_tokens=10,
        image_tokens=4,
        cached_tokens=3,
        output_tokens=output_tokens,
        prepare_s=0.1,
        encode_s=0.2,
        prefill_s=0.3,
    )


class GatedDecoder:
    """A `Decoder` that waits until its gate is opened; what begins with `bad` is refused, and `bug` raises."""

    def __init__(self, *, is_open: bool = True) -> None:
        """Begin with the gate open or shut."""
        self.gate = asyncio.Event()
        self.decoding = 0
        if is_open:
            self.gate.set()

    async def normalise(self, data: bytes, *, field: str) -> Picture:
        """Return a picture of 2 x 1 pixels."""
        self.decoding += 1
        try:
            await self.gate.wait()
        finally:
            self.decoding -= 1
        if data.startswith(b"bad"):
            raise InvalidImage("not an image", field=field)
        if data.startswith(b"bug"):
            raise RuntimeError("a defect")
        return Picture(width=2, height=1, pixels=b"rgbrgb", digest=data)
