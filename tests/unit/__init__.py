"""Tests of single parts, without a service."""
