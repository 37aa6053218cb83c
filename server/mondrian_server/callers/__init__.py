"""Callers: who may ask, by which key, and within which limits."""

from mondrian_server.callers.allowances import Allowances
from mondrian_server.callers.key_ring import KeyRing
from mondrian_server.callers.limits import CallerLimits

__all__ = ["Allowances", "CallerLimits", "KeyRing"]
