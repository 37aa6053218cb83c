"""The exposition: counts what happens, reads how things stand at a scrape, and writes both for Prometheus.

The only module that knows prometheus_client.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mondrian_server.analyses.observing import Observer
from mondrian_server.engine.interface import EngineState
from mondrian_server.errors import MondrianError
from mondrian_server.events import Cancelled, Completed, Failed, Terminal, Timings, Usage
from mondrian_server.images.observing import DecodingObserver, Refusal
from mondrian_server.metrics import catalogue
from mondrian_server.metrics.catalogue import Tally, Timing
from mondrian_server.metrics.distribution import Distribution
from mondrian_server.metrics.state import State
from mondrian_server.rpc.counting import RpcObserver

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""What `Metrics.exposition` returns, for the header of an answer."""


class Metrics(Observer, DecodingObserver, RpcObserver):
    """Everything that is counted of one service. For use on its event loop."""

    def __init__(self, *, build: Mapping[str, str], model: str) -> None:
        """Begin with nothing counted.

        Args:
            build: names and versions of what runs.
            model: the model's resource name.

        """
        disable_created_metrics()  # prometheus_client has no other way to leave out when each series began.
        self._registry = _of_process(build)
        self._model = model
        self._output_tokens = 0
        self._gaps = Distribution(catalogue.INTER_TOKEN.buckets)
        self._registry.register(_Collected(self._token_metrics))
        counter, histogram = self._counter, self._histogram
        self._accepted, self._refused = counter(catalogue.ACCEPTED), counter(catalogue.REFUSED)
        self._completed, self._failed = counter(catalogue.COMPLETED), counter(catalogue.FAILED)
        self._cancelled, self._continued = counter(catalogue.CANCELLED), counter(catalogue.CONTINUED)
        self._prompt_tokens, self._cached_tokens = counter(catalogue.PROMPT_TOKENS), counter(catalogue.CACHED_TOKENS)
        self._image_tokens = counter(catalogue.IMAGE_TOKENS)
        self._images_refused, self._image_restarts = (
            counter(catalogue.IMAGES_REFUSED),
            counter(catalogue.IMAGE_RESTARTS),
        )
        self._rpcs = counter(catalogue.RPCS)
        self._rpcs_open = Gauge(
            catalogue.RPCS_OPEN.name, catalogue.RPCS_OPEN.meaning, catalogue.RPCS_OPEN.labels, registry=self._registry
        )
        self._queue, self._first_token = histogram(catalogue.QUEUE), histogram(catalogue.FIRST_TOKEN)
        self._analysis, self._stages = histogram(catalogue.ANALYSIS), histogram(catalogue.STAGE)
        self._image_seconds, self._rpc_seconds = histogram(catalogue.IMAGE_DECODE), histogram(catalogue.RPC)
        self._lag = histogram(catalogue.LAG)

    def follow(self, read: Callable[[], State]) -> None:
        """Read how the service stands at each scrape from now on."""
        self._registry.register(_Collected(lambda: self._state_metrics(read())))

    def exposition(self) -> bytes:
        """Return everything in Prometheus's text format, of the type CONTENT_TYPE."""
        return generate_latest(self._registry)

    # What happens to analyses.

    def accepted(self) -> None:
        """Count one taken on."""
        self._accepted.inc()

    def refused(self, error: MondrianError) -> None:
        """Count a refusal."""
        self._refused.labels(error.reason).inc()

    def started(self, queue_s: float) -> None:
        """Count a wait for a slot."""
        self._queue.observe(queue_s)

    def first_token(self, after_s: float, count: int) -> None:
        """Count a wait for the first token."""
        self._first_token.observe(after_s)
        self._output_tokens += count

    def tokens(self, gap_s: float, count: int) -> None:
        """Count tokens, and the time between two of them."""
        if count:
            self._output_tokens += count
            self._gaps.add(gap_s / count, count)

    def continued(self) -> None:
        """Count a continuation."""
        self._continued.inc()

    def ended(self, terminal: Terminal) -> None:
        """Count an end with what it used."""
        match terminal:
            case Completed(finish_reason=finish_reason):
                self._completed.labels(finish_reason.name).inc()
            case Failed(error=error):
                self._failed.labels(error.reason).inc()
            case Cancelled(stage=stage):
                self._cancelled.labels(stage.name).inc()
        self._count_usage(terminal.usage)
        self._observe_timings(type(terminal).__name__.lower(), terminal.timings)

    # What happens to images.

    def image_decoded(self, took_s: float) -> None:
        """Count an image."""
        self._image_seconds.observe(took_s)

    def image_refused(self, why: Refusal) -> None:
        """Count a refused image."""
        self._images_refused.labels(why.value).inc()

    def image_process_ended(self) -> None:
        """Count a lost image process."""
        self._image_restarts.inc()

    # What happens to calls, and to the loop.

    def rpc_began(self, method: str) -> None:
        """Count an open call."""
        self._rpcs_open.labels(method).inc()

    def rpc_ended(self, method: str, code: str, took_s: float) -> None:
        """Count a call's end."""
        self._rpcs_open.labels(method).dec()
        self._rpcs.labels(method, code).inc()
        self._rpc_seconds.labels(method).observe(took_s)

    def lagged(self, lag_s: float) -> None:
        """Count how late the loop came to what was due."""
        self._lag.observe(lag_s)

    # The rest is how.

    def _counter(self, tally: Tally) -> Counter:
        counter = Counter(tally.name, tally.meaning, tally.labels, registry=self._registry)
        for value in tally.values:
            counter.labels(value)
        return counter

    def _histogram(self, timing: Timing) -> Histogram:
        histogram = Histogram(
            timing.name, timing.meaning, timing.labels, buckets=timing.buckets, registry=self._registry
        )
        for value in timing.values:
            histogram.labels(value)
        return histogram

    def _count_usage(self, usage: Usage) -> None:
        self._prompt_tokens.inc(usage.prompt_tokens)
        self._cached_tokens.inc(usage.cached_tokens)
        self._image_tokens.inc(usage.image_tokens)

    def _observe_timings(self, end: str, timings: Timings) -> None:
        if timings.total_s is not None:
            self._analysis.labels(end).observe(timings.total_s)
        parts = {
            "prepare": timings.prepare_s,
            "encode": timings.encode_s,
            "prefill": timings.prefill_s,
            "decode": timings.decode_s,
        }
        for stage, took_s in parts.items():
            if took_s:  # Nothing is encoded where there is no image.
                self._stages.labels(stage).observe(took_s)

    def _token_metrics(self) -> Iterator[Metric]:
        output, gaps = catalogue.OUTPUT_TOKENS, catalogue.INTER_TOKEN
        yield CounterMetricFamily(output.name, output.meaning, value=self._output_tokens)
        yield HistogramMetricFamily(gaps.name, gaps.meaning, buckets=self._gaps.buckets(), sum_value=self._gaps.total)

    def _state_metrics(self, state: State) -> Iterator[Metric]:
        for reading in catalogue.READINGS:
            kind = CounterMetricFamily if reading.name.endswith("_total") else GaugeMetricFamily
            yield kind(reading.name, reading.meaning, value=float(reading.read(state)))
        engine = GaugeMetricFamily("mondrian_engine_state", "1 for its state, 0 for others.", labels=["state"])
        for value in EngineState:
            engine.add_metric([value.value], float(value is state.engine_state))
        yield engine
        model = GaugeMetricFamily("mondrian_model_info", "The model, always 1.", labels=["model", "architecture"])
        model.add_metric([self._model, state.architecture], 1.0)
        yield model
        yield from _process_metrics(state)


def process_metrics(build: Mapping[str, str]) -> Callable[[], bytes]:
    """Return what gives the metrics of a process without a service, such as a gateway alone, in the same format."""
    registry = _of_process(build)
    return lambda: generate_latest(registry)


def _of_process(build: Mapping[str, str]) -> CollectorRegistry:
    """Return a registry that tells what runs and, where the platform has /proc, what this process uses."""
    registry = CollectorRegistry()
    Info("mondrian_build", "Versions of what runs.", registry=registry).info(dict(build))
    ProcessCollector(registry=registry)
    return registry


class _Collected(Collector):
    """Metrics that are made at each scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that being registered asks nobody for anything."""
        return ()


def _process_metrics(state: State) -> Iterator[Metric]:
    memory = GaugeMetricFamily("mondrian_process_resident_memory_bytes", "Memory in RAM.", labels=["process"])
    cpu = CounterMetricFamily("mondrian_process_cpu_seconds_total", "Time on processors.", labels=["process"])
    for name, use in state.processes.items():
        memory.add_metric([name], float(use.resident_bytes))
        cpu.add_metric([name], use.cpu_s)
    yield from (memory, cpu)
