"""Loop: the MLX thread's work. Each turn serves commands, makes a decode step, and lets waiting rows come further."""

import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import TypeAlias

import mlx.core as mx

from mondrian_server.engine.process.batch import Batch
from mondrian_server.engine.process.beat import Operations
from mondrian_server.engine.process.encoding import Encoded, Encoder
from mondrian_server.engine.process.mailbox import Mailbox
from mondrian_server.engine.process.mlx_internals import Emitted
from mondrian_server.engine.process.outbox import Outbox
from mondrian_server.engine.process.preparation import Prepared
from mondrian_server.engine.process.reader import RowsHeld
from mondrian_server.engine.process.rows import Row, open_row
from mondrian_server.engine.process.vocabulary import Vocabulary
from mondrian_server.engine.protocol import (
    IDLE,
    Cancel,
    EngineConfig,
    RowCancelled,
    RowFailed,
    RowGaveWay,
    RowUpdate,
    Step,
    Submit,
)
from mondrian_server.events import FinishReason, Stage

Letter: TypeAlias = Submit | Cancel | Prepared | RowFailed | Encoded
Letters: TypeAlias = Mailbox[Letter]

_LOG = logging.getLogger(__name__)

_MOST_ENTERING = 4
"""Rows that hold a slot and are not prefilled yet: enough for every thread that encodes to have the next picture."""


class Loop:
    """Moves rows from the mailbox through the batch to their closing updates."""

    def __init__(
        self,
        config: EngineConfig,
        batch: Batch,
        encoder: Encoder,
        vocabulary: Vocabulary,
        letters: Letters,
        outbox: Outbox,
        operations: Operations,
        held: RowsHeld,
    ):
        """Hold the collaborators; nothing runs yet."""
        self._config = config
        self._batch = batch
        self._encoder = encoder
        self._vocabulary = vocabulary
        self._letters = letters
        self._outbox = outbox
        self._operations = operations
        self._held = held
        self._open: set[int] = set()
        self._waiting: deque[Prepared] = deque()
        self._entering: deque[Row] = deque()
        self._slots: dict[int, Row] = {}
        self._encoding: set[tuple[str, bytes]] = set()
        self._updates: list[RowUpdate] = []
        self._moved = False

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            self.turn(wait=True)

    def turn(self, *, wait: bool) -> None:
        """Make one turn; with `wait`, block first while there is nothing to do."""
        stuck = not (self._moved or self._batch.decoding)
        with self._operations.running(IDLE):
            letters = self._letters.take(wait=wait and stuck)
        self._serve(letters)
        self._order_features()
        if self._batch.decoding:
            self._decode()
        self._flush()
        self._moved = self._advance()
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
                case Encoded():
                    self._take_features(letter)

    def _take_features(self, encoded: Encoded) -> None:
        self._encoding.discard((encoded.scope, encoded.digest))
        row = self._slots.get(encoded.row)
        if encoded.features is not None:
            self._batch.keep_features(encoded.scope, encoded.digest, encoded.features)
        if row is None or row.uid is not None:
            return
        row.encode_s += encoded.took_s
        if encoded.features is None:
            self._close(_failed(row))
        else:
            row.features[encoded.digest] = encoded.features

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

    # Entry: features and prefill

    def _advance(self) -> bool:
        """Let waiting rows take free slots and be prefilled, within what may stand between two decode steps.

        That is a number of prompt tokens. Returns whether anything has changed.
        """
        most = budget = self._config.prefill_step_tokens
        while budget > 0:
            self._open_rows()
            row = self._next_row()
            if row is None or (budget < most and min(most, row.prompt_tokens - row.prompt_done) > budget):
                break
            budget -= self._prefill(row)
            self._serve(self._letters.take(wait=False))
        self._join()
        return budget < most

    def _order_features(self) -> None:
        """Open rows as far as there are slots, and have their pictures encoded, as many at once as may be."""
        self._open_rows()
        for row in tuple(self._entering):
            for picture in self._batch.pictures_to_encode(row):
                key = (row.scope, picture.digest)
                if len(self._encoding) < self._encoder.most and key not in self._encoding:
                    self._encoding.add(key)
                    self._tell(row, Stage.ENCODING)
                    self._encoder.order(row.number, row.scope, picture)

    def _open_rows(self) -> None:
        """Let waiting rows take slots, those of the scope that holds the fewest first."""
        while self._waiting and len(self._entering) < _MOST_ENTERING:
            held = Counter(row.scope for row in self._slots.values())
            index = min(range(len(self._waiting)), key=lambda i: held[self._waiting[i].submit.cache_scope])
            if len(self._slots) >= self._config.slots and not self._make_way(self._waiting[index], held):
                break
            row = open_row(self._waiting[index], self._vocabulary)
            del self._waiting[index]
            if ended := row.replay(self._vocabulary):
                self._close(ended)
                continue
            self._slots[row.number] = row
            # Before those of scopes that hold more, which have not begun.
            more = (
                i for i, other in enumerate(self._entering) if other.uid is None and held[other.scope] > held[row.scope]
            )
            self._entering.insert(next(more, len(self._entering)), row)

    def _make_way(self, prepared: Prepared, held: Counter[str]) -> bool:
        """Have a row give its slot to one whose scope holds less than its share; return whether one did."""
        scopes = held.keys() | {waiting.submit.cache_scope for waiting in self._waiting}
        share = -(-self._config.slots // len(scopes))
        own = held[prepared.submit.cache_scope]
        most = max(held.values())
        if own >= share or own + 1 >= most:
            return False
        row = min((row for row in self._slots.values() if held[row.scope] == most), key=lambda row: len(row.tokens))
        self._batch.remove(row)
        self._close(RowGaveWay(row=row.number))
        return True

    def _next_row(self) -> Row | None:
        """Return the row to prefill: the one that has begun, else the first that has its pictures' features."""
        begun = (row for row in self._entering if row.uid is not None)
        ready = (row for row in self._entering if not self._batch.pictures_to_encode(row))
        return next(begun, None) or next(ready, None)

    def _prefill(self, row: Row) -> int:
        if row.uid is None:
            self._tell(row, Stage.PREFILL)
        try:
            with self._operations.running("prefill"):
                if row.uid is None:
                    self._batch.enter(row)
                step, finished = self._batch.prefill(row)
        except Exception:
            _LOG.exception("row %d failed in prefill", row.number)
            self._batch.abandon(row)
            self._close(_failed(row))
            return 1
        self._note(row, Stage.PREFILL)
        if finished:
            self._entering.remove(row)
        return step

    def _join(self) -> None:
        try:
            self._batch.join()
        except Exception:
            _LOG.exception("rows could not join the batch")
            self._rescue()

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
            peak, active = mx.get_peak_memory(), mx.get_active_memory()
            slots = len(self._slots)
            self._outbox.send(Step(rows=rows, slots_in_use=slots, peak_memory_bytes=peak, active_memory_bytes=active))


def _failed(row: Row) -> RowFailed:
    return RowFailed(row=row.number, reason="GENERATION_FAILED", message="The model failed on this analysis.")
