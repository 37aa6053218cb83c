"""Reception: who may send a request at the same time, and that every place comes back."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
import pytest_asyncio

from mondrian_server.errors import DeadlineExceeded, MondrianError, TooManyAnalyses, TooManyRequests
from mondrian_server.rpc.reception import Context, Reception, ReceptionLimits
from tests.conditions import eventually


class Sender:
    """A call, as far as a reception looks at it: it sends when it is told to. Its name begins with its caller."""

    def __init__(self, hall: "Hall", name: str) -> None:
        """Call, and send nothing."""
        self.caller = name[0]
        self.reads = 0
        self.message: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(hall.reception.receive(cast("Context", self)))

    async def read(self) -> object:
        """Return the message once it is sent."""
        self.reads += 1
        return await self.message

    async def send(self) -> object:
        """Send, and return what was received."""
        self.message.set_result(f"from {self.caller}")
        return await self.task


class Hall:
    """A reception, and the error with which its door refuses, if it does."""

    def __init__(self, **limits: Any) -> None:
        """Begin with nobody there."""
        self.refusal: MondrianError | None = None
        self.senders: list[Sender] = []
        self.reception = Reception(
            ReceptionLimits(**limits), caller=lambda context: cast("Any", context).caller, enter=self.enter
        )

    def enter(self) -> None:
        """Refuse, or not."""
        if self.refusal is not None:
            raise self.refusal

    async def come(self, *names: str) -> list[Sender]:
        """Let several call in this order."""
        senders = [Sender(self, name) for name in names]
        self.senders += senders
        for _ in range(3):
            await asyncio.sleep(0)
        return senders

    @property
    def reading(self) -> str:
        """The callers that are being read, in the order in which they came."""
        return "".join(sender.caller for sender in self.senders if sender.reads and not sender.task.done())


@pytest_asyncio.fixture
async def hall() -> AsyncGenerator[Hall]:
    """Return a reception with four places that several callers share; in the end all places must be free."""
    made = Hall(places=4, shared=True, limit_s=30.0)
    yield made
    for sender in made.senders:
        sender.task.cancel()
        sender.message.cancel()
    await eventually(lambda: made.reception.held == made.reception.waiting == 0)


async def test_one_caller_leaves_places_for_others(hall: Hall) -> None:
    """One alone has half of the places, and another finds one at once, however many of the first one's wait."""
    await hall.come("a", "a", "a", "a", "a")
    assert hall.reading == "aa"
    await hall.come("b", "b")
    assert hall.reading == "aab"
    assert hall.reception.waiting == 4


async def test_a_place_goes_to_the_next_in_turn(hall: Hall) -> None:
    """Those who wait get it as soon as their caller may have one more."""
    senders = await hall.come("a", "a", "b", "a", "b")
    assert hall.reading == "aab"
    assert await senders[0].send() == "from a"
    await eventually(lambda: hall.reading == "aba")
    for sender in senders[1:]:
        await sender.send()
    assert hall.reception.held == 0


async def test_where_everybody_is_one_all_places_are_theirs() -> None:
    """Without several callers nothing is left free."""
    hall = Hall(places=3, shared=False, limit_s=30.0)
    senders = await hall.come("a", "a", "a", "a")
    assert hall.reading == "aaa"
    await asyncio.gather(*(sender.send() for sender in senders))
    assert (hall.reception.held, hall.reception.waiting) == (0, 0)


async def test_whoever_goes_away_while_waiting_leaves_no_gap(hall: Hall) -> None:
    """Also with the place just given."""
    first, second, third, fourth = await hall.come("a", "a", "a", "a")
    third.task.cancel()
    first.message.set_result("done")
    await asyncio.wait((third.task,))
    await eventually(lambda: fourth.reads == 1)
    assert hall.reading == "aa"
    (fifth,) = await hall.come("a")
    second.message.set_result("done")
    await asyncio.wait((second.task,))
    fifth.task.cancel()
    await asyncio.wait((fifth.task,))
    fifth.message.cancel()
    (sixth,) = await hall.come("a")
    await asyncio.gather(fourth.send(), sixth.send())
    assert (hall.reception.held, hall.reception.waiting) == (0, 0)


async def test_a_place_is_held_until_the_read_has_ended(hall: Hall) -> None:
    """A handler that is cancelled leaves gRPC to end the read, whose memory counts until then."""
    first, _, third = await hall.come("a", "a", "a")
    first.task.cancel()
    await asyncio.wait((first.task,))
    assert hall.reception.held == 2 and not third.reads
    first.message.set_exception(RuntimeError("the call has ended"))
    await eventually(lambda: third.reads == 1)


async def test_the_door_is_asked_again_after_a_wait(hall: Hall) -> None:
    """What had room when it came is not read where there is none any more; its place goes on to the next."""
    first, second, third = await hall.come("a", "a", "a")
    hall.refusal = TooManyAnalyses("no room")
    await first.send()
    with pytest.raises(TooManyAnalyses):
        await third.task
    assert third.reads == 0
    await second.send()
    assert hall.reception.held == 0


async def test_waiting_and_receiving_have_a_limit() -> None:
    """Whoever sends nothing is told so; whoever could not send because of others may come again."""
    hall = Hall(places=1, shared=False, limit_s=0.05)
    first, second = await hall.come("a", "b")
    with pytest.raises(DeadlineExceeded, match="had not come whole"):
        await first.task
    with pytest.raises(TooManyRequests) as refused:
        await second.task
    assert refused.value.retry_after_s
    assert hall.reception.held == 1, "gRPC has not let go of the read yet"
    first.message.set_result("too late")
    await eventually(lambda: hall.reception.held == 0)
