"""Housekeeping: forgets what is too old or too much, and keeps hold of what is active."""

import asyncio
import time
from dataclasses import dataclass

import structlog

from mondrian_server.analyses.service import LEASE_S, AnalysesService
from mondrian_server.errors import LogUnavailable
from mondrian_server.log.interface import EventLog

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long ended analyses are kept, and how many bytes of their events."""

    age_s: float
    total_bytes: int
    interval_s: float = 60.0


async def keep_house(log: EventLog, analyses: AnalysesService, retention: Retention) -> None:
    """Renew the leases and expire what is due, until cancelled."""
    expires_at = 0.0
    while True:
        try:
            await analyses.hold()
            if time.monotonic() >= expires_at:
                expires_at = time.monotonic() + retention.interval_s
                await _expire(log, retention)
        except LogUnavailable:
            _log.warning("housekeeping waits for the log")
        except Exception:
            _log.exception("housekeeping failed")
        await asyncio.sleep(min(LEASE_S / 3, retention.interval_s))


async def _expire(log: EventLog, retention: Retention) -> None:
    expired = await log.expire(ended_before_s=time.time() - retention.age_s, keep_bytes=retention.total_bytes)
    if expired:
        _log.info("expired", analyses=len(expired))
