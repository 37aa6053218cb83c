"""Loop: the MLX thread's work. Each turn serves commands, makes a decode step, and lets waiting rows come further."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

import mlx.core as mx

from mondrian_server.engine.process.batch import Batch
from mondrian_server.engine.process.beat import Operations
from mondrian_server.engine.process.mailbox import Mailbox
from mondrian_server.engine.process.mlx_internals import Emitted
from mondrian_server.engine.process.outbox import Outbox
from mondrian_server.engine.process.preparation import PictureInputs, Prepared
from mondrian_server.engine.process.reader import RowsHeld
from mondrian_server.engine.process.rows import Row, open_row
from mondrian_server.engine.process.vocabulary import Vocabulary
from mondrian_server.engine.protocol import IDLE, Cancel, EngineConfig, RowCancelled, RowFailed, RowUpdate, Step, Submit
from mondrian_server.events import FinishReason, Stage

Letter: TypeAlias = Submit | Cancel | Prepared | RowFailed
Letters: TypeAlias = Mailbox[Letter]

_LOG = logging.getLogger(__name__)


class Loop:
    """Moves rows from the mailbox through the batch to their closing updates."""

    def __init__(
        self,
        config: EngineConfig,
        batch: Batch,
        vocabulary: Vocabulary,
        letters: Letters,
        outbox: Outbox,
        operations: Operations,
        held: RowsHeld,
    ):
        """Hold the collaborators; nothing runs yet."""
        self._config = config
        self._batch = batch
        self._vocabulary = vocabulary
        self._letters = letters
        self._outbox = outbox
        self._operations = operations
        self._held = held
        self._open: set[int] = set()
        self._waiting: deque[Prepared] = deque()
        self._entering: deque[Row] = deque()
        self._slots: dict[int, Row] = {}
        self._updates: list[RowUpdate] = []

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            self.turn(wait=True)

    def turn(self, *, wait: bool) -> None:
        """Make one turn; with `wait`, block first while there is nothing to do."""
        idle = not (self._slots or self._waiting)
        with self._operations.running(IDLE):
            letters = self._letters.take(wait=wait and idle)
        self._serve(letters)
        if self._batch.decoding:
            self._decode()
        self._flush()
        self._advance()
        self._flush()

    # Commands

    def _serve(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            match letter:
                case Submit(row=row):
                    self._open.add(row)
                case Cancel(row=row):
                    self._cancel(row)
                case Prepared():
                    if letter.submit.row in self._open:
                        self._waiting.append(letter)
                case RowFailed(row=row):
                    if row in self._open:
                        self._close(letter)

    def _cancel(self, number: int) -> None:
        if number not in self._open:
            return
        self._waiting = deque(p for p in self._waiting if p.submit.row != number)
        if row := self._slots.get(number):
            self._batch.remove(row)
        self._close(RowCancelled(row=number))

    def _close(self, update: RowUpdate) -> None:
        """Send the closing update of a row that holds nothing any more."""
        self._open.discard(update.row)
        self._held.discard(update.row)
        row = self._slots.pop(update.row, None)
        if row is not None and row in self._entering:
            self._entering.remove(row)
        self._updates.append(update)

    # Decode

    def _decode(self) -> None:
        try:
            with self._operations.running("decode"):
                results = self._batch.decode()
        except Exception:
            _LOG.exception("a decode step failed")
            self._rescue()
            return
        for row, emitted in results:
            self._take(row, emitted)

    def _take(self, row: Row, emitted: Emitted) -> None:
        self._note(row, Stage.GENERATING)
        if emitted.token in self._vocabulary.ends:
            self._close(row.done(row.text.finish(), FinishReason.STOP))
            return
        update, stop = row.take(emitted.token, self._vocabulary)
        self._updates.append(update)
        if stop:
            if not emitted.ended:
                self._batch.remove(row)
            self._close(row.done("", FinishReason.STOP_SEQUENCE, stop))
        elif emitted.ended:
            self._close(row.done(row.text.finish(), FinishReason.MAX_TOKENS))

    def _rescue(self) -> None:
        """Rebuild the batch after a failed step and let its rows continue; a row gets one such chance at each token."""
        rows = self._batch.rebuild()
        self._entering = deque([*rows, *(row for row in self._entering if row not in rows)])
        for row in rows:
            if row.rescued_at == len(row.tokens):
                self._close(_failed(row))
            else:
                row.rescued_at = len(row.tokens)
                row.restart()

    # Entry: encode and prefill

    def _advance(self) -> None:
        """Let waiting rows take free slots and come further, within what may stand between two decode steps.

        That is a number of prompt tokens, and one picture; while nothing is decoded, all pictures of one row.
        """
        most = budget = self._config.prefill_step_tokens
        encoded: Row | None = None
        while budget > 0 and (row := self._next_row()) is not None:
            if (picture := self._batch.picture_to_encode(row)) is None:
                if budget < most and min(most, row.prompt_tokens - row.prompt_done) > budget:
                    break
                budget -= self._prefill(row)
            elif encoded is None or (encoded is row and not self._batch.decoding):
                encoded = row
                self._encode(row, picture)
            else:
                break
            self._serve(self._letters.take(wait=False))
        self._join()

    def _next_row(self) -> Row | None:
        """Return the row that is entering, or let the first waiting one take a slot."""
        while not self._entering and self._waiting and len(self._slots) < self._config.slots:
            row = open_row(self._waiting.popleft(), self._vocabulary)
            if ended := row.replay(self._vocabulary):
                self._close(ended)
                continue
            self._slots[row.number] = row
            self._entering.append(row)
        return self._entering[0] if self._entering else None

    def _encode(self, row: Row, picture: PictureInputs) -> None:
        self._tell(row, Stage.ENCODING)
        try:
            with self._operations.running("encode image"):
                self._batch.encode(row, picture)
        except Exception:
            self._fail(row, "encode")

    def _prefill(self, row: Row) -> int:
        if row.uid is None:
            self._tell(row, Stage.PREFILL)
        try:
            with self._operations.running("prefill"):
                if row.uid is None:
                    self._batch.enter(row)
                step, finished = self._batch.prefill(row)
        except Exception:
            self._fail(row, "prefill")
            return 1
        self._note(row, Stage.PREFILL)
        if finished:
            self._entering.popleft()
        return step

    def _join(self) -> None:
        try:
            self._batch.join()
        except Exception:
            _LOG.exception("rows could not join the batch")
            self._rescue()

    def _fail(self, row: Row, operation: str) -> None:
        _LOG.exception("row %d failed in %s", row.number, operation)
        self._batch.abandon(row)
        self._close(_failed(row))

    # Telling

    def _tell(self, row: Row, stage: Stage) -> None:
        """Tell at once that a row enters a stage, before the operation that may take long."""
        self._note(row, stage)
        self._flush()

    def _note(self, row: Row, stage: Stage) -> None:
        if row.is_fresh:  # A rescued row has told its stages before; they never go back.
            self._updates.append(row.stage(stage))

    def _flush(self) -> None:
        if self._updates:
            rows, self._updates = tuple(self._updates), []
            self._outbox.send(Step(rows=rows, slots_in_use=len(self._slots), peak_memory_bytes=mx.get_peak_memory()))


def _failed(row: Row) -> RowFailed:
    return RowFailed(row=row.number, reason="GENERATION_FAILED", message="The model failed on this analysis.")
