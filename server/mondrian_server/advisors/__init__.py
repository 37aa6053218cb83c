"""Advisors: named voices with instructions and sampling defaults."""

from mondrian_server.advisors.catalogue import Advisor, Advisors

__all__ = ["Advisor", "Advisors"]
