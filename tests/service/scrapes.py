"""Scrapes: the metrics of a service, as a Prometheus reads them."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from tests.service.calls import Running


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one scrape gave: each sample by its name and labels."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """Return a sample; one that there is not is 0, as `increase` has it."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the samples of a name that are not 0, by the value of a label, added up over the others."""
        found: dict[str, float] = {}
        for (sample, labels), value in self.samples.items():
            if sample == name and value:
                key = dict(labels)[label]
                found[key] = found.get(key, 0.0) + value
        return found

    def labels(self) -> set[str]:
        """Return every label value."""
        return {value for _, labels in self.samples for _, value in labels}


def parsed(text: bytes) -> Scrape:
    """Parse Prometheus's text format by the library's own parser."""
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    return Scrape(samples)


def scrape(up: Running) -> Scrape:
    """Return the metrics of a service."""
    return parsed(up.service.metrics())
