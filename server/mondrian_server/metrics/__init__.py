"""Metrics: what the service does and how it stands, in the words of Prometheus."""

from mondrian_server.metrics.exposition import CONTENT_TYPE, Metrics, process_metrics
from mondrian_server.metrics.resources import Resources
from mondrian_server.metrics.state import Limits, Parts
from mondrian_server.metrics.versions import versions

__all__ = ["CONTENT_TYPE", "Limits", "Metrics", "Parts", "Resources", "process_metrics", "versions"]
