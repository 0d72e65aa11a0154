"""Windows of logged data: a bundle filters their beginning, then imagines on as it was acted.

Everything goes through the exported graphs, so what is measured is what will run.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.data import Sequences
from planner.session import Bundle, Dynamics

WARM = 16
"""Ticks that a belief has seen before it is asked to predict."""
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Believed:
    """Beliefs of B windows: h `[B, H]`, mean and std `[B, Z]`; innovations `[n]` on the way."""

    h: F32
    mean: F32
    std: F32
    innovations: F32


@dataclass(frozen=True)
class Imagined:
    """S = members × futures sampled futures of B windows over T ticks.

    Attributes:
        channels: `[T, S, B, O]` raw units.
        reward: `[T, S, B]` of the learned head, 0 where the spec has an expression.
        alive: `[T, S, B]` probability that the episode goes on after the tick.
    """

    channels: F32
    reward: F32
    alive: F32


def draw_starts(data: Sequences, rng: np.random.Generator, count: int, length: int) -> I64:
    """`[<= count]` first rows of unbroken windows of `length` ticks, ordered."""
    rows = np.arange(len(data))
    usable = rows[rows + length <= data.last]
    return np.sort(rng.permutation(usable)[:count])


def filtered(bundle: Bundle, obs: F32, action: F32) -> Believed:
    """The beliefs after observations `[B, T, O]` (NaN: missing) and applied actions `[B, T, A]`."""
    rows = len(obs)
    h = np.zeros((rows, bundle.hidden), np.float32)
    z = np.zeros((rows, bundle.latent), np.float32)
    std, innovations = z, []
    for t in range(obs.shape[1]):
        mask = np.isfinite(obs[:, t])
        seen = np.where(mask, obs[:, t], 0).astype(np.float32)
        after = bundle.believe(h, z, action[:, t], seen, mask.astype(np.float32))
        h, z, std = after.h, after.mean, after.std
        if t >= WARM // 2:
            innovations.append(after.innovation)
    return Believed(h, z, std, np.concatenate(innovations))


def imagined(
    dynamics: Dynamics, belief: Believed, action: F32, futures: int, rng: np.random.Generator
) -> Imagined:
    """Sampled futures under the actions `[B, T, A]`, `futures` of each member for each window."""
    h, z, std = (np.repeat(x, futures, axis=0) for x in (belief.h, belief.mean, belief.std))
    members, rows = dynamics.members, len(h)
    ticks = action.shape[1]
    noise = rng.standard_normal((ticks + 1, members, rows, z.shape[1])).astype(np.float32)
    latent = (z + std * noise[0]).astype(np.float32)
    hidden = np.broadcast_to(h, (members, *h.shape)).copy()
    wide = np.repeat(action, futures, axis=0).transpose(1, 0, 2)[:, None]
    actions = np.broadcast_to(wide, (ticks, members, rows, action.shape[2])).copy()
    out = dynamics.imagine(hidden, latent, actions, noise[1:])
    return Imagined(*(_by_future(x, futures) for x in (out.channels, out.reward, out.alive)))


def _by_future(x: F32, futures: int) -> F32:
    """`[T, M, B × futures, …]` as `[T, M × futures, B, …]`."""
    ticks, members, rows = x.shape[:3]
    apart = x.reshape(ticks, members, rows // futures, futures, *x.shape[3:])
    return np.moveaxis(apart, 3, 2).reshape(ticks, members * futures, rows // futures, *x.shape[3:])


def last_seen(obs: F32) -> F32:
    """`[B, O]` the last value present in `[B, T, O]`, NaN without any."""
    now = np.full_like(obs[:, 0], np.nan)
    for t in range(obs.shape[1]):
        now = np.where(np.isfinite(obs[:, t]), obs[:, t], now)
    return now
