"""Admission: what one caller may take of the room, and when it is told to come back."""

from collections import Counter

import pytest

from mondrian_server import errors
from mondrian_server.analyses.admission import Admission, AdmissionLimits
from mondrian_server.callers import Allowances, CallerLimits
from mondrian_server.engine.interface import EngineState, EngineStatus

READY = EngineStatus(state=EngineState.READY)
LIMITS = AdmissionLimits(max_waiting=12, max_waiting_bytes=1200)


class House:
    """An admission, and what waits behind it."""

    def __init__(self, limits: CallerLimits | None = None, *, shared: bool = True) -> None:
        """Begin with nothing waiting."""
        self.admission = Admission(LIMITS, Allowances(limits, shared=shared))
        self.waiting: Counter[str] = Counter()

    def ask(self, caller: str, size: int = 0) -> None:
        """Let a request in, or raise what refuses it."""
        self.admission.check(caller, size, waiting=self.waiting, status=READY, log_available=True)
        self.admission.count_request(caller)
        self.admission.hold(caller, size)
        self.waiting[caller] += 1

    def most(self, caller: str, size: int = 0) -> int:
        """Return how many requests of a caller are let in before one is refused."""
        for count in range(100):
            try:
                self.ask(caller, size)
            except errors.MondrianError as error:
                assert error.retry_after_s
                return count
        raise AssertionError("nobody is refused")


def test_a_caller_that_is_alone_for_certain_may_fill_the_room() -> None:
    """On a server where everybody is local there is nobody to leave room for."""
    assert House(shared=False).most("local") == 12
    assert House(shared=False).most("local", size=300) == 4


def test_no_caller_fills_the_room() -> None:
    """Each may have as many places as it leaves free, so whoever comes next always finds some."""
    house = House()
    assert [house.most(caller) for caller in "abcd"] == [6, 3, 2, 1]
    assert house.waiting.total() == 12


def test_no_caller_fills_the_room_for_images() -> None:
    """The same of bytes."""
    house = House()
    assert [house.most(caller, size=100) for caller in "abc"] == [6, 3, 2]


def test_a_single_request_may_be_as_large_as_the_room() -> None:
    """Where nothing waits, nothing that the server takes at all is refused."""
    house = House()
    house.ask("a", size=1200)
    with pytest.raises(errors.TooManyBytes):
        house.ask("b", size=1)
    house.ask("b")


def test_a_callers_own_limits_are_kept() -> None:
    """Waiting analyses and bytes are bounded by what the caller may have, and the message says so."""
    house = House(CallerLimits(max_waiting_analyses=2))
    assert [house.most(caller) for caller in "ab"] == [2, 2]
    with pytest.raises(errors.TooManyAnalyses, match="2 of your analyses wait already, and no more than 2 may"):
        house.ask("a")
    house = House(CallerLimits(max_waiting_bytes=150))
    house.ask("a", size=100)
    with pytest.raises(errors.TooManyBytes, match="no more than 150 bytes"):
        house.ask("a", size=51)
    house.ask("b", size=51)
    house.ask("a", size=50)


def test_requests_within_a_minute_are_counted() -> None:
    """The one too many learns when the first of them is a minute old; others are not held up."""
    house = House(CallerLimits(max_requests_per_minute=3))
    for _ in range(3):
        house.ask("a")
    for _ in range(3):
        with pytest.raises(errors.TooManyRequests, match="3 requests within a minute") as caught:
            house.ask("a")
        assert caught.value.retry_after_s is not None
        assert 50 < caught.value.retry_after_s <= 60
    house.ask("b")


def test_what_is_refused_for_another_reason_is_not_counted() -> None:
    """A full queue costs a caller none of its requests."""
    house = House(CallerLimits(max_requests_per_minute=3, max_waiting_analyses=1))
    house.ask("a")
    for _ in range(5):
        with pytest.raises(errors.TooManyAnalyses):
            house.ask("a")
    house.waiting.clear()
    house.ask("a")


def test_a_request_on_its_way_to_the_log_counts() -> None:
    """It has its place and its bytes until it is kept, and leaves nothing behind."""
    house = House(CallerLimits(max_waiting_analyses=1))
    with house.admission.entering("a", 700):
        assert house.admission.bytes_held == 700
        with pytest.raises(errors.TooManyAnalyses):
            house.ask("a")
        with pytest.raises(errors.TooManyBytes):
            house.ask("b", size=600)
    assert house.admission.bytes_held == 0
    house.ask("a")
