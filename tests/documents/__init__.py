"""Tests of the documents: their examples run, their links lead somewhere, their tables are complete."""
