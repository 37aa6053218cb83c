"""Tests of the images: the real image process, and hostile files."""
