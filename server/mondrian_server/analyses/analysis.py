"""An analysis: one running unit of work, from its acceptance to its terminal event."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from mondrian_server.analyses.delivery import TokenBuffer
from mondrian_server.analyses.progress import Tracker
from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.analyses.resolution import Resolved
from mondrian_server.engine.protocol import RowDone, RowStage, RowTokens
from mondrian_server.errors import DeadlineExceeded, MondrianError
from mondrian_server.events import Accepted, Cancelled, Completed, Failed, FinishReason, Payload, Stage, Terminal
from mondrian_server.log.interface import EventLog
from mondrian_server.pictures import Picture


class Analysis:
    """The state of one analysis, and the only writer of its events.

    It knows time and delivery, but neither queue nor engine: whoever made it is told the end by `on_end`.
    """

    def __init__(
        self,
        name: str,
        request: AnalysisRequest,
        resolved: Resolved,
        *,
        log: EventLog,
        on_end: Callable[["Analysis", Terminal], None],
    ) -> None:
        """Begin an analysis; `accept` writes its first event."""
        self.name = name
        self.request = replace(request, images=())
        self.resolved = resolved
        self.bytes_held = sum(map(len, request.images))
        self.pictures: tuple[Picture, ...] = ()
        self.row: int | None = None
        self.submitted = False
        self.dispatches = 0
        self.preparation: asyncio.Task[None] | None = None
        self._log = log
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self.tracker = Tracker(accepted_at=self._loop.time(), images=len(request.images))
        self._buffer = TokenBuffer(resolved.policy)
        self._texts: list[str] = []
        self._terminal: Terminal | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._delivery: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def caller(self) -> str:
        """Who asked for it."""
        return self.request.caller

    @property
    def ended(self) -> bool:
        """Whether the terminal event is written."""
        return self._terminal is not None

    def accept(self, accepted: Accepted, *, deadline_in_s: float | None) -> None:
        """Write the first events, and start the heartbeat and the deadline."""
        self._log.create(self.name)
        self._append(accepted)
        self.tracker.queue_position = accepted.queue_position
        self._append_progress()
        self._next_heartbeat(self.tracker.accepted_at + self.resolved.progress_interval_s)
        if deadline_in_s is not None:
            self._deadline = self._loop.call_later(deadline_in_s, self.expire)

    def enter(self, stage: Stage) -> None:
        """Go on to a stage, and say so if that is a step forward."""
        if not self.ended and self.tracker.enter(stage, self._loop.time()):
            self._append_progress()

    def move(self, queue_position: int) -> None:
        """Note the position in the queue, and say so if it changed."""
        if not self.ended and queue_position != self.tracker.queue_position:
            self.tracker.queue_position = queue_position
            if self.tracker.stage is Stage.QUEUED:
                self._append_progress()

    def stage_reported(self, update: RowStage) -> None:
        """Take over what the engine says of the row's stage and prompt."""
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
        self.tracker.count_tokens(update.count, now_s)
        self._buffer.add(
            update.text,
            update.count,
            update.ids if self.request.token_ids else (),
            update.log_probabilities if self.request.log_probabilities else (),
        )
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
            self._flush_rest()
            now_s = self._loop.time()
            self._end(Failed(error=error, usage=self.tracker.usage(), timings=self.tracker.timings(now_s)))

    def cancel(self) -> None:
        """End because the caller no longer wants it."""
        if not self.ended:
            self._flush_rest()
            tracker, now_s = self.tracker, self._loop.time()
            self._end(Cancelled(stage=tracker.stage, usage=tracker.usage(), timings=tracker.timings(now_s)))

    def _complete(self, finish_reason: FinishReason, stop_sequence: str = "") -> None:
        if self.ended:
            return
        self.enter(Stage.FINALIZING)
        self._flush_rest()
        self._end(
            Completed(
                text="".join(self._texts),
                finish_reason=finish_reason,
                stop_sequence=stop_sequence,
                usage=self.tracker.usage(),
                timings=self.tracker.timings(self._loop.time()),
            )
        )

    def _end(self, terminal: Terminal) -> None:
        self._terminal = terminal
        for timer in (self._heartbeat, self._delivery, self._deadline):
            if timer is not None:
                timer.cancel()
        self._append(terminal)
        self._on_end(self, terminal)

    def _deliver_if_due(self, now_s: float) -> None:
        due_in_s = self._buffer.due_in_s(now_s)
        if due_in_s is None:
            return
        if due_in_s <= 0:
            self._flush()
        elif self._delivery is None:
            self._delivery = self._loop.call_later(due_in_s, self._flush)

    def _flush(self) -> None:
        """Write what has been collected as one token event."""
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None
        token = self._buffer.take(self._loop.time())
        self._texts.append(token.text)
        self._append(token)

    def _flush_rest(self) -> None:
        """Write the last token event, which may have no text: half of a character, or the match of a stop string."""
        if not self._buffer.is_empty:
            self._flush()

    def _next_heartbeat(self, at: float) -> None:
        self._heartbeat = self._loop.call_at(at, self._beat, at)

    def _beat(self, at: float) -> None:
        """Say where the analysis is, on the clock's own grid so that delays do not add up."""
        self._append_progress()
        interval_s = self.resolved.progress_interval_s
        missed = max(0, int((self._loop.time() - at) // interval_s))
        self._next_heartbeat(at + (missed + 1) * interval_s)

    def _append_progress(self) -> None:
        self._append(self.tracker.snapshot(self._loop.time()))

    def _append(self, payload: Payload) -> None:
        self._log.append(self.name, payload)
