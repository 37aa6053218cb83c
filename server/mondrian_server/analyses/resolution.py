"""Resolution: fills in what a request leaves open, from its advisor and the operator's defaults."""

import secrets
from dataclasses import dataclass, replace
from typing import Protocol

from mondrian_server.advisors import Advisor
from mondrian_server.analyses.delivery import DeliveryPolicy
from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.errors import InvalidRequest
from mondrian_server.sampling import NEUTRAL, Sampling


class Catalogue(Protocol):
    """Where advisors are looked up."""

    def get(self, name: str) -> Advisor:
        """Return an advisor by id or resource name; raises KeyError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The operator's defaults. `model` is the id of the one model that this server runs, without `models/`."""

    model: str
    max_tokens: int = 512
    token_interval_s: float = 0.1
    progress_interval_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a request comes to once every default is filled in.

    sampling: nothing is unset, except `max_tokens` where the caller left it open: then `default_max_tokens` applies as
        far as the context goes.
    """

    model: str
    advisor: str
    instructions: str
    sampling: Sampling
    default_max_tokens: int
    policy: DeliveryPolicy
    progress_interval_s: float


def resolve(request: AnalysisRequest, defaults: Defaults, advisors: Catalogue) -> Resolved:
    """Fill in every default, a random seed included; raises InvalidRequest for an unknown advisor or model."""
    if request.model and request.model.removeprefix("models/") != defaults.model:
        raise InvalidRequest(
            f"there is no model {request.model[:80]!r} here; the model is 'models/{defaults.model}'",
            field="config.model",
        )
    advisor = _find_advisor(request.advisor, advisors)
    asked = request.sampling.over(advisor.sampling) if advisor else request.sampling
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    min_tokens, max_tokens = asked.min_tokens or 0, asked.max_tokens or defaults.max_tokens
    if min_tokens > max_tokens:
        raise InvalidRequest(
            f"min_tokens is {min_tokens:,}, which is more than max_tokens, {max_tokens:,}",
            field="config.sampling.min_tokens",
        )
    delivery = request.delivery
    return Resolved(
        model=f"models/{defaults.model}",
        advisor=f"advisors/{advisor.id}" if advisor else "",
        instructions=advisor.instructions if advisor else request.instructions,
        sampling=replace(asked.over(NEUTRAL), seed=seed),
        default_max_tokens=defaults.max_tokens,
        policy=DeliveryPolicy(
            interval_s=_given(delivery.token_interval_s, defaults.token_interval_s),
            max_tokens=delivery.max_tokens,
            at_sentence_end=delivery.at_sentence_end,
        ),
        progress_interval_s=_given(delivery.progress_interval_s, defaults.progress_interval_s),
    )


def _find_advisor(name: str, advisors: Catalogue) -> Advisor | None:
    if not name:
        return None
    try:
        return advisors.get(name)
    except KeyError as error:
        raise InvalidRequest(f"there is no advisor {name[:80]!r}", field="config.advisor") from error


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
