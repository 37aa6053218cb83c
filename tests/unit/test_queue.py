"""The queue: first come, first served, and nobody takes more than a share while others wait."""

from collections import Counter
from dataclasses import dataclass

import pytest

from mondrian_server.analyses.queue import FairQueue


@dataclass(frozen=True, eq=False)
class Item:
    """Something that `caller` asked for."""

    caller: str
    number: int

    def __repr__(self) -> str:
        """Return the caller and number, as the tests write them."""
        return f"{self.caller}{self.number}"


def queue_of(names: str) -> FairQueue[Item]:
    """Return a queue of items such as `a1 a2 b1`, in order of arrival."""
    queue: FairQueue[Item] = FairQueue()
    for name in names.split():
        queue.push(Item(name[0], int(name[1:])))
    return queue


def drained(queue: FairQueue[Item], *, slots: int, running: dict[str, int] | None = None) -> str:
    """Take everybody out, each new one counted as running, and return the order."""
    held = Counter(running or {})
    order: list[str] = []
    while len(queue):
        item = queue.peek(held, slots)
        assert item is not None
        queue.remove(item)
        held[item.caller] += 1
        order.append(repr(item))
    return " ".join(order)


def test_one_caller_is_served_in_order_of_arrival() -> None:
    """Without others there is nothing to share."""
    assert drained(queue_of("a1 a2 a3 a4 a5"), slots=2) == "a1 a2 a3 a4 a5"


def test_a_caller_at_its_share_lets_others_pass() -> None:
    """With two callers and four slots, the third of the first caller waits behind the second caller's first two."""
    assert drained(queue_of("a1 a2 a3 a4 b1 b2 b3"), slots=4) == "a1 a2 b1 b2 a3 b3 a4"


def test_what_runs_counts_towards_the_share() -> None:
    """A caller that holds every slot comes after one that holds none."""
    assert drained(queue_of("a1 b1"), slots=4, running={"a": 4}) == "b1 a1"


def test_a_share_is_rounded_up() -> None:
    """Three callers over four slots have two each."""
    assert drained(queue_of("a1 a2 a3 b1 c1"), slots=4) == "a1 a2 b1 c1 a3"


def test_no_slot_stays_empty_for_fairness() -> None:
    """Where everybody who waits is at the share, the first of those whose caller holds least comes next."""
    assert drained(queue_of("a1 a2"), slots=2, running={"a": 2, "b": 0}) == "a1 a2"
    assert drained(queue_of("a1 a2 b1"), slots=2, running={"a": 3, "b": 2}) == "b1 a1 a2"


def test_a_caller_with_as_many_rows_as_it_may_is_passed_over() -> None:
    """Also where a slot stays empty; whoever waits behind it is not held up, and its position comes last."""
    queue: FairQueue[Item] = FairQueue(lambda caller: 2 if caller == "a" else 0)
    items = [Item("a", 1), Item("a", 2), Item("a", 3), Item("b", 1)]
    for item in items:
        queue.push(item)
    assert queue.peek({"a": 2}, 8) is items[3]
    assert [repr(item) for item in queue.order({"a": 1}, 8)] == ["a1", "b1", "a2", "a3"]
    queue.remove(items[3])
    assert queue.peek({"a": 2}, 8) is None
    assert queue.peek({"a": 1}, 8) is items[0]


def test_those_who_wait_are_counted_by_caller() -> None:
    """However they came and went."""
    queue = queue_of("a1 a2 b1")
    assert queue.by_caller == {"a": 2, "b": 1}
    last = list(queue)[2]
    assert queue.remove(last)
    assert not queue.remove(last)
    assert queue.by_caller == {"a": 2}
    queue.push_front(last)
    assert queue.by_caller == {"a": 2, "b": 1}


def test_a_caller_that_only_runs_takes_part_in_the_share() -> None:
    """One who holds slots but has nobody waiting still counts as a caller."""
    queue = queue_of("a1 c1")
    assert drained(queue, slots=4, running={"a": 2, "b": 2}) == "c1 a1"


def test_a_caller_with_nothing_counts_no_more() -> None:
    """A count of zero is no caller: the share of the others grows."""
    assert drained(queue_of("a1 b1"), slots=2, running={"a": 1, "x": 0, "y": 0}) == "b1 a1"


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
@pytest.mark.parametrize("names", ["a1 a2 a3", "a1 b1 a2 c1 b2 a3 c2", "a1 a2 a3 b1 b2 b3 c1"])
def test_the_order_that_positions_tell_is_the_order_of_service(names: str, slots: int) -> None:
    """`order` yields everybody exactly as `peek` would, and takes nobody out."""
    queue = queue_of(names)
    told = " ".join(map(repr, queue.order({"b": 1}, slots)))
    assert len(queue) == len(names.split())
    assert told == drained(queue, slots=slots, running={"b": 1})


def test_one_put_back_at_the_head_comes_first_again() -> None:
    """One that lost its turn comes before all who came later, of its own caller and at the same share."""
    queue = queue_of("a1 a2")
    first = queue.peek({}, 1)
    assert first is not None
    queue.remove(first)
    queue.push_front(first)
    assert drained(queue, slots=1) == "a1 a2"


def test_anybody_can_leave_from_anywhere() -> None:
    """Removing tells whether the item was there, and leaves the others in order."""
    queue = queue_of("a1 a2 a3")
    middle = list(queue)[1]
    assert middle in queue
    assert queue.remove(middle)
    assert not queue.remove(middle)
    assert middle not in queue
    assert [item.number for item in queue] == [1, 3]


def test_an_empty_queue_has_nobody_to_give() -> None:
    """Nobody comes next in an empty queue."""
    assert queue_of("").peek({}, 4) is None


def test_looking_who_comes_next_changes_nothing() -> None:
    """The next one stays in the line until it is taken out, so that it can be left waiting for room."""
    queue = queue_of("a1 a2 b1")
    first = queue.peek({"a": 1}, 2)
    assert repr(first) == "b1"
    assert queue.peek({"a": 1}, 2) is first
    assert [repr(item) for item in queue] == ["a1", "a2", "b1"]


def test_iterating_survives_changes() -> None:
    """A loop over those who wait may take them out."""
    queue = queue_of("a1 b1 a2")
    for item in queue:
        queue.remove(item)
    assert len(queue) == 0
