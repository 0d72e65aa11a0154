"""What can be chosen about the simulated cluster, with its defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import polars as pl

from infra.plants.base import Floats, PlantError, check_options, seconds
from infra.traces import Trace, generate_trace, read_trace

QUANTILES = 1000
# A lognormal whose 95 % quantile is 1.5 times its mean (30 s: 45 s), as measured for containers.
COLD_SIGMA = NormalDist().inv_cdf(0.95) - math.sqrt(
    NormalDist().inv_cdf(0.95) ** 2 - 2.0 * math.log(1.5)
)


@dataclass(frozen=True)
class ClusterOptions:
    """Options of `Cluster`; durations are seconds, or texts such as `30 s`.

    Attributes:
        services: number of entities.
        trace: rates per bin, shared or per service; a file is read; None generates a day.
        mean_replicas: the load of each service is scaled so that over the whole trace its mean
            rate × service_time is this many Erlang (busy replicas); None leaves it as it is.
        start_us: time of the first tick, microseconds since 1970 UTC (rounded up to a tick); None
            takes that of the trace.
        service_time: mean seconds of work per request; a replica serves 1/service_time per second.
        service: law of the work, `exponential` or `constant`.
        cold_start: mean seconds from the request for a replica to its readiness; None takes a
            `cold_start_csv` as it is.
        cold_start_csv: file with columns kind, quantile, seconds to draw cold starts from, instead
            of a lognormal whose 95 % quantile is 1.5 times its mean.
        cold_start_kind: the rows of that file to use.
        metric_delay: age of what the sensors say.
        slo_wait: a request that waits longer is late.
        timeout: a request that waits longer leaves, and is late; may be infinite.
        warm_up: seconds simulated before the first tick, at its rate (more if the delay needs it).
    """

    services: int = 10
    trace: Trace | str | Path | None = None
    mean_replicas: float | None = 20.0
    start_us: int | None = None
    service_time: float = 1.0 / 3.0
    service: Literal["exponential", "constant"] = "exponential"
    cold_start: float | None = 30.0
    cold_start_csv: str | Path | None = None
    cold_start_kind: str = "model_server"
    metric_delay: float = 15.0
    slo_wait: float = 0.5
    timeout: float = 10.0
    warm_up: float = 300.0

    @classmethod
    def of(cls, **options: Any) -> ClusterOptions:
        """Reads options as a spec or a caller gives them.

        Raises:
            PlantError: an option that does not exist or cannot be.
        """
        for name in (
            "service_time",
            "cold_start",
            "metric_delay",
            "slo_wait",
            "timeout",
            "warm_up",
        ):
            if options.get(name) is not None:
                options[name] = _seconds(name, options[name])
        check_options("the cluster", cls, options)
        made = cls(**options)
        made._check()
        return made

    def _check(self) -> None:
        wrong = {
            "services: at least 1": self.services < 1,
            "mean_replicas: more than 0": self.mean_replicas is not None
            and not 0.0 < self.mean_replicas < math.inf,
            "service_time: more than 0 s": not 0.0 < self.service_time < math.inf,
            "cold_start: 0 s or more": self.cold_start is not None and not self.cold_start >= 0.0,
            "metric_delay: 0 s or more": not self.metric_delay >= 0.0,
            "warm_up: 0 s or more": not 0.0 <= self.warm_up < math.inf,
            "slo_wait: 0 s or more": not self.slo_wait >= 0.0,
            "timeout: more than slo_wait": not self.timeout > self.slo_wait,
            "service: 'exponential' or 'constant'": self.service not in ("exponential", "constant"),
            "cold_start: a number, without a file": self.cold_start is None
            and self.cold_start_csv is None,
        }
        for remedy, is_wrong in wrong.items():
            if is_wrong:
                raise PlantError(f"option {remedy} is needed")

    @property
    def metric_delay_us(self) -> int:
        """The metric delay in microseconds."""
        return round(self.metric_delay * 1e6)

    def load(self) -> Trace:
        """The trace to simulate, scaled."""
        trace = self.trace
        if trace is None:
            trace = generate_trace(days=1, seed=0)
        elif not isinstance(trace, Trace):
            trace = read_trace(trace)
        if trace.rates.ndim == 2 and trace.rates.shape[0] != self.services:
            raise PlantError(
                f"the trace has {trace.rates.shape[0]} rows, one per service, but services is "
                f"{self.services}"
            )
        if self.mean_replicas is None:
            return trace
        return trace.scale_to(self.mean_replicas / self.service_time)

    def cold_quantiles(self) -> Floats:
        """Cold starts in seconds at `QUANTILES` even steps of probability."""
        share = (np.arange(QUANTILES) + 0.5) / QUANTILES
        if self.cold_start_csv is None:
            normal = NormalDist(0.0, COLD_SIGMA)
            drawn = np.exp([normal.inv_cdf(p) for p in share])
        else:
            known, at = self._cold_start_file(Path(self.cold_start_csv))
            drawn = np.interp(share, known, at)
        if self.cold_start is None:
            return np.asarray(drawn)
        return np.asarray(drawn * (self.cold_start / drawn.mean()))

    def _cold_start_file(self, path: Path) -> tuple[Floats, Floats]:
        try:
            table = pl.read_csv(path)
            rows = table.filter(pl.col("kind") == self.cold_start_kind).sort("quantile")
            columns = [rows[name].to_numpy().astype(np.float64) for name in ("quantile", "seconds")]
        except (OSError, pl.exceptions.PolarsError) as error:
            raise PlantError(
                f"{path}: a CSV with columns kind, quantile, seconds is needed: {error}"
            ) from error
        if rows.is_empty():
            kinds = ", ".join(sorted(set(table["kind"].to_list())))
            raise PlantError(f"{path}: no rows of kind {self.cold_start_kind!r}; there are {kinds}")
        return columns[0], columns[1]


def _seconds(name: str, value: Any) -> Any:
    try:
        return seconds(value)
    except (TypeError, ValueError) as error:
        raise PlantError(f"option {name}: {error}") from error
