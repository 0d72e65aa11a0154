"""The one table of metrics: every name that a Prometheus server can scrape from our processes."""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from prometheus_client import Counter, Gauge, Histogram

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
}


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
