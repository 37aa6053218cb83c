"""Fuzzing: requests that no client would send."""
