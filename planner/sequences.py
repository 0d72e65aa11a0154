"""Sequences of actions: which can be executed, how far a search spreads, and smooth noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def executable(spec: SystemSpec, applied: F64, sequences: F64) -> F64:
    """`sequences` [E,C,T,A] as the gate would let them out one after the other.

    Args:
        spec: ranges, rates, whole numbers.
        applied: [E,A] value in force; NaN sets no rate limit on the first step.
        sequences: any finite values.
    """
    low, high, whole = spec.action_low, spec.action_high, spec.action_integer
    entities, count, steps, actions = sequences.shape
    flat = sequences.reshape(entities, count, steps * actions)  # long rows are clipped faster
    out: F64 = np.clip(flat, np.tile(low, steps), np.tile(high, steps)).reshape(sequences.shape)
    if whole.any():
        out = np.where(whole, np.rint(out), out)
    if not (np.isfinite(spec.rate_up).any() or np.isfinite(spec.rate_down).any()):
        return out
    up = np.where(whole, np.floor(spec.rate_up), spec.rate_up)
    down = np.where(whole, np.floor(spec.rate_down), spec.rate_down)
    before = _origin(spec, applied)[:, None]
    for t in range(steps):  # fmin and fmax pass over NaN: no limit
        before = np.fmin(np.fmax(out[:, :, t], before - down), before + up)
        out[:, :, t] = before
    return out


def first_spread(spec: SystemSpec, applied: F64, horizon: int) -> F64:
    """[E,T,A] a quarter of the box that bounds and rates allow at each step."""
    steps = np.arange(1, horizon + 1)[:, None]
    origin = _origin(spec, applied)[:, None]
    least = np.fmax(spec.action_low, origin - steps * spec.rate_down)
    most = np.fmin(spec.action_high, origin + steps * spec.rate_up)
    return np.asarray((most - least) / 4)


def _origin(spec: SystemSpec, applied: F64) -> F64:
    """The value that rates count from, as in `planner.gate.envelope`."""
    origin = np.clip(applied, spec.action_low, spec.action_high)
    return np.where(spec.action_integer, np.rint(origin), origin)


def coloured(white: F32, exponent: float) -> F32:
    """White noise [T,C,A] as [C,T,A] with power spectrum 1/f^`exponent` along T and variance 1."""
    steps, count, columns = white.shape
    smooth = _filter(steps, exponent) @ white.reshape(steps, count * columns)
    return np.ascontiguousarray(smooth.reshape(white.shape).transpose(1, 0, 2))


@lru_cache(maxsize=16)
def _filter(horizon: int, exponent: float) -> F32:
    """[T,T] lower triangular: the Cholesky factor of the noise's autocovariance.

    The spectrum of Timmer & König 1995 over twice the horizon, so that the ends are not tied
    together; the constant part gets the power of the lowest frequency, as iCEM has it.
    """
    frequency = np.fft.rfftfreq(2 * horizon)
    frequency[0] = frequency[1]
    covariance = np.fft.irfft(frequency**-exponent)[:horizon]
    lag = np.abs(np.arange(horizon)[:, None] - np.arange(horizon))
    correlation = covariance[lag] / covariance[0] + 1e-9 * np.eye(horizon)
    return np.linalg.cholesky(correlation).astype(np.float32)
