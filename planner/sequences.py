"""Sequences of actions: which can be executed, how far a search spreads, and smooth noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from planner.gate import envelope, origin_of
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def executable(spec: SystemSpec, applied: F64, sequences: F64, before: F64 | None = None) -> F64:
    """`sequences` [E,C,T,A] as the gate would let them out one after the other.

    Args:
        spec: ranges, rates, accelerations, whole numbers.
        applied: [E,A] value in force; NaN sets no rate limit on the first step.
        sequences: any finite values.
        before: [E,A] value in force at the tick before; NaN sets no limit on the acceleration.
    """
    low, high, whole = spec.action_low, spec.action_high, spec.action_integer
    entities, count, steps, actions = sequences.shape
    flat = sequences.reshape(entities, count, steps * actions)  # long rows are clipped faster
    out: F64 = np.clip(flat, np.tile(low, steps), np.tile(high, steps)).reshape(sequences.shape)
    if whole.any():
        out = np.where(whole, np.rint(out), out)
    if spec.limits_acceleration:
        return _accelerated(spec, applied, out, before)
    if not (np.isfinite(spec.rate_up).any() or np.isfinite(spec.rate_down).any()):
        return out
    up = np.where(whole, np.floor(spec.rate_up), spec.rate_up)
    down = np.where(whole, np.floor(spec.rate_down), spec.rate_down)
    last = origin_of(spec, applied)[:, None]
    for t in range(steps):  # fmin and fmax pass over NaN: no limit
        last = np.fmin(np.fmax(out[:, :, t], last - down), last + up)
        out[:, :, t] = last
    return out


def _accelerated(spec: SystemSpec, applied: F64, sequences: F64, before: F64 | None) -> F64:
    """`sequences` [E,C,T,A] in range and whole, step by step inside `planner.gate.envelope`."""
    entities, count, steps, actions = sequences.shape
    out, wide = np.empty_like(sequences), (entities, count, actions)
    last = np.broadcast_to(applied[:, None], wide)
    known = np.full_like(applied, np.nan) if before is None else before
    older = np.broadcast_to(known[:, None], wide)
    for t in range(steps):
        out[:, :, t] = np.clip(sequences[:, :, t], *envelope(spec, last, older))
        older, last = last, out[:, :, t]
    return out


def first_spread(spec: SystemSpec, applied: F64, horizon: int) -> F64:
    """[E,T,A] a quarter of the box that bounds and rates allow at each step."""
    steps = np.arange(1, horizon + 1)[:, None]
    origin = origin_of(spec, applied)[:, None]
    least = np.fmax(spec.action_low, origin - steps * spec.rate_down)
    most = np.fmin(spec.action_high, origin + steps * spec.rate_up)
    return np.asarray((most - least) / 4)


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
