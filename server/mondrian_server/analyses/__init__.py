"""Analyses: admission, scheduling, delivery and their ends."""
