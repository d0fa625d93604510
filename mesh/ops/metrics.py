"""The metrics of a node: all of them are declared here, and counted in plain numbers.

A request adds to a few lists of integers; only a scrape makes Prometheus' text of them. Each node
has a `Metrics` of its own, so that several in one process do not meet.

Names, labels and buckets are those that dashboards for ModelMesh know; what begins with `wml_` is
new. Nothing is labelled by model: a mesh has too many. `wml-serving top` shows figures by model.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

MINUTE_MS = 60_000.0
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
SHORT_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 75.0, 100.0, 200.0, 500.0)
LONG_MS = (1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, MINUTE_MS, 2 * MINUTE_MS, 5 * MINUTE_MS)
TIMES_MS = SHORT_MS + LONG_MS
MINUTES_MS = (MINUTE_MS / 2, 5 * MINUTE_MS, 15 * MINUTE_MS)
HOURS_MS = (HOUR_MS, 4 * HOUR_MS, 12 * HOUR_MS)
DAYS_MS = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 90 * DAY_MS)
AGES_MS = MINUTES_MS + HOURS_MS + DAYS_MS
MESSAGE_BYTES = tuple(128.0 * 4**step for step in range(8))
# Finer, for the percentiles of one copy: each bound a fifth above the last, up to 7 min.
COPY_MS = tuple(round(0.25 * 1.2**step, 3) for step in range(80))
MODEL_BYTES = tuple(256 * 1024.0 * 4**step for step in range(8))


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric. `kind`: `histogram`, `counter` or `gauge`; a histogram has `buckets`."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _times(name: str, meaning: str, *labels: str) -> Declared:
    return Declared(f"modelmesh_{name}_milliseconds", "histogram", meaning, labels, TIMES_MS)


def _counter(name: str, meaning: str) -> Declared:
    return Declared(f"modelmesh_{name}", "counter", meaning)


def _gauge(name: str, meaning: str) -> Declared:
    return Declared(name, "gauge", meaning)


OF_CALLS = ("method", "code")
API_REQUEST = _times("api_request", "A client's call, from its arrival to its end", *OF_CALLS)
REQUEST_SIZE = Declared(
    "modelmesh_request_size_bytes", "histogram", "A client's request", OF_CALLS, MESSAGE_BYTES
)
RESPONSE_SIZE = Declared(
    "modelmesh_response_size_bytes", "histogram", "The answer to a client", OF_CALLS, MESSAGE_BYTES
)
INVOKE_MODEL = _times("invoke_model", "A call to the runtime beside this node", *OF_CALLS)
REQ_QUEUE_DELAY = _times(
    "req_queue_delay", "How long a request waited for a model, however that ended"
)
CACHE_MISS = _times("cache_miss", "How long a request waited for a model that then served it")
LOADING_QUEUE_DELAY = _times("loading_queue_delay", "How long a load waited for room and a slot")
LOADMODEL = _times("loadmodel", "A load that succeeded, from the first byte that is pulled")
MODEL_SIZING = _times("model_sizing", "How long a runtime took to say what a loaded model takes")
UNLOADMODEL = _times("unloadmodel", "An unload that succeeded")
AGE_AT_EVICTION = Declared(
    "modelmesh_age_at_eviction_milliseconds",
    "histogram",
    "How long a model had not been used when it was evicted",
    buckets=AGES_MS,
)
LOADED_MODEL_SIZE = Declared(
    "modelmesh_loaded_model_size_bytes",
    "histogram",
    "What a model takes, as its runtime says once it is loaded",
    buckets=MODEL_BYTES,
)
LOADMODEL_FAILURE = _counter("loadmodel_failure", "Loads that failed")
UNLOADMODEL_FAILURE = _counter("unloadmodel_failure", "Copies whose unload failed, once or more")
UNLOADMODEL_ATTEMPT_FAILURE = _counter("unloadmodel_attempt_failure", "Unloads that failed")
GAUGES = (
    _gauge("modelmesh_models_managed_total", "Models of the mesh; every node says the same"),
    _gauge("modelmesh_models_loaded_total", "Models of the mesh that are loaded on some node"),
    _gauge("modelmesh_models_with_failure_total", "Models of the mesh that failed on some node"),
    _gauge("modelmesh_instance_models_total", "Models loaded on this node"),
    _gauge("modelmesh_instance_capacity_bytes", "What this node's runtime has for models"),
    _gauge("modelmesh_instance_used_bytes", "What its models take of it"),
    _gauge("modelmesh_instance_used_bps", "The same in hundredths of a percent"),
    _gauge("modelmesh_instance_lru_seconds", "Last use of its least recently used model, epoch"),
    _gauge("modelmesh_instance_lru_age_seconds", "How long ago that was; 0 where it has none"),
    _gauge("wml_requests_waiting", "Requests that wait for a model on this node"),
    _gauge("wml_requests_in_flight", "Requests of clients that have begun and not ended"),
)
DECLARED = (
    API_REQUEST,
    REQUEST_SIZE,
    RESPONSE_SIZE,
    INVOKE_MODEL,
    REQ_QUEUE_DELAY,
    CACHE_MISS,
    LOADING_QUEUE_DELAY,
    LOADMODEL,
    MODEL_SIZING,
    UNLOADMODEL,
    AGE_AT_EVICTION,
    LOADED_MODEL_SIZE,
    LOADMODEL_FAILURE,
    UNLOADMODEL_FAILURE,
    UNLOADMODEL_ATTEMPT_FAILURE,
    *GAUGES,
)


class Histogram:
    """Counts of what was at most each bound; the last one is of what was above all of them."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """In Prometheus' form: the bound as text, and how many were at most that."""
        total = 0
        buckets = []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            text = floatToGoString(bound)  # type: ignore[no-untyped-call]
            buckets.append((text, float(total)))
        return buckets


