"""Tests in a real browser: the page and its client, in headless Chromium."""
