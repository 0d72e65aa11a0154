"""An autoscaled fleet of services, simulated request by request, as system `autoscale` sees it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from infra.plants import queue
from infra.plants.base import (
    Floats,
    PlantError,
    Sample,
    checked_action,
    names,
    seeds,
)
from infra.plants.cluster_options import ClusterOptions
from infra.plants.cluster_sensors import (
    ABANDONED,
    ARRIVED,
    LATE,
    QUEUED,
    READY,
    STARTING,
    SensorGrid,
)
from schemas.clock import tick_of, tick_time
from schemas.system import SystemSpec

INITIAL_UTILISATION = 0.7  # of the first load, under which every service begins
_STATE: Final = ("_fleet", "_tick", "_desired", "_base", "_cost", "_flips", "_direction")


class Cluster:
    """Services with Poisson arrivals, each a FIFO queue before the replicas that were asked for.

    A replica serves one request at a time. Asked for at a tick, it is billed at once and ready
    after a cold start. Asked to stop, it takes no new request, and is billed until it has finished
    its running one. When scaled in, replicas that are still starting are cancelled first, the
    newest first; then those go which are free soonest. Arrivals, the work of each request and the
    n-th cold start of a service depend on (seed, service) alone, so all policies meet the same.

    Sensors say at time t what was measured at t - metric_delay: `load` the arrivals per second of
    its last window, `pods` the replicas, the largest queue of its last window, and which share of
    the requests that began or left in that window was late. `Sample.reward` is minus the billed
    replica-seconds; the reward that counts is the spec's expression.

    Outcomes of a tick `[E]`: `cost` (replica-seconds billed, with all of the draining of what was
    stopped at its begin), `requests` (arrived), `late` (began or left too late), `abandoned`;
    `ready`, `starting`, `queue` (requests waiting) as they truly are at its end; `desired`
    (replicas, the action as applied); `allocated` (mean replicas billed: cost / tick).
    """

    version = "cluster-1"

    def __init__(self, spec: SystemSpec, **options: Any) -> None:
        self.spec = spec
        self.options = ClusterOptions.of(**options)
        self.entities = names("service", self.options.services)
        trace = self.options.load()
        start = trace.start_us if self.options.start_us is None else self.options.start_us
        self._period = spec.period_us / 1e6
        self.first_tick = tick_of(start, spec.epoch_us, spec.period_us)
        self.ticks: int | None = int(trace.seconds / self._period + 1e-9)
        if self.ticks < 1:
            raise PlantError(f"the trace is shorter than one tick of {self._period:g} s")
        shape = (self.options.services, trace.rates.shape[-1])
        self.bin_seconds = trace.bin_seconds
        self.bin_rates: Floats = np.ascontiguousarray(np.broadcast_to(trace.rates, shape))
        self.rates = self._tick_rates()
        busy = self.rates.sum(axis=0) * self._period * self.options.service_time
        self._elastic: Floats = np.concatenate([[0.0], np.cumsum(busy)])  # replica-seconds
        self._grid = SensorGrid(spec, self.options.metric_delay_us)
        self._fleet: queue.Fleet | None = None

    def _tick_rates(self) -> Floats:
        """`[E, ticks]` true mean rate (1/s) from tick to tick: what a clairvoyant knows."""
        assert self.ticks is not None
        edges = np.arange(self.ticks + 1) * self._period / self.bin_seconds
        bins = np.arange(self.bin_rates.shape[1] + 1)
        total = np.concatenate(
            [np.zeros((len(self.entities), 1)), np.cumsum(self.bin_rates, axis=1)], axis=1
        )
        at = np.stack([np.interp(edges, bins, row) for row in total])
        return np.diff(at, axis=1) * self.bin_seconds / self._period

    def reset(self, seed: int) -> Sample:
        """Begins anew, after a warm-up at the first rate with enough replicas for it."""
        o = self.options
        load = self.bin_rates[:, 0] * o.service_time
        self._desired = self._possible(np.ceil(load / INITIAL_UTILISATION))
        self._fleet = self._new_fleet(seed)
        # Independent of the delay, unless that is long, so that all delays meet the same arrivals.
        warm = math.ceil(max(o.warm_up, self._grid.seconds + self._period) / self._period)
        queue.begin(self._fleet, -warm * self._period, self._desired.astype(np.int64))
        self._tick = -warm
        self._grid.reset(len(self.entities))
        while self._tick < 0:
            self._advance()
        self._fleet.waits[:] = 0
        self._fleet.clock[:, queue.WAITED] = 0.0
        self._base = self._fleet.tally.copy()
        self._cost = np.zeros(len(self.entities))
        self._flips = np.zeros(len(self.entities), np.int64)
        self._direction = np.zeros(len(self.entities))
        return self._sample(np.zeros(len(self.entities)), self._grid.last)

    def step(self, action: Floats) -> Sample:
        """Sets the replicas `[E, 1]` (rounded, within the spec's bounds) and simulates one tick."""
        fleet = self._running()
        if self._tick == self.ticks:
            raise PlantError(f"the trace is over after {self.ticks} ticks; call reset(seed)")
        asked = checked_action(action, (len(self.entities), 1))[:, 0]
        desired = self._possible(np.rint(asked))
        self._count_flips(desired)
        self._desired = desired
        cost = desired * self._period
        queue.resize(fleet, self._tick * self._period, desired.astype(np.int64), cost)
        before = self._grid.last
        self._advance()
        self._cost += cost
        return self._sample(cost, before)

    def snapshot(self) -> Mapping[str, Any]:
        """All that what comes next depends on; arrivals to come are functions of the seed."""
        self._running()
        state = {name: getattr(self, name) for name in _STATE}
        return copy.deepcopy({**state, "history": self._grid.history})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a `snapshot` of this plant."""
        found = copy.deepcopy(dict(state))
        self._grid.history = found.pop("history")
        for name, value in found.items():
            setattr(self, name, value)

    def score(self) -> dict[str, float]:
        """Figures since `reset`, of all services together.

        `cost` (replica-seconds), `cost_ratio` (to the perfectly elastic cost: the integral of true
        rate × service time), `slo` (share of requests that began within `slo_wait`, of those that
        began, left, or have waited longer), `requests`, `late`, `abandoned`, `flips` (direction
        changes of the desired replicas), `flips_per_service_day`, `wait_mean`, `wait_p50` and
        `wait_p99` (s; who leaves counts as having waited the whole time-out; percentiles to 5 ms).
        """
        fleet = self._running()
        count = (fleet.tally - self._base)[:, : queue.LATE + 1].sum(axis=0)
        decided = count[queue.HEAD]
        overdue = queue.overdue(fleet, self._tick * self._period)
        days = self._tick * self._period / 86_400.0 * len(self.entities)
        elastic = self._elastic[self._tick]
        late = int(count[queue.LATE]) + overdue
        left = float(count[queue.ABANDONED])
        p50, p99 = self._waits((0.50, 0.99), left)
        waited = fleet.clock[:, queue.WAITED].sum() + (left * self.options.timeout if left else 0.0)
        return {
            "cost": float(self._cost.sum()),
            "cost_ratio": _ratio(self._cost.sum(), elastic),
            "slo": 1.0 - _ratio(late, decided + overdue, empty=0.0),
            "requests": float(count[queue.ARRIVED]),
            "late": float(late),
            "abandoned": left,
            "flips": float(self._flips.sum()),
            "flips_per_service_day": _ratio(self._flips.sum(), days),
            "wait_mean": _ratio(waited, decided),
            "wait_p50": p50,
            "wait_p99": p99,
        }

    def _running(self) -> queue.Fleet:
        if self._fleet is None:
            raise PlantError("call reset(seed) before step or score")
        return self._fleet

    def _possible(self, replicas: Floats) -> Floats:
        return np.clip(replicas, self.spec.action_low[0], self.spec.action_high[0])

    def _new_fleet(self, seed: int) -> queue.Fleet:
        o = self.options
        return queue.make_fleet(
            self.bin_rates,
            width=self.bin_seconds,
            keys=[list(seeds(seed, s))[:3] for s in range(len(self.entities))],
            most_servers=int(self.spec.action_high[0]),
            cold=o.cold_quantiles(),
            work=o.service_time,
            law=queue.CONSTANT if o.service == "constant" else queue.EXPONENTIAL,
            limit=o.slo_wait,
            patience=o.timeout,
        )

    def _advance(self) -> None:
        """Simulates from one tick to the next."""
        fleet = self._running()
        queue.advance(fleet, self._tick * self._period + self._grid.offsets, self._grid.out)
        self._grid.push()
        self._tick += 1
        if fleet.tally[:, queue.OVERFLOW].any():
            raise PlantError("a queue outgrew its memory: set a timeout, or allow more replicas")

    def _count_flips(self, desired: Floats) -> None:
        direction = np.sign(desired - self._desired)
        self._flips += (direction * self._direction) < 0.0
        self._direction = np.where(direction != 0.0, direction, self._direction)

    def _sample(self, cost: Floats, before: Floats) -> Sample:
        now = self._grid.last
        change = now - before
        tick = self.first_tick + self._tick
        outcomes = {
            "cost": cost,
            "requests": change[:, ARRIVED],
            "late": change[:, LATE],
            "abandoned": change[:, ABANDONED],
            "ready": now[:, READY],
            "starting": now[:, STARTING],
            "queue": now[:, QUEUED],
            "desired": self._desired.copy(),
            "allocated": cost / self._period,
        }
        time = tick_time(tick, self.spec.epoch_us, self.spec.period_us)
        done = np.zeros(len(self.entities), dtype=bool)
        return Sample(tick, self._grid.batches(self._tick, time), -cost, done, outcomes)

    def _waits(self, shares: tuple[float, ...], left: float) -> list[float]:
        """The waits (s) that these shares of the requests did not exceed."""
        histogram = self._running().waits.sum(axis=0)
        histogram[-1] += round(left)
        below = np.cumsum(histogram)
        place = np.searchsorted(below, np.array(shares) * below[-1])
        waits: Floats = np.minimum(place / queue.WAIT_BINS_PER_SECOND, self.options.timeout)
        return [float(wait) for wait in waits]


def _ratio(part: float, whole: float, empty: float = math.nan) -> float:
    return float(part / whole) if whole else empty
