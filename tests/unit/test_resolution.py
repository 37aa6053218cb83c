"""Resolution: what a request leaves open is filled in by its advisor, then by the server."""

from dataclasses import fields

import pytest

from mondrian_server.analyses.delivery import DeliveryPolicy
from mondrian_server.analyses.request import AnalysisRequest, Delivery
from mondrian_server.analyses.resolution import Defaults, Resolved, resolve
from mondrian_server.errors import InvalidRequest
from mondrian_server.sampling import Sampling
from tests.unit.stand_ins import ADVISORS

DEFAULTS = Defaults(model="mondrian-tiny", max_tokens=512, token_interval_s=0.1, progress_interval_s=5.0)


def resolved(request: AnalysisRequest) -> Resolved:
    """Return what a request comes to."""
    return resolve(request, DEFAULTS, ADVISORS)


def test_a_bare_request_takes_the_servers_defaults() -> None:
    """Greedy, nothing filtered, the operator's intervals; only max_tokens stays open."""
    r = resolved(AnalysisRequest(prompt="?"))
    unset = {field.name for field in fields(r.sampling) if getattr(r.sampling, field.name) is None}
    assert unset == {"max_tokens"}
    assert r.default_max_tokens == 512
    assert (r.sampling.temperature, r.sampling.top_p, r.sampling.top_k) == (0.0, 1.0, 0)
    assert (r.sampling.min_p, r.sampling.repetition_penalty, r.sampling.min_tokens) == (0.0, 1.0, 0)
    assert r.policy == DeliveryPolicy(interval_s=0.1, max_tokens=0, at_sentence_end=False)
    assert r.progress_interval_s == 5.0
    assert (r.model, r.advisor, r.instructions) == ("models/mondrian-tiny", "", "")


@pytest.mark.parametrize("name", ["ansel", "advisors/ansel"])
def test_an_advisor_fills_what_the_request_leaves_open(name: str) -> None:
    """Instructions and sampling are the advisor's, by id or resource name."""
    r = resolved(AnalysisRequest(prompt="?", advisor=name))
    assert r.advisor == "advisors/ansel"
    assert r.instructions == "Speak of light."
    assert (r.sampling.temperature, r.sampling.max_tokens, r.sampling.stop) == (0.5, 100, ("END",))
    assert r.sampling.top_p == 1.0


def test_the_request_goes_before_the_advisor() -> None:
    """What the caller sets is in force, zero included."""
    sampling = Sampling(temperature=0.0, max_tokens=7, stop=("STOP",))
    r = resolved(AnalysisRequest(prompt="?", advisor="ansel", sampling=sampling))
    assert (r.sampling.temperature, r.sampling.max_tokens, r.sampling.stop) == (0.0, 7, ("STOP",))


def test_the_callers_own_instructions_stand_without_an_advisor() -> None:
    """Without an advisor the request's instructions are used."""
    assert resolved(AnalysisRequest(prompt="?", instructions="Be brief.")).instructions == "Be brief."


def test_a_zero_interval_is_not_unset() -> None:
    """0 means each step, and is not replaced by the default."""
    delivery = Delivery(token_interval_s=0.0, max_tokens=4, at_sentence_end=True, progress_interval_s=0.5)
    r = resolved(AnalysisRequest(prompt="?", delivery=delivery))
    assert r.policy == DeliveryPolicy(interval_s=0.0, max_tokens=4, at_sentence_end=True)
    assert r.progress_interval_s == 0.5


def test_a_given_seed_stays_and_zero_is_a_seed() -> None:
    """A caller's seed is used as it is."""
    assert resolved(AnalysisRequest(prompt="?", sampling=Sampling(seed=0))).sampling.seed == 0
    assert resolved(AnalysisRequest(prompt="?", sampling=Sampling(seed=2**32 - 1))).sampling.seed == 2**32 - 1


def test_without_a_seed_one_is_drawn_for_each_request() -> None:
    """Seeds are 32 bits, and differ from request to request."""
    seeds = {resolved(AnalysisRequest(prompt="?")).sampling.seed for _ in range(20)}
    assert len(seeds) > 15
    assert all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)


def test_what_was_resolved_resolves_to_itself() -> None:
    """The accepted sampling, sent back, is the same sampling: the same text comes again."""
    first = resolved(AnalysisRequest(prompt="?", advisor="ansel"))
    again = resolved(AnalysisRequest(prompt="?", advisor="ansel", sampling=first.sampling))
    assert again.sampling == first.sampling


@pytest.mark.parametrize("model", ["", "mondrian-tiny", "models/mondrian-tiny"])
def test_the_model_may_be_named_or_left_out(model: str) -> None:
    """Id, resource name and nothing all mean the one model."""
    assert resolved(AnalysisRequest(prompt="?", model=model)).model == "models/mondrian-tiny"


@pytest.mark.parametrize("model", ["other", "models/", "models/other", "models/models/mondrian-tiny", "x" * 5000])
def test_an_unknown_model_is_refused_by_its_field(model: str) -> None:
    """Whatever is not the model's name names no model, and a long name is not echoed whole."""
    with pytest.raises(InvalidRequest) as caught:
        resolved(AnalysisRequest(prompt="?", model=model))
    assert caught.value.field == "config.model"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("advisor", ["nobody", "advisors/", "models/ansel", "Ansel", "y" * 5000])
def test_an_unknown_advisor_is_refused_by_its_field(advisor: str) -> None:
    """An advisor that is not there is named in the error, a long name not whole."""
    with pytest.raises(InvalidRequest) as caught:
        resolved(AnalysisRequest(prompt="?", advisor=advisor))
    assert caught.value.field == "config.advisor"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("advisor", "sampling"),
    [
        ("", Sampling(min_tokens=8, max_tokens=7)),
        ("", Sampling(min_tokens=513)),
        ("ansel", Sampling(min_tokens=101)),
    ],
)
def test_more_tokens_at_least_than_at_most_are_refused(advisor: str, sampling: Sampling) -> None:
    """The two are compared after the defaults are filled in."""
    with pytest.raises(InvalidRequest) as caught:
        resolved(AnalysisRequest(prompt="?", advisor=advisor, sampling=sampling))
    assert caught.value.field == "config.sampling.min_tokens"


def test_as_many_tokens_at_least_as_at_most_are_fine() -> None:
    """Equal bounds ask for exactly so many tokens."""
    r = resolved(AnalysisRequest(prompt="?", sampling=Sampling(min_tokens=512)))
    assert r.sampling.min_tokens == 512
