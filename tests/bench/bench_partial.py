"""Partial observability: velocities hidden, two of five positions lost; who still knows where?

    python -m tests.bench.bench_partial --seeds 0 1 2

Beliefs of robots that nobody trained on, held against the simulator's own state: of the world
model, of one without memory, of the Kalman filter that knows the dynamics and all noise, and of
who holds the last reading. nav2d is linear and Gaussian here, so the Kalman filter cannot be beaten
but by chance. Errors are along an axis.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from infra.plants.nav2d import Nav2dOptions
from models.actor import ActorConfig
from models.belief import ModelConfig
from models.evaluation.kalman import Filtered
from models.train import TrainConfig
from schemas.plain_json import json_line
from tests.bench.partial_filters import Belief, Read, held, kalman, learn
from tests.bench.partial_report import write_report
from tests.bench.partial_scores import Scores, scores, table
from tests.bench.partial_world import DROPOUT, Log, log, partial_spec

WARM = 20
"""Ticks that every filter has to find its way in before it is judged."""
KALMAN, OURS, BLIND, HELD = "Kalman filter", "world model", "without memory", "last reading"
CONFIG = TrainConfig(
    steps=600,
    actor_steps=0,
    batch=48,
    length=24,
    horizon=4,
    starts=60,
    samples=2,
    noise_rate=10.0,
    model=ModelConfig(memory=32, free=4, units=64, members=3, corrects=True),
    actor=ActorConfig(units=8),
)


@dataclass(frozen=True)
class Sizes:
    """Robots and ticks of what is trained on, and of what is judged on."""

    robots: int = 200
    ticks: int = 100
    other_robots: int = 50
    other_ticks: int = 120


@dataclass(frozen=True)
class Run:
    """What came of one seed: the log that was held out, and what each filter made of it."""

    other: Log
    beliefs: dict[str, Belief]
    known: Filtered

    def scores(self) -> dict[str, Scores]:
        """Of every filter."""
        found = {name: scores(belief, self.other, WARM) for name, belief in self.beliefs.items()}
        found[KALMAN]["nees"] = float(self.known.nees(self.other.truth)[WARM:].mean())
        return found


def run(seed: int, noise: float, config: TrainConfig = CONFIG, sizes: Sizes | None = None) -> Run:
    """Trains both models and filters what they have not seen; `noise` of a position read, m."""
    size, spec = sizes or Sizes(), partial_spec()
    few = log(spec, size.robots, size.ticks, noise, 2 * seed)
    other = log(spec, size.other_robots, size.other_ticks, noise, 2 * seed + 1)
    known = kalman(spec, other, noise)
    beliefs = {
        KALMAN: Belief(known.mean[..., :2], known.mean[..., 2:], known.std()[..., :2]),
        HELD: held(other, spec.period_us / 1e6),
    }
    for name, memory in ((OURS, True), (BLIND, False)):
        trainer = learn(spec, few, replace(config, seed=seed), memory)
        beliefs[name] = Read(trainer, few, WARM)(other)
    return Run(other, {name: beliefs[name] for name in (KALMAN, OURS, BLIND, HELD)}, known)


def main() -> None:
    """All seeds, and the table of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=CONFIG.steps, help="updates of each model")
    parser.add_argument(
        "--noise", type=float, default=Nav2dOptions().position_noise, help="of a position read, m"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON per seed, no table")
    parser.add_argument("--report", type=Path, help="a page with a picture of one robot")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config, found = replace(CONFIG, steps=given.steps), []
    for seed in given.seeds:
        made = run(seed, given.noise, config)
        found.append(made.scores())
        facts = {"seed": seed, "steps": given.steps, "noise": given.noise, "dropout": DROPOUT}
        if given.json:
            sys.stdout.write(json_line({**facts, "filters": found[-1]}) + "\n")
            sys.stdout.flush()
        if given.report and seed == given.seeds[0]:
            write_report(given.report, made.other, made.beliefs, found[0], facts, WARM)
    if not given.json:
        print(table(found))


if __name__ == "__main__":
    main()
