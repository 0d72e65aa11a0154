"""Windows of logged data: a bundle filters their beginning, then imagines on as it was acted.

Everything goes through the exported graphs, so what is measured is what will run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.data import Sequences
from planner.session import Bundle, Dynamics

WARM = 16
"""Ticks that a belief has seen before it is asked to predict."""
LEAST = WARM + 1
"""Rows of the shortest sequence that says anything."""
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Believed:
    """Beliefs of B windows: h `[B, H]`, mean and std `[B, Z]`; innovations `[n]` on the way."""

    h: F32
    mean: F32
    std: F32
    innovations: F32

    def of(self, windows: slice) -> "Believed":
        """The beliefs of some of the windows."""
        h, mean, std = self.h[windows], self.mean[windows], self.std[windows]
        return Believed(h, mean, std, self.innovations)


@dataclass(frozen=True)
class Imagined:
    """S = members × futures sampled futures of B windows over T ticks.

    Attributes:
        channels: `[T, S, B, O]` raw units.
        reward: `[T, S, B]` of the learned head, 0 where the spec has an expression.
        alive: `[T, S, B]` probability that the episode goes on after the tick.
        cost: `[T, S, B]` probability that a constraint is broken; None where no head says so.
    """

    channels: F32
    reward: F32
    alive: F32
    cost: F32 | None = None


@dataclass(frozen=True)
class Windows:
    """B stretches of one entity: `WARM` ticks to form a belief on, then up to T to be predicted.

    What lies beyond the end of a block (mostly an episode) is NaN; actions there are the last one.

    Attributes:
        starts: `[B]` first rows in the data, ascending.
        block: `[B]` number of the stretch of data that a window is from; blocks share no rows.
        fitting: `[B]` whether the block belongs to the part that recalibration is fitted on.
        obs: `[B, WARM + T, O]`; action: `[B, WARM + T, A]`; reward, alive: `[B, WARM + T]`.
    """

    starts: I64
    block: I64
    fitting: npt.NDArray[np.bool_]
    obs: F32
    action: F32
    reward: F32
    alive: F32

    def __len__(self) -> int:
        return len(self.starts)

    def of(self, rows: slice) -> "Windows":
        """Some of the windows."""
        return Windows(*(x[rows] for x in vars(self).values()))

    def shortened(self, length: int) -> "Windows":
        """The same windows, of `length` ticks."""
        names = ("obs", "action", "reward", "alive")
        return replace(self, **{name: getattr(self, name)[:, :length] for name in names})


def cut(data: Sequences, length: int) -> tuple[I64, I64]:
    """`[N, 2]` first row and one past the last of N blocks, and `[N]` the part, 0 or 1, of each.

    Long segments are cut into blocks of at least four windows, which go to the parts by turns;
    short segments are a block each, and half of them goes to each part. So the parts are of one
    kind, as split conformal prediction asks for, and no window of one shares a tick with another's.
    A segment that stands alone is cut in two where each half is long enough for a window; those
    that are too short for any take no turn.
    """
    edges, parts, last = [], [], 0
    alone = int((np.diff(data.segments, axis=1) >= LEAST).sum()) == 1
    for first, end in data.segments:
        pieces = max(1, (end - first) // (4 * length))
        if alone and pieces == 1 and end - first >= 2 * LEAST:
            pieces = 2
        at = np.linspace(first, end, pieces + 1).astype(np.int64)
        edges.append(np.stack([at[:-1], at[1:]], 1))
        parts.append((np.arange(pieces) + last) % 2)
        last = (last + pieces) % 2 if end - first >= LEAST else last
    return np.concatenate(edges), np.concatenate(parts)


def draw_windows(data: Sequences, rng: np.random.Generator, count: int, longest: int) -> Windows:
    """At most `count` windows, drawn evenly over all places where one tick or more can be judged.

    Raises:
        ValueError: there is none.
    """
    edges, part = cut(data, WARM + longest)
    of_row = np.repeat(np.arange(len(edges)), np.diff(edges, axis=1)[:, 0])
    end = edges[of_row, 1]
    usable = np.flatnonzero(np.arange(len(data)) + WARM < end)
    if not len(usable):
        raise ValueError(f"no unbroken sequence of {LEAST} ticks to evaluate on: log longer runs")
    starts = np.sort(rng.permutation(usable)[:count])
    rows = starts[:, None] + np.arange(WARM + longest)
    last = end[starts][:, None] - 1
    inside, rows = rows <= last, np.minimum(rows, last)

    def known(values: F32) -> F32:
        held = inside.reshape(*inside.shape, *[1] * (values.ndim - 1))
        return np.where(held, values[rows], np.float32(np.nan))

    block = of_row[starts]
    parts = known(data.obs), data.action[rows], known(data.reward), known(data.alive)
    return Windows(starts, block, part[block] == 0, *parts)


def filtered(bundle: Bundle, obs: F32, action: F32) -> Believed:
    """The beliefs after observations `[B, T, O]` (NaN: missing) and applied actions `[B, T, A]`."""
    h = np.zeros((len(obs), bundle.hidden), np.float32)
    z = np.zeros((len(obs), bundle.latent), np.float32)
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
    dynamics: Dynamics,
    belief: Believed,
    action: F32,
    futures: int,
    rng: np.random.Generator,
    cost: Callable[[F32, F32, F32, F32], F32] | None = None,
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
    made = Imagined(*(_by_future(x, futures) for x in (out.channels, out.reward, out.alive)))
    if cost is None:
        return made
    return replace(made, cost=_by_future(cost(hidden, latent, actions, noise[1:]), futures))


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
