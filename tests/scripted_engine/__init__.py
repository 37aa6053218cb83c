"""The scripted engine: an engine process without a model, for faults and rates that must be timed."""

from tests.scripted_engine.program import Fault, Life, command, starts

__all__ = ["Fault", "Life", "command", "starts"]
