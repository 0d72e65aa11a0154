"""A reward learned from demonstrations of Pendulum-v1: who acts on it, and does it say the truth?

    python -m tests.bench.bench_inverse --seeds 0 1 2 --shown 1 4 16

The optimum demonstrates whole episodes; a world model is learned from these and from who wanders.
Nobody is told any reward. Beside it: behaviour cloning of the same demonstrations, and chance.
All are judged from the same ten resets, by what the environment pays.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from models.actor import ActorConfig
from models.belief import ModelConfig
from models.live import LiveModel
from models.one_head import InverseConfig
from models.practice import Planned
from models.train import TrainConfig
from schemas.plain_json import json_line
from tests.bench.inverse_mass import taught
from tests.bench.inverse_world import (
    EPISODE,
    acted,
    agreement,
    chance,
    cloned,
    pendulum,
    write_log,
)
from tests.bench.pendulum_optimum import Optimum

WORLD = TrainConfig(
    steps=600,
    actor_steps=0,
    batch=32,
    length=16,
    horizon=8,
    samples=2,
    learning_rate=2e-3,
    noise_rate=10.0,
    model=ModelConfig(memory=16, free=2, units=64, members=3),
)
REWARD = replace(
    WORLD,
    steps=400,
    actor_steps=300,
    learning_rate=1e-3,
    actor=ActorConfig(horizon=10, starts=150, go_on=0.5, learning_rate=1e-3, follow=0.1),
)
WHO = ("demonstrations", "planner and actor", "actor alone", "cloning", "chance")


@dataclass(frozen=True)
class Sizes:
    """Episodes: of who wanders in the log, and of a judgement."""

    wandered: int = 8
    judged: int = 10


def run(
    seed: int,
    shown: int,
    optimum: Optimum,
    folder: Path,
    world: TrainConfig = WORLD,
    reward: TrainConfig = REWARD,
    sizes: Sizes | None = None,
    inverse: InverseConfig | None = None,
) -> dict[str, float]:
    """Mean return of each of `WHO`, and the rank correlation of learned and true reward."""
    size, spec = sizes or Sizes(), pendulum()
    resets, began = 20_011 + seed, time.perf_counter()
    demonstrated, record = acted(spec, optimum, shown, 1000 + seed)
    demos = write_log(spec, record, folder / "demonstrations")
    _, aimless = acted(spec, chance(spec, size.wandered, seed), size.wandered, 2000 + seed)
    log = write_log(spec, aimless, folder / "log")
    configs = replace(world, seed=seed), replace(reward, seed=seed)
    how = inverse or InverseConfig()
    trainer = taught(spec, [log, demos], demos, folder, configs, how)
    bundle, copy = LiveModel(trainer.model, trainer.behaviour), cloned(spec, record, seed)
    found = {"demonstrations": float(demonstrated.each.mean())}
    for name, who in (("planner and actor", "both"), ("actor alone", "actor")):
        policy = Planned(spec, bundle, size.judged, seed, who=who)  # type: ignore[arg-type]
        returns, _ = acted(spec, policy, size.judged, resets, bundle)
        found[name] = float(returns.each.mean())
    for name, other in (("cloning", copy), ("chance", chance(spec, size.judged, resets))):
        found[name] = float(acted(spec, other, size.judged, resets)[0].each.mean())
    others = (lambda: chance(spec, 4, 3000 + seed), lambda: optimum)
    found["rank correlation"] = agreement(spec, bundle, others, 3000 + seed)
    found["optimum"] = float(acted(spec, optimum, size.judged, resets)[0].each.mean())
    return {**found, "wall_s": time.perf_counter() - began}


def table(runs: dict[int, Sequence[dict[str, float]]]) -> str:
    """One row per number of demonstrations: medians over seeds, and from the least to greatest."""
    columns = ["optimum", *WHO, "rank correlation"]
    lines = [f"| demonstrations of {EPISODE} ticks | {' | '.join(columns)} |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for shown, found in runs.items():
        cells = [_cell([one[name] for one in found]) for name in columns]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    digits = 2 if max(map(abs, values)) <= 1 else 0
    middle, least, most = (f"{f(values):.{digits}f}" for f in (statistics.median, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def main() -> None:
    """All seeds and numbers of demonstrations, and the table of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--shown", nargs="*", type=int, default=[1, 4, 16], help="demonstrations")
    parser.add_argument("--steps", type=int, default=REWARD.steps, help="updates of the reward")
    parser.add_argument("--json", action="store_true", help="a line of JSON per run, no table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    optimum, reward = Optimum(), replace(REWARD, steps=given.steps)
    found: dict[int, list[dict[str, float]]] = {shown: [] for shown in given.shown}
    for seed in given.seeds:
        for shown in given.shown:
            with tempfile.TemporaryDirectory() as folder:
                one = run(seed, shown, optimum, Path(folder), reward=reward)
            found[shown].append(one)
            if given.json:
                sys.stdout.write(json_line({"seed": seed, "shown": shown, **one}) + "\n")
                sys.stdout.flush()
    if not given.json:
        print(table(found))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
