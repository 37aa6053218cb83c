"""Rows: the state of one generation inside the engine, from its slot to its closing update."""

from dataclasses import dataclass, field

from mondrian_server.engine.process.preparation import Prepared
from mondrian_server.engine.process.sampling import RowDraws
from mondrian_server.engine.process.text import TextAssembler
from mondrian_server.engine.process.vocabulary import Vocabulary
from mondrian_server.engine.protocol import RowDone, RowStage, RowTokens
from mondrian_server.events import FinishReason, Stage


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """A row that holds a slot. Changed by the MLX thread only."""

    prepared: Prepared
    draws: RowDraws
    text: TextAssembler
    uid: int | None = None
    tokens: list[int] = field(default_factory=list[int])
    cached_tokens: int = 0
    prompt_done: int = 0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    rescued_at: int = -1

    @property
    def number(self) -> int:
        """The row's number in the protocol."""
        return self.prepared.submit.row

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prepared.ids)

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

    def take(self, token: int, vocabulary: Vocabulary) -> tuple[RowTokens, str]:
        """Take a token that was generated; return its update and the stop string that it completed, if any."""
        spelled = vocabulary.spell(token, first=not self.tokens)
        self.tokens.append(token)
        submit = self.prepared.submit
        piece = self.text.push(spelled, may_stop=len(self.tokens) >= submit.sampling.min_tokens)
        details = submit.details
        update = RowTokens(
            row=self.number,
            text=piece.text,
            count=1,
            ids=(token,) if details else (),
            log_probabilities=(self.draws.log_probability(),) if details else (),
        )
        return update, piece.stop


def open_row(prepared: Prepared, vocabulary: Vocabulary) -> Row:
    """Return the row of a prepared submission, at the moment it takes its slot."""
    submit = prepared.submit
    history = [i for i in prepared.ids if i not in vocabulary.media and i not in vocabulary.controls]
    draws = RowDraws(submit.sampling, history=history, details=submit.details)
    return Row(prepared=prepared, draws=draws, text=TextAssembler(submit.sampling.stop))
