"""Advisors: named voices with instructions and sampling defaults."""
