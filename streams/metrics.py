"""The one table of metrics: every name that a Prometheus server can scrape from our processes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Kind = Literal["counter", "gauge", "histogram"]
SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Metric:
    """One metric: its kind, what it counts, and its labels."""

    kind: Kind
    what: str
    labels: tuple[str, ...] = ("system",)


TABLE: Final[dict[str, Metric]] = {
    "rehearse_worker_frames": Metric("counter", "Frames decided and acknowledged"),
    "rehearse_worker_frames_repeated": Metric("counter", "Frames skipped: tick or epoch was done"),
    "rehearse_worker_frames_rejected": Metric("counter", "Frames that went to the dead letters"),
    "rehearse_worker_frames_shed": Metric("counter", "Frames passed over: no time for them"),
    "rehearse_worker_frames_held": Metric(
        "counter", "Frames of a twin that the first worker answered"
    ),
    "rehearse_worker_decisions": Metric(
        "counter", "Decisions, by who made them", ("system", "mode")
    ),
    "rehearse_worker_reasons": Metric(
        "counter", "Decisions that the gate marked, by reason", ("system", "reason")
    ),
    "rehearse_worker_step_seconds": Metric("histogram", "Encode, believe, plan and gate a frame"),
    "rehearse_worker_confirm_seconds": Metric(
        "histogram", "From the decision until the broker has actions, trajectory and belief row"
    ),
    "rehearse_worker_in_flight": Metric("gauge", "Frames decided but not yet acknowledged"),
    "rehearse_perceive_encoded": Metric(
        "counter", "Raw messages encoded and published", ("system", "sensor")
    ),
    "rehearse_perceive_refused": Metric(
        "counter", "Raw messages that went to the dead letters", ("system", "sensor")
    ),
    "rehearse_perceive_stale": Metric(
        "counter", "Raw messages too old to be seen, and passed over", ("system", "sensor")
    ),
    "rehearse_perceive_batches": Metric(
        "counter", "Batches encoded: messages per batch are their number", ("system", "sensor")
    ),
    "rehearse_perceive_seconds": Metric(
        "histogram",
        "From a raw message's receipt until the broker has its embedding",
        ("system", "sensor"),
    ),
    "rehearse_align_frames": Metric("counter", "Frames published"),
    "rehearse_align_speaks": Metric("gauge", "1 where it publishes frames, 0 where it stands by"),
    "rehearse_align_readings": Metric(
        "counter", "What came in, by what became of it", ("system", "result")
    ),
    "rehearse_align_clocks_corrected": Metric("gauge", "Device clocks that are off, and corrected"),
    "rehearse_align_clock_jumps": Metric("counter", "Device clocks that were set"),
    "rehearse_align_clock_offset_seconds": Metric(
        "gauge", "How far a corrected device's clock is ahead, less transit", ("system", "device")
    ),
    "rehearse_align_clock_uncertainty_seconds": Metric(
        "gauge", "Uncertainty of that, the smallest transit delay aside", ("system", "device")
    ),
    "rehearse_align_clock_drift_ratio": Metric(
        "gauge", "Seconds per second by which that clock is too fast", ("system", "device")
    ),
    "rehearse_sink_frames": Metric("counter", "Trajectory frames read"),
    "rehearse_sink_attempts": Metric("counter", "Further attempts at a frame that was read"),
    "rehearse_sink_rows": Metric("counter", "Rows stored in Parquet"),
    "rehearse_sink_rejected": Metric("counter", "Records that are no trajectory frames"),
    "rehearse_sink_beliefs_unlike": Metric(
        "counter", "Attempts whose belief is not that of an earlier attempt at the same tick"
    ),
    "rehearse_sink_frames_lost": Metric("gauge", "Ticks missing between a cohort's ends"),
    "rehearse_plant_ticks": Metric("counter", "Ticks simulated"),
    "rehearse_plant_readings": Metric("counter", "Readings sent"),
    "rehearse_plant_statuses": Metric(
        "counter", "Actions at the actuator, by what became of them", ("system", "status")
    ),
    "rehearse_plant_missing": Metric("counter", "Entities' ticks without an answer in time"),
    "rehearse_plant_latency_seconds": Metric(
        "gauge",
        "From the reading that closed the tick until the action is there, of the newest actions",
        ("system", "quantile"),
    ),
}
Values = Mapping[str, float | Mapping[str, float]]
"""Name → value; or → value of the second label → value."""


@cache
def counter(name: str) -> Counter:
    """The counter `name` of the table."""
    return Counter(name, TABLE[name].what, TABLE[name].labels)


@cache
def gauge(name: str) -> Gauge:
    """The gauge `name` of the table."""
    return Gauge(name, TABLE[name].what, TABLE[name].labels)


@cache
def histogram(name: str) -> Histogram:
    """The histogram `name` of the table, in seconds."""
    return Histogram(name, TABLE[name].what, TABLE[name].labels, buckets=SECONDS)


class _Source(Collector):
    def __init__(self, system: str, read: Callable[[], Values]) -> None:
        self._system, self._read = system, read

    def describe(self) -> Iterable[Family]:
        return ()  # else they are collected on registration

    def collect(self) -> Iterable[Family]:
        for name, value in self._read().items():
            row = TABLE[name]
            kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            family = kind(name, row.what, labels=row.labels)
            parts = value if isinstance(value, Mapping) else {"": value}
            for label, number in parts.items():
                labels = [self._system, label][: len(row.labels)]
                family.add_metric(labels, float(number))
            yield family


@contextmanager
def exposed(system: str, read: Callable[[], Values]) -> Iterator[None]:
    """While the block runs, a scrape calls `read` (in a thread of its own) and shows its values.

    For what a process counts anyway: nothing is counted twice, and nothing costs the loop time.
    Names are those of the table, counters and gauges only.
    """
    source = _Source(system, read)
    REGISTRY.register(source)
    try:
        yield
    finally:
        REGISTRY.unregister(source)


@contextmanager
def serving(port: int | None, host: str = "127.0.0.1") -> Iterator[int | None]:
    """While the block runs, Prometheus may scrape `http://HOST:PORT/metrics`; no port: it may not.

    Gives the port, a free one for 0. Raises OSError that names the remedy where it is taken.
    """
    if port is None:
        yield None
        return
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise OSError(f"metrics at {host}:{port}: {error}; give another --metrics-port") from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
