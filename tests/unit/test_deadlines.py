"""Deadlines: when callers give up, whatever gRPC makes of their timeouts on the way."""

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio

from mondrian_server.rpc.deadlines import SURE_PART, Deadline
from mondrian_server.rpc.reception import Context

TELL = "/test.Deadlines/Tell"

Tell = Callable[[float | None], Awaitable[float | None]]


class Clock:
    """Tells the time that it is set to."""

    def __init__(self) -> None:
        """Begin anywhere."""
        self.now_s = 1_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


class Told:
    """A call, as far as a deadline looks at it."""

    def __init__(self, told_s: float | None) -> None:
        """Have this much time, as grpc tells it."""
        self._told_s = told_s

    def time_remaining(self) -> float | None:
        """Tell the time that is left."""
        return self._told_s


def deadline_of(told_s: float | None, clock: Clock) -> Deadline:
    """Return the deadline of a call of which gRPC tells this."""
    return Deadline.of(cast("Context", Told(told_s)), clock)


def test_the_time_that_is_left_is_counted_from_the_beginning() -> None:
    """The 4 % are taken of the whole time, not of what is left of it."""
    clock = Clock()
    deadline = deadline_of(100.0, clock)
    assert deadline.left_s == pytest.approx(96.0)
    clock.now_s += 50.0
    assert deadline.left_s == pytest.approx(46.0)
    clock.now_s += 50.0
    assert deadline.left_s == 0.0


@pytest.mark.parametrize("told_s", [None, 1e9])
def test_without_a_deadline_a_caller_waits_for_ever(told_s: float | None) -> None:
    """It has no time that could run out; grpc may tell of none by one that is years away."""
    clock = Clock()
    deadline = deadline_of(told_s, clock)
    assert deadline.left_s is None
    clock.now_s += 2e9
    assert not deadline.may_have_passed


@pytest.mark.parametrize(
    ("after_s", "may_have_passed"),
    [(0.0, False), (9.5, False), (9.58, False), (9.595, True), (9.7, True), (20.0, True)],
)
def test_a_caller_that_goes_at_its_deadline_is_not_one_that_cancels(after_s: float, may_have_passed: bool) -> None:
    """From the earliest deadline that it can have, but for what a reset may be faster than a request."""
    clock = Clock()
    deadline = deadline_of(10.0, clock)
    clock.now_s += after_s
    assert deadline.may_have_passed is may_have_passed


@pytest_asyncio.fixture
async def tell() -> AsyncGenerator[Tell]:
    """Return a call that answers with what its server is told of its timeout; all calls on one new connection."""

    async def answer(_: bytes, context: Any) -> bytes:
        return repr(context.time_remaining()).encode()

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer, bytes, bytes)
    service, method = TELL.strip("/").split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.unary_unary(TELL, bytes, bytes)

        async def told(timeout_s: float | None) -> float | None:
            said: bytes = await call(b"", timeout=timeout_s)
            return None if said == b"None" else float(said)

        yield told
    await server.stop(0)


async def sure_part(tell: Tell, timeout_s: float) -> float:
    """Return a timeout as a part of what the server is told of it."""
    told_s = await tell(timeout_s)
    assert told_s is not None
    return timeout_s / told_s


@pytest.mark.parametrize("at_least_s", [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0])
async def test_no_caller_gives_up_before_the_part_that_is_sure(tell: Tell, at_least_s: float) -> None:
    """The rule was read from gRPC's source; whatever timeouts a connection carries, gRPC keeps to it."""
    pick = random.Random(7)
    assert min([await sure_part(tell, at_least_s * 10 ** pick.random()) for _ in range(600)]) >= SURE_PART


@pytest.mark.parametrize("about_s", [10.0, 100.0, 1_000.0, 10_000.0])
async def test_the_part_that_is_sure_is_hardly_smaller_than_it_must_be(tell: Tell, about_s: float) -> None:
    """A timeout that is rounded up, and then is not quite 3 % shorter than one that the connection has carried."""
    await tell(1.035 * about_s)
    assert SURE_PART <= await sure_part(tell, 1.0035 * about_s) < SURE_PART + 0.01


async def test_grpc_tells_of_no_deadline_as_we_read_it(tell: Tell) -> None:
    """A call without a timeout has no time that remains, or years."""
    told_s = await tell(None)
    assert told_s is None or told_s > 1e8
