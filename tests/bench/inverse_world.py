"""Pendulum-v1 without its reward: who shows, who wanders, and what is logged of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from infra.plants.base import make_plant
from infra.plants.gym import spec_for
from models.evaluation.ranks import spearman
from models.evaluation.world import Policy, Record, World, first_executable
from models.heads import mlp
from models.live import Blind
from models.practice import Chance, Returns, judge
from planner.session import Model
from schemas.system import SystemSpec, parse_spec
from tests.bench.logs import trajectories

F64 = npt.NDArray[np.float64]
EPISODE = 200
"""Ticks of an episode of the environment."""
TIERS = {
    "shallow": {"candidates": 65, "horizon": 10, "iterations": 1},
    "deep": {"candidates": 127, "horizon": 15, "iterations": 2},
}


def pendulum() -> SystemSpec:
    """Its spec, in which nothing is said of a reward."""
    budget = {"deadline": "20 ms", "caution": 1.0, "tiers": TIERS}
    return parse_spec(spec_for("Pendulum-v1", 1, budget=budget))


def acted(
    spec: SystemSpec, policy: Policy, episodes: int, seed: int, model: Model | None = None
) -> tuple[Returns, Record]:
    """What becomes of `episodes` whole episodes, and what the environment pays for them."""
    plant = make_plant(spec, entities=episodes)
    return judge(World(spec, plant, model or Blind()), policy, EPISODE, seed)  # type: ignore[arg-type]


def write_log(spec: SystemSpec, record: Record, folder: Path) -> Path:
    """The record as the sink writes it, with no word of what was paid."""
    folder.mkdir(parents=True, exist_ok=True)
    nothing = np.full_like(record.action[:1], np.nan)
    applied = np.concatenate([nothing, record.action[: EPISODE - 1]])
    trajectories(spec, record.obs[:EPISODE], applied).write_parquet(folder / "part-0.parquet")
    return folder


def cloned(spec: SystemSpec, record: Record, seed: int, updates: int = 2000) -> Policy:
    """Behaviour cloning: a network from what was seen to what was done, by squared error.

    Two hidden layers of 64; AdamW with a weight decay of 0.001.
    """
    seen = torch.from_numpy(record.obs[:-1].reshape(-1, record.obs.shape[-1])).float()
    done = torch.from_numpy(record.action.reshape(len(seen), -1)).float()
    mean, std = seen.mean(0), seen.std(0).clamp(min=1e-6)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = mlp(seen.shape[1], 64, done.shape[1], 2)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-3)
    for _ in range(updates):
        rows = torch.randint(len(seen), (128,), generator=generator)
        loss = nn.functional.mse_loss(net((seen[rows] - mean) / std), done[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def act(world: World) -> F64:
        now = torch.from_numpy(np.nan_to_num(world.obs)).float()
        with torch.no_grad():
            wanted = net((now - mean) / std).numpy().astype(np.float64)
        return first_executable(spec, world, np.clip(wanted, spec.action_low, spec.action_high))

    return act


def agreement(
    spec: SystemSpec, bundle: Model, policies: tuple[Callable[[], Policy], ...], seed: int
) -> float:
    """Rank correlation of the learned reward and the true one, over states that others come to."""
    learned, true = [], []
    for policy in policies:
        _, record = acted(spec, policy(), 4, seed, bundle)
        for t in range(1, EPISODE - 1, 4):
            wide = (bundle.members, record.h.shape[1])
            h, z = (np.broadcast_to(x[t], (*wide, x.shape[-1])) for x in (record.h, record.mean))
            action = np.broadcast_to(record.action[t].astype(np.float32), (1, *wide, 1))
            noise = np.zeros((1, *wide, bundle.latent), np.float32)
            parts = (np.ascontiguousarray(x) for x in (h, z, action, noise))
            learned.append(bundle.imagine(*parts).reward[0].mean(0))
            true.append(record.reward[t])
    return spearman(np.concatenate(learned).astype(np.float64), np.concatenate(true))


def chance(spec: SystemSpec, episodes: int, seed: int) -> Policy:
    """Who wanders over the whole range of torques."""
    return Chance(spec, episodes, EPISODE, seed)
