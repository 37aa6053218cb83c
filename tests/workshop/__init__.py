"""Tests of the workshop: what `make` does."""
