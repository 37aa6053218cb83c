"""Allowances: what each caller may use, and how often it has asked."""

import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from mondrian_server.callers.key_ring import KeyRing
from mondrian_server.callers.limits import CallerLimits
from mondrian_server.errors import TooManyRequests


class Allowances:
    """The limits of each caller: its own in the key file, else the server's. For use on one event loop."""

    def __init__(
        self, defaults: CallerLimits | None = None, keys: KeyRing | None = None, *, shared: bool = False
    ) -> None:
        """Begin with nobody having asked.

        Args:
            defaults: the limits of a caller that has none of its own.
            keys: who knows callers' own limits.
            shared: whether there may be several callers, who leave one another room.

        """
        self._defaults = defaults or CallerLimits()
        self._keys = keys
        self.shared = shared
        self._requests = MovingWindowRateLimiter(MemoryStorage())

    def of(self, caller: str) -> CallerLimits:
        """Return a caller's limits; None and 0 are none."""
        return self._keys.limits(caller).over(self._defaults) if self._keys else self._defaults

    def most_running(self, caller: str) -> int:
        """Return how many analyses of a caller may be in the engine, 0: any number."""
        return self.of(caller).max_running_analyses or 0

    def check_request(self, caller: str) -> None:
        """Raise TooManyRequests if the caller has asked as often as it may within the last minute."""
        item = self._item(caller)
        if item and not self._requests.test(item, caller):
            raise self._too_many(item, caller)

    def count_request(self, caller: str) -> None:
        """Count a request; raises TooManyRequests, and counts nothing, as `check_request` does."""
        item = self._item(caller)
        if item and not self._requests.hit(item, caller):
            raise self._too_many(item, caller)

    def _item(self, caller: str) -> RateLimitItemPerMinute | None:
        per_minute = self.of(caller).max_requests_per_minute
        return RateLimitItemPerMinute(per_minute) if per_minute else None

    def _too_many(self, item: RateLimitItemPerMinute, caller: str) -> TooManyRequests:
        free_at_s = self._requests.get_window_stats(item, caller).reset_time
        return TooManyRequests(
            f"there are {item.amount} requests within a minute already, and there may be no more",
            retry_after_s=max(0.1, free_at_s - time.time()),
        )
