"""Distributions: each value stands in one bucket, and the buckets add up."""

from prometheus_client import CollectorRegistry, Histogram

from mondrian_server.metrics.distribution import Distribution

BOUNDS = (0.01, 0.1, 1.0)


def test_it_counts_as_the_library_does() -> None:
    """For values below, at, between and above the bounds the buckets are those of prometheus_client."""
    registry = CollectorRegistry()
    histogram = Histogram("it", "A histogram.", buckets=BOUNDS, registry=registry)
    distribution = Distribution(BOUNDS)
    for value in (0.0, 0.01, 0.0100001, 0.05, 0.1, 0.5, 1.0, 1.5, 100.0):
        histogram.observe(value)
        distribution.add(value)
    for end, count in distribution.buckets():
        assert registry.get_sample_value("it_bucket", {"le": end}) == count, end
    assert registry.get_sample_value("it_sum") == distribution.total


def test_a_value_counts_as_often_as_it_is_said() -> None:
    """Several equal values can be counted at once."""
    distribution = Distribution(BOUNDS)
    distribution.add(0.05, 3)
    assert distribution.buckets() == [("0.01", 0.0), ("0.1", 3.0), ("1.0", 3.0), ("+Inf", 3.0)]
    assert distribution.total == 3 * 0.05
