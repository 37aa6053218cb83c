"""Who holds which active analysis, in memory: for a store of one server, whose leases end with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class _Lease:
    owner: str
    ends_at_s: float


class Leases:
    """The leases and the wish to cancel, by analysis. For use on one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with none; `clock` gives monotonic seconds."""
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._cancelling: set[str] = set()

    def hold(self, name: str, owner: str, lease_s: float) -> None:
        """Give an analysis to an owner."""
        self._leases[name] = _Lease(owner, self._clock() + lease_s)

    def is_held(self, name: str) -> bool:
        """Whether somebody's lease still runs."""
        lease = self._leases.get(name)
        return lease is not None and lease.ends_at_s > self._clock()

    def renew(self, owner: str, lease_s: float) -> Sequence[str]:
        """Hold the owner's analyses on; return those that are to be cancelled."""
        held = [name for name, lease in self._leases.items() if lease.owner == owner]
        for name in held:
            self.hold(name, owner, lease_s)
        return [name for name in held if name in self._cancelling]

    def release(self, name: str, owner: str) -> None:
        """Let go, if it is the owner's."""
        lease = self._leases.get(name)
        if lease is not None and lease.owner == owner:
            del self._leases[name]

    def wish_cancelled(self, name: str) -> None:
        """Keep the wish for whoever holds the analysis."""
        self._cancelling.add(name)

    def drop(self, name: str) -> None:
        """Forget an analysis that has ended."""
        self._leases.pop(name, None)
        self._cancelling.discard(name)