class Calls:
    """Calls of some methods by how they ended; one without `sizes` counts only how long."""

    def __init__(self, time: Declared, *sizes: Declared) -> None:
        self._declared = (time, *sizes)
        self._ended: dict[tuple[str, str], tuple[Histogram, ...]] = {}

    def ended(self, method: str, code: str, took_s: float, *sizes_bytes: int) -> None:
        """A call is over: its method's name, its status' name; sizes as far as there were any."""
        known = self._ended.get((method, code)) or self._begin(method, code)
        known[0].observe(took_s * 1000.0)
        for histogram, size_bytes in zip(known[1:], sizes_bytes, strict=False):
            histogram.observe(size_bytes)

    def collect(self) -> Iterator[Metric]:
        for index, declared in enumerate(self._declared):
            rows = [(key, histograms[index]) for key, histograms in self._ended.items()]
            yield _family(declared, rows)

    def _begin(self, method: str, code: str) -> tuple[Histogram, ...]:
        made = tuple(Histogram(declared.buckets) for declared in self._declared)
        self._ended[method, code] = made
        return made


class Metrics(Collector):
    """What one node counts. `gauges` are set before a scrape, by name; others are left out."""

    def __init__(self) -> None:
        self.api = Calls(API_REQUEST, REQUEST_SIZE, RESPONSE_SIZE)
        self.invoked = Calls(INVOKE_MODEL)
        self.gauges: Mapping[str, float] = {}
        self._histograms: dict[Declared, Histogram] = {}
        self._counts: dict[Declared, int] = {}
        for declared in DECLARED:
            if declared.kind == "counter":
                self._counts[declared] = 0
            elif declared.kind == "histogram" and not declared.labels:
                self._histograms[declared] = Histogram(declared.buckets)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def observe(self, declared: Declared, value: float) -> None:
        """Into a histogram without labels."""
        self._histograms[declared].observe(value)

    def add(self, declared: Declared) -> None:
        """One more of a counter."""
        self._counts[declared] += 1

    def text(self) -> bytes:
        """What Prometheus reads."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        yield from self.api.collect()
        yield from self.invoked.collect()
        for declared, histogram in self._histograms.items():
            yield _family(declared, [((), histogram)])
        for declared, count in self._counts.items():
            # As `counter` the library would add `_total` to the name that dashboards know.
            family = Metric(declared.name, declared.meaning, "unknown")
            family.add_sample(declared.name, {}, count)
            yield family
        for declared in GAUGES:
            if declared.name in self.gauges:
                value = self.gauges[declared.name]
                yield GaugeMetricFamily(declared.name, declared.meaning, value=value)


def _family(
    declared: Declared, rows: Iterable[tuple[tuple[str, ...], Histogram]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(declared.name, declared.meaning, labels=declared.labels)
    for labels, histogram in rows:
        family.add_metric(labels, histogram.cumulative(), histogram.sum)
    return family
