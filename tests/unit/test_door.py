"""The door: who is turned away unread, and who is read although there is no room."""

import pytest

from mondrian_server.errors import MondrianError, TooManyAnalyses
from mondrian_server.rpc.door import Door


class House:
    """A door before a house that is full, or not, by a clock that stands still until it is moved."""

    def __init__(self) -> None:
        """Begin with no room."""
        self.now_s = 100.0
        self.is_full = True
        self.door = Door(self.refusal, self.refuse, read_per_s=10.0, clock=lambda: self.now_s)

    def refusal(self) -> MondrianError | None:
        """Return why there is no room."""
        return TooManyAnalyses("no room", retry_after_s=1.0) if self.is_full else None

    def refuse(self, error: MondrianError) -> None:
        """Refuse."""
        raise error

    def let_in(self, count: int) -> int:
        """Return how many of so many that come at once are read."""
        read = 0
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
