"""An analysis: one running unit of work, from its acceptance, or a restart, to its terminal event."""

import asyncio
import time
from collections.abc import Callable, Iterable

from mondrian_server.analyses.delivery import TokenBuffer
from mondrian_server.analyses.observing import UNOBSERVED, Observer
from mondrian_server.analyses.progress import Tracker
from mondrian_server.analyses.spec import Spec
from mondrian_server.engine.protocol import RowDone, RowStage, RowTokens
from mondrian_server.errors import DeadlineExceeded, MondrianError
from mondrian_server.events import (
    Accepted,
    Cancelled,
    Completed,
    Event,
    Failed,
    FinishReason,
    Payload,
    Progress,
    Stage,
    Terminal,
    Token,
)
from mondrian_server.log.interface import EventLog

_CONTINUING = "Continuing where it was interrupted..."
_MAKING_WAY = "Making way for another caller; it goes on in a moment..."


class Analysis:
    """The state of one active analysis, and the only writer of its events.

    It knows time and delivery, but neither queue nor engine: whoever made it is told the end by `on_end`.
    """

    def __init__(
        self,
        name: str,
        spec: Spec,
        *,
        caller: str,
        log: EventLog,
        on_end: Callable[["Analysis", Terminal], None],
        observer: Observer = UNOBSERVED,
    ) -> None:
        """Hold an analysis that the log knows; `accept` or `restore` sets it going."""
        self.name = name
        self.spec = spec
        self.caller = caller
        self.bytes_held = 0
        self.preparation: asyncio.Task[None] | None = None
        self.row: int | None = None
        self.submitted = False
        self.begun = False
        """Whether the engine that has the row now has told anything of it."""
        self.ids: list[int] = []
        """The ids of all tokens in the log."""
        self.crashes = 0
        """How often the engine has died over this analysis since its last token."""
        self.terminal: Terminal | None = None
        self.last_sequence = 0
        self._log = log
        self._on_end = on_end
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self.tracker = Tracker(accepted_at=self._loop.time(), images=spec.image_count)
        details = spec.request.token_ids or spec.request.log_probabilities
        self._buffer = TokenBuffer(spec.resolved.policy, details=details)
        self._texts: list[str] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._suspended = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will be written: the terminal event is, or the server is ending."""
        return self.terminal is not None or self._suspended

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def progress(self) -> Progress:
        """Return where the analysis is now."""
        return self.tracker.snapshot(self._loop.time())

    def accept(self, accepted: Accepted) -> None:
        """Write the first events, and start the heartbeat and the deadline."""
        self._append(accepted)
        self.tracker.queue_position = accepted.queue_position
        self._append_progress()
        self._start_clocks()

    def restore(self, events: Iterable[Event]) -> None:
        """Take over what the log holds from before a restart, say that it goes on, and start the clocks anew."""
        for event in events:
            self.last_sequence = event.sequence
            match event.payload:
                case Accepted():
                    self.tracker.accepted_at = self._moment(event)
                case Progress() as progress:
                    if progress.continuations > self.tracker.continuations:
                        self.crashes = progress.crashes
                    self.tracker.restore(progress)
                case Token() as token:
                    self.crashes = 0 if token.ids else self.crashes
                    self.ids += token.ids
                    self._texts.append(token.text)
                    self.tracker.count_tokens(token.token_count, self._moment(event))
                case _:
                    raise ValueError(f"{self.name} has ended")
        self._continue()
        self._start_clocks()

    def interrupt(self) -> None:
        """Go back to waiting because the engine is gone; what came from it stays."""
        if not self.ended and self.tracker.stage > Stage.QUEUED:
            self.flush_rest()
            self._continue()

    def make_way(self) -> None:
        """Go back to waiting because the slot is another caller's turn; what came stays."""
        if not self.ended:
            self.flush_rest()
            self._continue(_MAKING_WAY)

    def suspend(self) -> None:
        """Write what has come and then nothing more: the next start of the server continues it."""
        if not self.ended:
            self.flush_rest()
            self._suspended = True
            self._stop_clocks()

    def enter(self, stage: Stage) -> None:
        """Go on to a stage, and say so if that is a step forward."""
        tracker, now_s = self.tracker, self._loop.time()
        has_waited = tracker.started_at is None
        if not self.ended and tracker.enter(stage, now_s):
            # What an earlier life has waited is not known, and how long an interruption lasted is no queue's fault.
            if has_waited and tracker.started_at is not None and not tracker.continuations:
                self._observer.started(now_s - tracker.accepted_at)
            self._append_progress()

    def move(self, queue_position: int) -> None:
        """Note the position in the queue, and say so if it changed."""
        if not self.ended and queue_position != self.tracker.queue_position:
            self.tracker.queue_position = queue_position
            if self.tracker.stage is Stage.QUEUED:
                self._append_progress()

    def stage_reported(self, update: RowStage) -> None:
        """Take over what the engine says of the row's stage and prompt."""
        self.begun = True
        tracker = self.tracker
        tracker.prompt_tokens_done = max(tracker.prompt_tokens_done, update.prompt_tokens_done)
        tracker.prompt_tokens_total = max(tracker.prompt_tokens_total, update.prompt_tokens_total)
        tracker.prompt_tokens_cached = max(tracker.prompt_tokens_cached, update.prompt_tokens_cached)
        tracker.image_tokens = max(tracker.image_tokens, update.image_tokens)
        tracker.max_output_tokens = max(tracker.max_output_tokens, update.max_output_tokens)
        self.enter(update.stage)

    def tokens_generated(self, update: RowTokens) -> None:
        """Take over new tokens, and deliver what is due."""
        if self.ended:
            return
        now_s = self._loop.time()
        self._observe_tokens(update.count, now_s)
        self.tracker.count_tokens(update.count, now_s)
        self._buffer.add(update.text, update.count, update.ids, update.log_probabilities)
        self._deliver_if_due(now_s)

    def row_done(self, update: RowDone) -> None:
        """Complete with the engine's closing words."""
        if self.ended:
            return
        tracker = self.tracker
        tracker.prompt_tokens_done = tracker.prompt_tokens_total = update.prompt_tokens
        tracker.image_tokens, tracker.prompt_tokens_cached = update.image_tokens, update.cached_tokens
        tracker.output_tokens = update.output_tokens
        tracker.prepare_s, tracker.encode_s = update.prepare_s, update.encode_s
        tracker.prefill_s = update.prefill_s
        self._buffer.add(update.text, 0, (), ())
        self._complete(update.finish_reason, update.stop_sequence)

    def flush_rest(self) -> None:
        """Write what is left as a token event, which may have no text: half of a character, or a stop match."""
        if not self._buffer.is_empty:
            self._flush()

    def expire(self) -> None:
        """End because the time is over: with what there is, or with an error if that is nothing."""
        if self.tracker.output_tokens:
            self._complete(FinishReason.DEADLINE)
        else:
            stage = self.tracker.stage.name.lower().replace("_", " ")
            self.fail(DeadlineExceeded(f"the time was over before the first token; the stage was {stage}"))

    def fail(self, error: MondrianError) -> None:
        """End with an error; what was generated before is delivered first."""
        if not self.ended:
            self.flush_rest()
            now_s = self._loop.time()
            self._end(Failed(error=error, usage=self.tracker.usage(), timings=self.tracker.timings(now_s)))

    def cancel(self) -> None:
        """End because the caller no longer wants it."""
        if not self.ended:
            self.flush_rest()
            tracker, now_s = self.tracker, self._loop.time()
            self._end(Cancelled(stage=tracker.stage, usage=tracker.usage(), timings=tracker.timings(now_s)))

    def _complete(self, finish_reason: FinishReason, stop_sequence: str = "") -> None:
        if self.ended:
            return
        self.enter(Stage.FINALIZING)
        self.flush_rest()
        self._end(
            Completed(
                text=self.text,
                finish_reason=finish_reason,
                stop_sequence=stop_sequence,
                usage=self.tracker.usage(),
                timings=self.tracker.timings(self._loop.time()),
            )
        )

    def _end(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._stop_clocks()
        self._append(terminal)
        self._on_end(self, terminal)

    def _continue(self, message: str = _CONTINUING) -> None:
        """Begin the stages again after the last token that is in the log, and say so."""
        self._buffer.restart(len(self.ids))
        self.tracker.continue_from_here(output_tokens=len(self.ids))
        self._observer.continued()
        self._append(self.tracker.snapshot(self._loop.time(), message=message, crashes=self.crashes))

    def _observe_tokens(self, count: int, now_s: float) -> None:
        before_s = self.tracker.last_token_at
        if before_s is None:
            self._observer.first_token(now_s - self.tracker.accepted_at, count)
        else:
            self._observer.tokens(now_s - before_s, count)

    def _deliver_if_due(self, now_s: float) -> None:
        due_in_s = self._buffer.due_in_s(now_s)
        if due_in_s is None:
            return
        if due_in_s <= 0:
            self._flush()
        elif "delivery" not in self._timers:
            self._timers["delivery"] = self._loop.call_later(due_in_s, self._flush)

    def _flush(self) -> None:
        """Write what has been collected as one token event."""
        timer = self._timers.pop("delivery", None)
        if timer is not None:
            timer.cancel()
        token = self._buffer.take(self._loop.time())
        self.ids += token.ids
        self._texts.append(token.text)
        if token.ids:
            self.crashes = 0
        self._append(token)

    def _start_clocks(self) -> None:
        self._next_heartbeat(self._loop.time() + self.spec.resolved.progress_interval_s)
        if self.spec.deadline_time_s is not None:
            left_s = max(0.0, self.spec.deadline_time_s - time.time())
            self._timers["deadline"] = self._loop.call_later(left_s, self.expire)

    def _stop_clocks(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _next_heartbeat(self, at: float) -> None:
        self._timers["heartbeat"] = self._loop.call_at(at, self._beat, at)

    def _beat(self, at: float) -> None:
        """Say where the analysis is, on the clock's own grid so that delays do not add up."""
        self._append_progress()
        interval_s = self.spec.resolved.progress_interval_s
        missed = max(0, int((self._loop.time() - at) // interval_s))
        self._next_heartbeat(at + (missed + 1) * interval_s)

    def _append_progress(self) -> None:
        self._append(self.progress())

    def _append(self, payload: Payload) -> None:
        self.last_sequence = self._log.append(self.name, payload).sequence

    def _moment(self, event: Event) -> float:
        """Return an event's time on the loop's clock."""
        return self._loop.time() - (time.time() - event.create_time.timestamp())
