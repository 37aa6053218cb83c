"""The door: who is turned away unread, and who is read although there is no room."""

import pytest

from mondrian_server.errors import MondrianError, TooManyAnalyses
from mondrian_server.rpc.door import Door


class House:
    """A door before a house that is full, or not, by a clock that stands still until it is moved."""

    def __init__(self, *, shared: bool = False) -> None:
        """Begin with no room."""
        self.now_s = 100.0
        self.is_full = True
        self.caller = "ann"
        self.door = Door(
            self.refusal,
            self.refuse,
            caller=lambda: self.caller,
            shared=shared,
            read_per_s=10.0,
            clock=lambda: self.now_s,
        )

    def refusal(self) -> MondrianError | None:
        """Return why there is no room."""
        return TooManyAnalyses("no room", retry_after_s=1.0) if self.is_full else None

    def refuse(self, error: MondrianError) -> None:
        """Refuse."""
        raise error

    def let_in(self, count: int, caller: str = "ann") -> int:
        """Return how many of a caller's that come at once are read."""
        self.caller, read = caller, 0
        for _ in range(count):
            try:
                self.door.enter()
            except TooManyAnalyses:
                continue
            read += 1
        return read


def test_with_room_everybody_is_read() -> None:
    """The door counts nobody while there is room."""
    house = House()
    house.is_full = False
    assert house.let_in(1000) == 1000


def test_without_room_few_are_read() -> None:
    """Ten a second are read to see what they are, and the rest are refused with the reason that there is no room."""
    house = House()
    house.let_in(100)
    house.now_s += 0.5
    assert house.let_in(100) == 5
    with pytest.raises(TooManyAnalyses):
        house.door.enter()


def test_a_quiet_time_saves_no_more_than_a_second() -> None:
    """However long nobody came, those who come at once are few."""
    house = House()
    house.let_in(100)
    house.now_s += 3600.0
    assert house.let_in(100) == 11


def test_one_caller_leaves_some_for_others() -> None:
    """Of one alone are read half of what could be; another finds some however many the first one sends."""
    house = House(shared=True)
    house.now_s += 10.0
    assert house.let_in(100, "ann") == 5
    assert house.let_in(100, "bob") == 3
    assert house.let_in(100, "cyd") == 1


def test_what_a_caller_has_sent_counts_for_a_second() -> None:
    """A caller that goes on has its part again and again, and no more than it."""
    house = House(shared=True)
    house.now_s += 10.0
    read = 0
    for _ in range(100):
        read += house.let_in(3)
        house.now_s += 0.1
    assert 45 <= read <= 55


def test_with_room_nobody_is_counted() -> None:
    """What was read while there was room takes nothing from what is read while there is none."""
    house = House(shared=True)
    house.is_full = False
    assert house.let_in(100) == 100
    house.is_full = True
    house.now_s += 10.0
    assert house.let_in(100) == 5
