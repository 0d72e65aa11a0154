"""System identification: the parameters of a plant under which it does what a log says was done.

The simulator is put where the log says an entity was, given the actions that were taken, and what
it shows after each tick is held against the readings (multiple shooting: Bock and Plitt 1984). The
parameters are those of least robust squares; how well the log tells them, a bootstrap says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from infra.plants.base import Plant, PlantError, make_plant
from infra.plants.parameters import Parameter, Variable
from infra.plants.seen import Seen
from models.data import Sequences
from models.logs import DataError
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
QUIET: Final = {
    "nav2d": ("robots", {"actuation_noise": 0.0, "position_noise": 0.0, "velocity_noise": 0.0}),
    "gym": ("entities", {}),
}
"""Per kind of plant the option that says how many entities there are, and what takes its noise."""
SURE: Final = (0.025, 0.975)
"""Quantiles of the bootstrap between which a value lies."""
FEWEST: Final = 8
"""Windows below which an interval says nothing."""
TOLD: Final = 0.5
"""Share of the range that is searched; an interval wider than that tells nothing."""
SOFT: Final = 2.0
"""Residuals, in their usual spreads, beyond which they count linearly."""


@dataclass(frozen=True)
class Found:
    """One parameter: its value, where it lies by the bootstrap, and what the spec has now."""

    value: float
    low: float
    high: float
    now: float
    told: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        numbers = {n: _short(getattr(self, n)) for n in ("value", "low", "high", "now")}
        return {**numbers, "told": self.told}


@dataclass(frozen=True)
class Identified:
    """What was found.

    Attributes:
        parameters: by name.
        windows, ticks: how many stretches of the log it was found from, and of how many ticks.
        error, error_now: root mean square of what is off, in usual spreads of the readings' change
            over a window, with what was found and with what the spec has now.
    """

    parameters: Mapping[str, Found]
    windows: int
    ticks: int
    error: float
    error_now: float

    @property
    def told(self) -> bool:
        """Whether the log tells all of them."""
        return all(one.told for one in self.parameters.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "parameters": {name: one.as_dict() for name, one in self.parameters.items()},
            "windows": self.windows,
            "ticks": self.ticks,
            "error": _short(self.error),
            "error_now": _short(self.error_now),
        }


def _short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def identify(
    spec: SystemSpec,
    data: Sequences,
    *,
    wanted: tuple[str, ...] = (),
    ticks: int = 10,
    windows: int = 256,
    resamples: int = 400,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Identified:
    """Finds the parameters of the plant of `spec` from recorded trajectories.

    Args:
        data: of entities that are all alike, or of one.
        wanted: parameters; none: those that the spec gives a range, else all that the plant has.
        ticks: of a window; windows: how many at most.
        resamples: of the bootstrap over windows.
        seed: draws windows and resamples.
        say: told what is done.

    Raises:
        PlantError: the spec's plant has no parameters, or cannot be put into a state.
        DataError: too little to find them from.
    """
    search = _Search(spec, data, wanted, ticks, windows, seed)
    say(f"{search.count} windows of {ticks} ticks, looking for {', '.join(search.known)}")
    best = search.best(say)
    sampled = best.resampled(np.random.default_rng([seed, 41]), resamples)
    found = {}
    for i, (name, one) in enumerate(search.known.items()):
        low, high = np.quantile(sampled[:, i], SURE)
        value = float(best.values[i])
        if one.step:  # rounded to its step: it cannot be known better than that
            low, high = min(low, value - one.step / 2), max(high, value + one.step / 2)
        low, high = max(float(low), one.least), min(float(high), one.most)
        told = high - low < TOLD * (one.most - one.least) and not search.blurred(best, i)
        found[name] = Found(value, min(low, value), max(high, value), one.usual, told)
    now = np.array([one.usual for one in search.known.values()])
    return Identified(found, search.count, ticks, search.error(best.values), search.error(now))


@dataclass(frozen=True)
class _Fit:
    """Values for each delay that was tried: `each` `[D, P]`, windows' costs `[D, B]`, and around
    each the residuals `[D][B, r]` with their slopes `[D][B, r, free]`."""

    each: F64
    costs: F64
    residuals: tuple[F64, ...]
    slopes: tuple[F64, ...]
    free: I64

    @property
    def best(self) -> int:
        """Index of the delay."""
        return int(self.costs.sum(1).argmin())

    @property
    def values(self) -> F64:
        """`[P]`."""
        return np.asarray(self.each[self.best])

    def resampled(self, rng: np.random.Generator, count: int) -> F64:
        """`[count, P]` what other draws of the windows would have given.

        To first order around each delay's own optimum, so that nothing has to be simulated again.
        """
        windows = self.costs.shape[1]
        made = []
        for _ in range(count):
            weight = np.bincount(rng.integers(windows, size=windows), minlength=windows)
            place = int((self.costs @ weight).argmin())
            values = self.each[place].copy()
            slope, off = self.slopes[place], self.residuals[place]
            square = np.einsum("b,brp,brq->pq", weight, slope, slope)
            pull = np.einsum("b,brp,br->p", weight, slope, off)
            values[self.free] -= np.linalg.lstsq(square, pull, rcond=1e-10)[0]
            made.append(values)
        return np.array(made)


class _Search:
    """Windows of a log, and the plant that is put at the beginning of each."""

    def __init__(
        self,
        spec: SystemSpec,
        data: Sequences,
        wanted: tuple[str, ...],
        ticks: int,
        windows: int,
        seed: int,
    ) -> None:
        self.spec, self.ticks = spec, ticks
        self.known = _known(spec, wanted)
        late = self._late()
        self._delays = [0.0] if late is None else _grid(late)
        self._past = 1 + math.ceil(1e6 * max(self._delays) / spec.period_us)
        starts = self._starts(data, windows, seed)
        self.count = len(starts)
        ahead = starts[:, None] + np.arange(1, ticks + 1)
        observed = len(spec.observed_columns)
        self._begin = _channels(spec, data.obs[starts])
        self._before = data.action[starts[:, None] - np.arange(self._past)].transpose(1, 0, 2)
        self._then = data.action[ahead].transpose(1, 0, 2).astype(np.float64)
        self._seen = data.obs[ahead][..., :observed].astype(np.float64)
        moved = self._seen - data.obs[starts][:, None, :observed]
        self._unit = np.maximum(np.sqrt(np.nanmean(moved**2, axis=0)), 1e-6)  # [T, O]
        self._scale = np.ones_like(self._unit)
        self._plant, self._variable = _quiet(spec, self.count)

    def _late(self) -> Parameter | None:
        return next((one for one in self.known.values() if one.kind == "delay"), None)

    def _starts(self, data: Sequences, windows: int, seed: int) -> I64:
        """First rows of windows that share no tick, with all that is needed to begin there."""
        length, found = self.ticks + 1, []
        for first, last in data.segments:
            found.append(np.arange(first + self._past, last - self.ticks, length))
        rows = np.concatenate(found) if found else np.zeros(0, np.int64)
        whole = np.isfinite(data.obs[rows][:, : len(self.spec.observed_columns)]).all(1)
        rows = rows[whole]
        if len(rows) < FEWEST:
            raise DataError(
                f"{len(rows)} unbroken stretches of {self._past + length} ticks whose first row is "
                f"whole: {FEWEST} are the least; log more, or look at shorter ones (--ticks)"
            )
        rng = np.random.default_rng([seed, 43])
        return np.sort(rng.permutation(rows)[:windows])

    def off(self, values: F64) -> F64:
        """`[B, T * O]` prediction less reading, in usual spreads; 0 where there was no reading."""
        plant, spec = self._plant, self.spec
        pairs = zip(self.known, values, strict=True)
        self._variable.place(self._begin, self._before)
        self._variable.vary({name: np.full(self.count, value) for name, value in pairs})
        seen, shown = Seen(spec, self.count), []
        for action in self._then:
            sample = plant.step(action)
            seen.take(sample)
            shown.append(seen.values(sample.tick)[:, : len(spec.observed_columns)])
        off = (np.stack(shown, 1) - self._seen) / (self._unit * self._scale)
        return np.asarray(
            np.nan_to_num(off, nan=0.0, posinf=0.0, neginf=0.0).reshape(self.count, -1)
        )

    def error(self, values: F64) -> float:
        """Root mean square of what is off, in usual changes over a window."""
        scale, self._scale = self._scale, np.ones_like(self._scale)
        off = self.off(values)
        self._scale = scale
        return float(np.sqrt(np.mean(off**2)))

    def best(self, say: Callable[[str], None]) -> _Fit:
        """Twice: in units of how much the readings change, then of how far off they still are."""
        first = self._profile(self._delays, say)
        off = self.off(first.values).reshape(self.count, *self._unit.shape)
        spread = 1.4826 * np.median(np.abs(off), axis=0)
        self._scale = np.maximum(spread, 1e-4)
        costs = first.costs.sum(1)
        near = [d for d, cost in zip(self._delays, costs, strict=True) if cost < 4 * costs.min()]
        return self._profile(near, say)

    def _profile(self, delays: list[float], say: Callable[[str], None]) -> _Fit:
        """The best of the other parameters for each delay."""
        names = list(self.known)
        late = self._late()
        free = np.array([i for i, n in enumerate(names) if late is None or n != late.name], int)
        each, costs, residuals, slopes = [], [], [], []
        for delay in delays:
            values = np.array([one.usual for one in self.known.values()])
            if late is not None:
                values[names.index(late.name)] = delay
            if len(free):
                values[free] = self._fit(values, free)
            off = self.off(values)
            each.append(values)
            costs.append(_robust(off).sum(1))
            slope, weight = self._slope(values, free, off), np.sqrt(_weight(off))
            residuals.append(off * weight)
            slopes.append(slope * weight[..., None])
            say(f"delay {delay:g} s" if late is not None else "fitted")
        return _Fit(np.array(each), np.array(costs), tuple(residuals), tuple(slopes), free)

    def _fit(self, values: F64, free: I64) -> F64:
        """`[free]` of least robust squares, each within its range and in units of it."""
        ranges = [(one.least, one.most) for one in self.known.values()]
        low, high = (np.array([ranges[i][k] for i in free]) for k in (0, 1))

        def off(at: F64) -> F64:
            tried = values.copy()
            tried[free] = low + at * (high - low)
            return self.off(tried).ravel()

        start = np.clip((values[free] - low) / (high - low), 0.02, 0.98)
        found = least_squares(
            off, start, bounds=(0.0, 1.0), loss="soft_l1", f_scale=SOFT, diff_step=1e-3, max_nfev=40
        )
        return np.asarray(low + found.x * (high - low))

    def _slope(self, values: F64, free: I64, off: F64) -> F64:
        """`[B, r, free]` change of what is off with each parameter."""
        slopes = []
        for i in free:
            one = list(self.known.values())[i]
            step = 1e-3 * (one.most - one.least)
            moved = values.copy()
            moved[i] += step if values[i] + step <= one.most else -step
            slopes.append((self.off(moved) - off) / (moved[i] - values[i]))
        return np.stack(slopes, -1) if slopes else np.zeros((*off.shape, 0))

    def blurred(self, fit: _Fit, parameter: int) -> bool:
        """Whether others can make up for a change of this parameter, so that nothing tells them."""
        slope = fit.slopes[fit.best].reshape(-1, len(fit.free))
        if parameter not in fit.free:
            return False
        size = np.sqrt((slope**2).sum(0))
        if (size == 0).any():
            return bool(size[list(fit.free).index(parameter)] == 0)
        _, singular, rows = np.linalg.svd(slope / size, full_matrices=False)
        weak = rows[singular < 1e-3 * singular[0]]
        return bool((np.abs(weak[:, list(fit.free).index(parameter)]) > 0.1).any())


def _robust(off: F64) -> F64:
    """The loss of `least_squares(loss="soft_l1")`."""
    return np.asarray(2 * SOFT**2 * (np.sqrt(1 + (off / SOFT) ** 2) - 1))


def _weight(off: F64) -> F64:
    """What a residual counts in the squares that stand for that loss near the optimum."""
    return np.asarray(1 / np.sqrt(1 + (off / SOFT) ** 2))


def _grid(late: Parameter) -> list[float]:
    return [
        late.least + i * late.step for i in range(round((late.most - late.least) / late.step) + 1)
    ]


def _channels(spec: SystemSpec, rows: npt.NDArray[np.float32]) -> dict[str, F64]:
    """`[B, size]` of each channel, of rows `[B, O]`."""
    found, at = {}, 0
    for channel in spec.channels:
        found[channel.name] = rows[:, at : at + channel.size].astype(np.float64)
        at += channel.size
    return found


def _quiet(spec: SystemSpec, entities: int) -> tuple[Plant, Variable]:
    """The plant without noise, which draws nothing; as such, and as one whose parameters vary."""
    assert spec.plant is not None
    count, still = QUIET[spec.plant.kind]
    plant = make_plant(spec, **still, **{count: entities}, randomise={})
    assert isinstance(plant, Variable)
    plant.reset(0)
    return plant, plant


def _known(spec: SystemSpec, wanted: tuple[str, ...]) -> dict[str, Parameter]:
    """What is looked for, between which values, from what the spec has now."""
    if spec.plant is None or spec.plant.kind not in QUIET:
        raise PlantError(
            f"{spec.system}: its plant has no parameters to find; plants of kind "
            f"{' and '.join(QUIET)} have some"
        )
    (_, plant), ranges = _quiet(spec, 1), spec.plant.randomise
    # light moves nothing, so no log speaks for it
    there = {name: one for name, one in plant.parameters.items() if one.kind != "lighting"}
    names = wanted or tuple(name for name in there if name in ranges) or tuple(there)
    found = {}
    for name in names:
        if name not in there:
            raise PlantError(f"this plant has no parameter {name!r}; it has {', '.join(there)}")
        one, now = there[name], float(plant.values[name][0])
        low, high = ranges.get(name, (min(one.least, now), max(one.most, now)))
        found[name] = replace(one, usual=min(max(now, low), high), least=low, most=high)
    return found
