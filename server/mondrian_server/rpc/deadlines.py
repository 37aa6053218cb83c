"""Deadlines: when the caller of a call gives up, as far as a server can know it.

A caller's own deadline may be earlier than what its server is told. gRPC's C core, under the clients for Python, C++,
Ruby, PHP and Objective-C, sends three digits of a timeout, rounded up by at most 1 %, and where that is less than 3 %
shorter than a timeout that the connection has carried, it sends the longer one again, as one byte (its
`timeout_encoding.cc` and `hpack_encoder.cc`). A server cannot tell which timeouts were sent like this, so here all are
taken to have been.
"""

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

from mondrian_server.rpc.reception import Context

SURE_PART = 0.96
"""The part of a timeout that its caller waits for in any case: 0.97 / 1.01, rounded down."""

_NO_DEADLINE_S = 1e8
"""grpc may tell a call without a deadline by a time that is years away."""

_ARRIVAL_S = 0.01
"""A guess: by how much a caller's reset may arrive faster than its request did, or how late the server may begin."""

_deadline: ContextVar["Deadline"] = ContextVar("deadline")


@dataclass(frozen=True, slots=True)
class Deadline:
    """The earliest time at which a caller's deadline can come. `at_s`: by `clock`; infinite: never."""

    at_s: float
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @classmethod
    def of(cls, context: Context, clock: Callable[[], float] = time.monotonic) -> "Deadline":
        """Return the deadline of a call that begins now."""
        # types-grpcio promises a float, but grpc 1.85 returns None for a call without a deadline.
        told_s = cast("float | None", context.time_remaining())
        if told_s is None or told_s > _NO_DEADLINE_S:
            return cls(math.inf, clock)
        return cls(clock() + told_s * SURE_PART, clock)

    @property
    def left_s(self) -> float | None:
        """The seconds for which the caller waits in any case; None: for ever."""
        return None if math.isinf(self.at_s) else max(0.0, self.at_s - self.clock())

    @property
    def may_have_passed(self) -> bool:
        """Whether a caller that has gone may have gone because of it."""
        return self.clock() >= self.at_s - _ARRIVAL_S


def begin(context: Context) -> None:
    """Note the deadline of a call that begins now."""
    _deadline.set(Deadline.of(context))


def deadline() -> Deadline:
    """Return the deadline of the call that is being served."""
    return _deadline.get()
