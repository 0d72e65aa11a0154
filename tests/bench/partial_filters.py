"""What is believed of robots of which only some positions are read, by four kinds of filter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.data import Batch
from models.dynamics import Memory
from models.evaluation.kalman import Filtered, kalman_filter, nav2d_positions
from models.losses import Trace, observe
from models.train import TrainConfig, Trainer
from schemas.system import SystemSpec
from tests.bench.logs import dataset
from tests.bench.partial_world import Log, plant

F64 = npt.NDArray[np.float64]
RIDGE = 1e-4
"""Penalty of a read-out, as a share of the variance of its inputs."""


@dataclass(frozen=True)
class Belief:
    """What is believed at T ticks of E robots.

    Attributes:
        position: `[T, E, 2]`, m;  std: `[T, E, 2]` its standard deviation, or nothing.
        velocity: `[T, E, 2]`, m/s, by the filter's own account.
        read_out: `[T, E, 2]`, m/s, by a linear read-out that was shown true velocities, or nothing.
    """

    position: F64
    velocity: F64
    std: F64 | None = None
    read_out: F64 | None = None


# what knows the dynamics, and what knows nothing


def kalman(spec: SystemSpec, log: Log, noise: float) -> Filtered:
    """The filter that knows nav2d; before the first reading it knows what the logs spread over."""
    state = log.truth.reshape(-1, 4)
    robots = log.truth.shape[1]
    mean = np.tile(state.mean(0), (robots, 1))
    covariance = np.tile(np.cov(state.T), (robots, 1, 1))
    known = nav2d_positions(plant(spec, robots, noise))
    return kalman_filter(known, mean, covariance, log.applied, log.seen)


def held(log: Log, period_s: float) -> Belief:
    """The last reading, and how fast it came there from the one before."""
    ticks, robots, _ = log.seen.shape
    last, velocity = np.zeros((robots, 2)), np.zeros((robots, 2))
    since, read = np.zeros(robots), np.zeros(robots, dtype=bool)
    position, speed = np.empty_like(log.seen), np.empty_like(log.seen)
    for t in range(ticks):
        here, since = ~log.lost[t], since + period_s
        moved = (log.seen[t] - last) / since[:, None]
        velocity = np.where((here & read)[:, None], moved, velocity)
        last = np.where(here[:, None], log.seen[t], last)
        since, read = np.where(here, 0.0, since), read | here
        position[t], speed[t] = last, velocity
    return Belief(position, speed)


# what learns


class NoMemory(Memory):
    """A memory that stays empty."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, memory: Tensor, inputs: Tensor) -> Tensor:
        """`[N, G]` zeros."""
        return torch.zeros_like(memory)


def learn(spec: SystemSpec, log: Log, config: TrainConfig, memory: bool) -> Trainer:
    """A world model of what was read in a log, with its memory or without.

    Without, it has no recurrent units and no free latents: all that goes from tick to tick is what
    a position may be, which it predicts from the last one and the action. So where a position is
    lost it still has its last prediction; but how fast a robot is has no place in it.
    """
    if not memory:
        config = replace(config, model=replace(config.model, free=0))
    trainer = Trainer(spec, dataset(spec, log.seen, log.applied), config)
    if not memory:
        trainer.model.memory = NoMemory()
    trainer.run()
    return trainer


class Read:
    """Reads beliefs of a trained model, in the same way with memory and without.

    Velocities are read in two ways. What the model itself says: how far it expects a robot to move
    within the next tick if nobody pushes, which nobody showed it. And by ridge regression from
    memory and latent to true velocities of the log that it was trained on: whether they are there
    at all, though the model may make no use of them.
    """

    def __init__(self, trainer: Trainer, log: Log, warm: int) -> None:
        self.model, self.period_s = trainer.model, trainer.spec.period_us / 1e6
        inside = self._inside(self._observe(log))[warm:].reshape(-1, self._width)
        truth = log.truth[warm:, :, 2:].reshape(-1, 2)
        self._centre, self._shift = inside.mean(0), truth.mean(0)
        away = inside - self._centre
        spread = away.T @ away
        penalty = RIDGE * np.diag(np.diag(spread)) + 1e-9 * np.eye(len(spread))
        self._weights = np.linalg.solve(spread + penalty, away.T @ (truth - self._shift))

    @property
    def _width(self) -> int:
        return self.model.config.memory + self.model.latent

    def __call__(self, log: Log) -> Belief:
        """The beliefs of a log, from fresh ones on."""
        trace = self._observe(log)
        mean, std = trace.stack("mean")[..., :2], trace.stack("std")[..., :2]
        scaler = self.model.direct_scaler
        position = scaler.inverse(mean)
        velocity = (self._coasting(trace) - position) / self.period_s
        read = (self._inside(trace) - self._centre) @ self._weights + self._shift
        return Belief(_f64(position), _f64(velocity), _f64(scaler.spread(mean, std)), read)

    @torch.no_grad()
    def _observe(self, log: Log) -> Trace:
        batch = whole_batch(log)
        return observe(self.model, batch, batch.mask)

    def _inside(self, trace: Trace) -> F64:
        return np.concatenate([_f64(trace.memory()), _f64(trace.stack("mean"))], -1)

    @torch.no_grad()
    def _coasting(self, trace: Trace) -> Tensor:
        """`[T, E, 2]` positions expected at the next tick without a push, m."""
        rows = []
        for tick in trace.ticks:
            rest = self.model.action_scaler(torch.zeros_like(tick.hidden.action))
            rows.append(self.model.prior(tick.hidden, tick.mean, rest)[1].mean[:, :2])
        return self.model.direct_scaler.inverse(torch.stack(rows))


def _f64(values: Tensor) -> F64:
    return values.numpy().astype(np.float64)


def whole_batch(log: Log) -> Batch:
    """A whole log as one batch, robot by robot."""
    seen = torch.from_numpy(log.seen.swapaxes(0, 1).astype(np.float32))
    action = torch.from_numpy(log.applied.swapaxes(0, 1).astype(np.float32))
    there = torch.isfinite(seen)
    whole = torch.ones(seen.shape[:2])
    none = torch.zeros_like(whole)
    return Batch(
        obs=torch.where(there, seen, 0.0),
        mask=there.float(),
        action=action,
        reward=none,
        alive=whole,
        valid=whole,
        weight=whole[..., None],
        reached=torch.full_like(whole, torch.nan),
    )
