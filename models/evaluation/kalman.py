"""The Kalman filter: the best belief there is of a known system that is linear and Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.plants.nav2d import Nav2d, motion

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearGaussian:
    """x' = A x + B u + w and y = C x + v, with w ~ N(0, Q) and v ~ N(0, diag(r)), all independent.

    Of S state variables, U inputs and O readings, each in its own unit.

    Attributes:
        a: `[S, S]`;  b: `[S, U]`;  q: `[S, S]`;  c: `[O, S]`;  r: `[O]` variances of the readings.
    """

    a: F64
    b: F64
    q: F64
    c: F64
    r: F64

    def over(self, steps: int) -> LinearGaussian:
        """The same system seen once in so many steps, under one input and fresh noise each."""
        a, b, q = np.eye(len(self.a)), np.zeros_like(self.b), np.zeros_like(self.q)
        for _ in range(steps):
            a, b, q = self.a @ a, self.a @ b + self.b, self.a @ q @ self.a.T + self.q
        return LinearGaussian(a, b, q, self.c, self.r)


@dataclass(frozen=True)
class Filtered:
    """What is believed of E entities at T ticks.

    Attributes:
        mean: `[T, E, S]`;  covariance: `[T, E, S, S]`.
    """

    mean: F64
    covariance: F64

    def std(self) -> F64:
        """`[T, E, S]` standard deviations."""
        return np.asarray(np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1)))

    def nees(self, truth: F64) -> F64:
        """`[T, E]` normalised estimation error squared, of the true states `[T, E, S]`.

        It has S degrees of freedom and mean S where the filter is consistent (Bar-Shalom, Li and
        Kirubarajan 2001: Estimation with Applications to Tracking and Navigation, 5.4).
        """
        error = (truth - self.mean)[..., None]
        scaled = np.linalg.solve(self.covariance, error)
        return np.asarray((error * scaled).sum((-2, -1)))


def kalman_filter(
    system: LinearGaussian, mean: F64, covariance: F64, inputs: F64, readings: F64
) -> Filtered:
    """Filters T ticks of E entities (Kalman 1960); the update is Joseph's, which stays symmetric.

    Args:
        mean: `[E, S]` and covariance: `[E, S, S]`, before the first reading and at its tick.
        inputs: `[T, E, U]` in force until each tick; the first is not used.
        readings: `[T, E, O]`, NaN where there is none: of such an one nothing is taken.
    """
    means, covariances = [], []
    for t in range(len(readings)):
        if t:
            mean = mean @ system.a.T + inputs[t] @ system.b.T
            covariance = system.a @ covariance @ system.a.T + system.q
        mean, covariance = _corrected(system, mean, covariance, readings[t])
        means.append(mean)
        covariances.append(covariance)
    return Filtered(np.stack(means), np.stack(covariances))


def _corrected(system: LinearGaussian, mean: F64, covariance: F64, reading: F64) -> tuple[F64, F64]:
    there = np.isfinite(reading)
    c = system.c * there[..., None]  # [E, O, S]; a row of zeros has no gain
    back = np.swapaxes(c, -1, -2)
    innovation = np.where(there, reading, 0.0)[..., None] - c @ mean[..., None]
    spread = c @ covariance @ back + np.diag(system.r)
    gain = np.swapaxes(np.linalg.solve(spread, c @ covariance), -1, -2)
    keep = np.eye(len(system.a)) - gain @ c
    after = keep @ covariance @ np.swapaxes(keep, -1, -2)
    after = after + gain * system.r @ np.swapaxes(gain, -1, -2)
    return mean + (gain @ innovation)[..., 0], after


def nav2d_positions(plant: Nav2d) -> LinearGaussian:
    """nav2d from tick to tick, of which positions alone are read: a linear system, and Gaussian.

    The state is position (m) and velocity (m/s) along both axes, `[x, y, vx, vy]`; inputs are the
    actions (m/s²). It holds while no robot is stopped by a wall or parked at its goal.

    Raises:
        ValueError: the plant delays actions, or parks robots.
    """
    o = plant.options
    if o.action_delay or o.reach:
        raise ValueError("nav2d is linear only with action_delay 0 and reach 0")
    keep, gain, drift, fall = motion(o.drag, plant.step_us / 1e6)
    b = _both_axes([[fall], [gain]])
    step = LinearGaussian(
        a=_both_axes([[1.0, drift], [0.0, keep]]),
        b=b / o.mass,
        q=o.actuation_noise**2 * b @ b.T,
        c=_both_axes([[1.0, 0.0]]),
        r=np.full(2, o.position_noise**2),
    )
    return step.over(plant.spec.period_us // plant.step_us)


def _both_axes(one: list[list[float]]) -> F64:
    """The same of x and y, which do not meet: variables in turn, x and y of each."""
    return np.asarray(np.kron(np.array(one), np.eye(2)), dtype=np.float64)
