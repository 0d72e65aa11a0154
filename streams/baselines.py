"""What an autoscaler is measured against: Kubernetes' rule, and one who knows the future.

Every policy meets the same arrivals on the same plant; parameters are chosen on training days, as
the cheapest that meets the SLO there, and never on the day that is scored.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from infra.plants.base import Floats, Sample, make_plant
from infra.plants.cluster import Cluster
from infra.traces import Trace, days, held_out_days, training_days
from planner.hpa import Hpa, HpaRule
from schemas.system import SystemSpec

SLO: Final = 0.9995
HPA_TARGETS: Final = tuple(round(0.40 + 0.025 * i, 3) for i in range(23))  # busy share per replica
MARGINS: Final = tuple(round(0.25 * i, 2) for i in range(25))  # standard deviations of the load
TUNING_DAYS, TUNING_SERVICES = 2, 3
Progress = Callable[[str], None]


class Policy(Protocol):
    """Chooses the desired replicas of E services at each tick."""

    def begin(self, plant: Cluster) -> None:
        """Forget the last run; `plant` has just been reset."""

    def desired(self, tick: int, sample: Sample) -> Floats:
        """[E] replicas from tick number `tick` (0 at the start of the trace) on."""


class HpaPolicy:
    """Kubernetes' HorizontalPodAutoscaler on the delayed metrics that the sensors show."""

    def __init__(self, spec: SystemSpec, target: float) -> None:
        self.spec, self.target = spec, target

    def begin(self, plant: Cluster) -> None:
        """See `Policy`."""
        rule = HpaRule(
            target=self.target,
            capacity=1.0 / plant.options.service_time,
            low=float(self.spec.action_low[0]),
            high=float(self.spec.action_high[0]),
        )
        self._hpa = Hpa(rule, len(plant.entities))
        self._current = np.full(len(plant.entities), np.nan)

    def desired(self, tick: int, sample: Sample) -> Floats:
        """See `Policy`. The load is the mean over the tick, as the aligner makes it."""
        load = _window_mean(sample, "load", "requests")
        ready = _window_mean(sample, "pods", "ready")
        starting = _window_mean(sample, "pods", "starting")
        current = np.where(np.isnan(self._current), ready + starting, self._current)
        self._current = self._hpa(load, ready, current, starting)
        return self._current


class Clairvoyant:
    """Knows the true rates, not the single arrivals: staffs for the highest rate in its lead time.

    Square-root staffing (Halfin and Whitt 1981): load a plus `margin` × √a, over the time that a
    new replica may need (95 % quantile of the cold start) and one tick.
    """

    def __init__(self, spec: SystemSpec, margin: float) -> None:
        self.spec, self.margin = spec, margin

    def begin(self, plant: Cluster) -> None:
        """See `Policy`."""
        period = self.spec.period_us / 1e6
        lead = float(np.quantile(plant.options.cold_quantiles(), 0.95)) + period
        starts = np.arange(plant.rates.shape[1]) * period
        first = (starts / plant.bin_seconds).astype(int)
        bins = plant.bin_rates.shape[1]
        last = np.minimum(np.ceil((starts + lead) / plant.bin_seconds).astype(int), bins)
        peak = np.stack(
            [plant.bin_rates[:, a:b].max(axis=1) for a, b in zip(first, last, strict=True)], axis=1
        )
        load = peak * plant.options.service_time
        self._plan = np.ceil(load + self.margin * np.sqrt(load))

    def desired(self, tick: int, sample: Sample) -> Floats:
        """See `Policy`."""
        return np.asarray(self._plan[:, min(tick, self._plan.shape[1] - 1)])


def _window_mean(sample: Sample, sensor: str, channel: str) -> Floats:
    """[E] mean of one channel over the readings of the last tick; NaN where there was none."""
    size = sample.reward.shape[0]
    total, count = np.zeros(size), np.zeros(size)
    for batch in sample.batches:
        if batch.sensor == sensor:
            np.add.at(total, batch.entity, batch.values[channel])
            np.add.at(count, batch.entity, 1.0)
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def run_policy(plant: Cluster, policy: Policy, seed: int) -> dict[str, Any]:
    """The plant's score after its whole trace under `policy`, and the course of the first service.

    Adds `desired` [ticks] and `ready` [ticks] of the first service, for plots.
    """
    sample = plant.reset(seed)
    policy.begin(plant)
    desired, ready = [], []
    for tick in range(plant.ticks or 0):
        sample = plant.step(policy.desired(tick, sample)[:, None])
        desired.append(float(sample.outcomes["desired"][0]))
        ready.append(float(sample.outcomes["ready"][0]))
    return {**plant.score(), "desired": desired, "ready": ready}


@dataclass(frozen=True)
class Split:
    """The window that is scored, and the earlier ones on which parameters may be chosen."""

    scored: Trace
    training: tuple[Trace, ...]


