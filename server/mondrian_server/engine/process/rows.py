"""Rows: the state of one generation inside the engine, from its slot to its closing update."""

from dataclasses import dataclass, field
from typing import Any

from mondrian_server.engine.process.preparation import Prepared
from mondrian_server.engine.process.sampling import RowDraws
from mondrian_server.engine.process.text import Piece, TextAssembler
from mondrian_server.engine.process.vocabulary import Vocabulary
from mondrian_server.engine.protocol import RowDone, RowStage, RowTokens
from mondrian_server.events import FinishReason, Stage


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """A row that holds a slot. Changed by the MLX thread only.

    features: what was encoded for it by digest, until it enters the batch.
    history: the token ids of the prompt that the repetition penalty counts: no media and no control tokens.
    rescued_at: how many tokens it had when it was last saved from a failed step.
    """

    prepared: Prepared
    history: tuple[int, ...]
    draws: RowDraws
    text: TextAssembler
    uid: int | None = None
    features: dict[bytes, Any] = field(default_factory=dict[bytes, Any])
    tokens: list[int] = field(default_factory=list[int])
    cached_tokens: int = 0
    prompt_done: int = 0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    rescued_at: int | None = None

    @property
    def number(self) -> int:
        """The row's number in the protocol."""
        return self.prepared.submit.row

    @property
    def scope(self) -> str:
        """Whose row it is."""
        return self.prepared.submit.cache_scope

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prepared.ids)

    def restart(self) -> None:
        """Make the row continue after its last token as if it had just taken its slot."""
        self.uid = None
        self.prompt_done = 0
        self.draws = RowDraws(
            self.prepared.submit.sampling,
            history=self.history,
            tokens=tuple(self.tokens),
            details=self.prepared.submit.details,
        )

    def stage(self, stage: Stage) -> RowStage:
        """Return the update that tells where the row is."""
        return RowStage(
            row=self.number,
            stage=stage,
            prompt_tokens_done=min(self.prompt_done, self.prompt_tokens),
            prompt_tokens_total=self.prompt_tokens,
            prompt_tokens_cached=self.cached_tokens,
            image_tokens=self.prepared.image_tokens,
            max_output_tokens=self.prepared.max_tokens,
        )

    def done(self, text: str, reason: FinishReason, stop: str = "") -> RowDone:
        """Return the closing update of a complete row."""
        return RowDone(
            row=self.number,
            text=text,
            finish_reason=reason,
            stop_sequence=stop,
            prompt_tokens=self.prompt_tokens,
            image_tokens=self.prepared.image_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=len(self.tokens),
            prepare_s=self.prepared.prepare_s,
            encode_s=self.encode_s,
            prefill_s=self.prefill_s,
        )

    @property
    def is_fresh(self) -> bool:
        """Whether it has generated nothing in this engine."""
        return len(self.tokens) == len(self.prepared.submit.prior_ids)

    def replay(self, vocabulary: Vocabulary) -> RowDone | None:
        """Take the tokens of an earlier life, and go on after them; return the closing update if they were the last."""
        for token in self.prepared.submit.prior_ids:
            stop = self._spell(token, vocabulary).stop
            if stop:
                return self.done("", FinishReason.STOP_SEQUENCE, stop)
        if len(self.tokens) >= self.prepared.max_tokens:
            return self.done(self.text.finish(), FinishReason.MAX_TOKENS)
        if self.tokens:
            self.restart()
        return None

    def take(self, token: int, vocabulary: Vocabulary) -> tuple[RowTokens, str]:
        """Take a token that was generated; return its update and the stop string that it completed, if any."""
        piece = self._spell(token, vocabulary)
        details = self.prepared.submit.details
        update = RowTokens(
            row=self.number,
            text=piece.text,
            count=1,
            ids=(token,),
            log_probabilities=(self.draws.log_probability(),) if details else (),
        )
        return update, piece.stop

    def _spell(self, token: int, vocabulary: Vocabulary) -> Piece:
        spelled = vocabulary.spell(token, first=not self.tokens)
        self.tokens.append(token)
        return self.text.push(spelled, may_stop=len(self.tokens) >= self.prepared.submit.sampling.min_tokens)


def open_row(prepared: Prepared, vocabulary: Vocabulary) -> Row:
    """Return the row of a prepared submission, at the moment it takes its slot."""
    submit = prepared.submit
    history = tuple(i for i in prepared.ids if i not in vocabulary.media and i not in vocabulary.controls)
    return Row(
        prepared=prepared,
        history=history,
        draws=RowDraws(submit.sampling, history=history, details=submit.details),
        text=TextAssembler(submit.sampling.stop),
    )
