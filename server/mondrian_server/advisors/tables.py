"""Tables: what an advisors file may hold. Unknown keys are refused."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MAX_TOKENS = 1 << 24

Tokens = Annotated[int, Field(ge=0, le=_MAX_TOKENS)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SamplingTable(_Table):
    """Sampling defaults. Ranges are those of the message `Sampling`."""

    max_tokens: Annotated[int, Field(ge=1, le=_MAX_TOKENS)] | None = None
    min_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Tokens | None = None
    min_p: Fraction | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] | None = None
    stop: Annotated[tuple[StopString, ...], Field(max_length=8)] = ()

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if self.max_tokens is not None and (self.min_tokens or 0) > self.max_tokens:
            raise ValueError("min_tokens must be at most max_tokens")
        return self


class AdvisorTable(_Table):
    """One advisor."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    display_name: Annotated[str, Field(max_length=256)] = ""
    description: Annotated[str, Field(max_length=1024)] = ""
    instructions: Annotated[str, Field(min_length=1, max_length=32_000)]
    sampling: SamplingTable = SamplingTable()


class AdvisorFile(_Table):
    """A whole file: `[[advisors]]` tables."""

    advisors: list[AdvisorTable]