def split(trace: Trace, day: int | None = None) -> Split:
    """The scored day of a trace: the first test day, or the one with index `day` (may be negative).

    A trace of less than two full days is cut in half: the first half for training.
    """
    whole = days(trace)
    if len(whole) < 2:
        middle = trace.rates.shape[-1] // 2
        return Split(
            trace.slice(middle, trace.rates.shape[-1]),
            (trace.slice(0, middle),),
        )
    training = training_days(trace) or whole[:-1]
    if day is None:
        return Split((held_out_days(trace) if training_days(trace) else whole[-1:])[0], training)
    if not -len(whole) <= day < len(whole):
        raise ValueError(
            f"--day {day}: the trace has {len(whole)} full days: 0 to {len(whole) - 1}"
        )
    place = day % len(whole)
    return Split(whole[place], tuple(d for d in training if d.start_us < whole[place].start_us))


def tune(
    make: Callable[[float], Policy], grid: Sequence[float], plants: Sequence[Cluster], seed: int
) -> float:
    """The last value of `grid` that meets the SLO over all `plants`, by bisection.

    `grid` runs from the dearest and safest value to the cheapest; the first is returned when none
    meets the SLO.
    """

    def meets(value: float) -> bool:
        scores = [run_policy(plant, make(value), seed) for plant in plants]
        late = sum(score["late"] for score in scores)
        return bool(1.0 - late / sum(score["requests"] for score in scores) >= SLO)

    low, high = 0, len(grid)  # grid[low] is taken to meet it, grid[high] not to
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if meets(grid[middle]) else (low, middle)
    return grid[low]


def baselines(
    spec: SystemSpec,
    options: Mapping[str, Any],
    window: Split,
    seed: int,
    cache: Path | None = None,
    progress: Progress = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """Scores of `hpa_70`, `hpa_best`, `clairvoyant` on the scored day, each with its parameter."""
    progress("choosing the baselines' parameters on training days")
    target, margin = tuned_parameters(spec, options, window.training, seed, cache)
    chosen: dict[str, tuple[float, Policy]] = {
        "hpa_70": (0.7, HpaPolicy(spec, 0.7)),
        "hpa_best": (target, HpaPolicy(spec, target)),
        "clairvoyant": (margin, Clairvoyant(spec, margin)),
    }
    plant = _cluster(spec, options, window.scored)
    results = {}
    for name, (parameter, policy) in chosen.items():
        progress(f"scoring {name} on the same arrivals")
        results[name] = {"parameter": parameter, **run_policy(plant, policy, seed)}
    return results


def tuned_parameters(
    spec: SystemSpec,
    options: Mapping[str, Any],
    training: Sequence[Trace],
    seed: int,
    cache: Path | None,
) -> tuple[float, float]:
    """(HPA target, clairvoyant margin), from the last training days; kept in the folder `cache`."""
    chosen = list(training)[-TUNING_DAYS:]
    services = min(TUNING_SERVICES, int(options.get("services", TUNING_SERVICES)))
    small = {**options, "services": services}
    file = None if cache is None else cache / f"baselines-{_key(spec, small, chosen, seed)}.json"
    if file is not None and file.is_file():
        kept = json.loads(file.read_text())
        return kept["target"], kept["margin"]
    plants = [_cluster(spec, small, day) for day in chosen]
    target = tune(lambda value: HpaPolicy(spec, value), HPA_TARGETS, plants, seed)
    margin = tune(lambda value: Clairvoyant(spec, value), MARGINS[::-1], plants, seed)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"target": target, "margin": margin}))
    return target, margin


def _cluster(spec: SystemSpec, options: Mapping[str, Any], trace: Trace) -> Cluster:
    plant = make_plant(spec, **{**options, "trace": trace})
    if not isinstance(plant, Cluster):
        raise TypeError(f"baselines are for the plant 'cluster', not for {spec.system}'s")
    return plant


def _key(spec: SystemSpec, options: Mapping[str, Any], training: Sequence[Trace], seed: int) -> str:
    digest = hashlib.blake2b(digest_size=8)
    parts = [spec.spec_hash, Cluster.version, sorted(map(repr, options.items())), seed]
    digest.update(repr([*parts, HPA_TARGETS, MARGINS, SLO]).encode())
    for trace in training:
        digest.update(np.ascontiguousarray(trace.rates).tobytes())
    return digest.hexdigest()


def gap_closed(
    ours: Mapping[str, float], others: Mapping[str, Mapping[str, float]]
) -> float | None:
    """Share of the way from the best HPA to the clairvoyant; None below the SLO.

    Negative where ours costs more than the best HPA.
    """
    best, future = others["hpa_best"], others["clairvoyant"]
    room = best["cost"] - future["cost"]
    if ours["slo"] < SLO or room <= 0.0:
        return None
    return float((best["cost"] - ours["cost"]) / room)
