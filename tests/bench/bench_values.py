"""What a critic of distributions (two-hot) is worth beside one of means: values and actors.

    python -m tests.bench.bench_values --seeds 3

prints a line of JSON for each world, seed and critic. Both critics, and their actors, learn in the
imagination of one model, from one log. Then the actor acts in the world itself, and what it is told
a state is worth is held against the discounted rewards that it went on to collect.

`pendulum` is Pendulum-v1, whose rewards are of one size. `fleet` has what autoscale has: on a calm
tick a service costs hundredths, in a burst of requests as much as the calm ticks of an hour.
"""

from __future__ import annotations

import argparse
import sys
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from models.actor import ActorConfig
from models.belief import ModelConfig
from models.data import Dataset
from models.evaluation.windows import WARM
from models.heads import NumberName
from models.train import TrainConfig, Trainer
from models.trust import Trial, trial
from schemas.plain_json import json_line
from schemas.system import SystemSpec, parse_spec
from tests.bench.logs import dataset

F64 = npt.NDArray[np.float64]
CRITICS: tuple[NumberName, ...] = ("mean", "two_hot")
TICKS, AHEAD, JUDGED = 200, 120, 20
"""Ticks of an episode, how many rewards a value is held against, and episodes that are judged."""
CONFIG = TrainConfig(
    steps=400,
    actor_steps=600,
    batch=16,
    length=16,
    horizon=8,
    starts=60,
    samples=2,
    learning_rate=2e-3,
    noise_rate=10.0,
    model=ModelConfig(memory=16, free=1, units=64, members=3),
    actor=ActorConfig(
        horizon=8, discount=0.97, starts=150, go_on=0.5, learning_rate=1e-3, follow=0.1, units=64
    ),
)
TAIL = """
fallback: {kind: value, value: 0}
budget: {deadline: 20 ms, tiers: {deep: {candidates: 20, horizon: 5, iterations: 1}}}
"""
PENDULUM = f"""
system: pendulum
entity: pendulum
tick: 50 ms
sensors:
  state:
    every: 50 ms
    max_age: 1 s
    channels:
      angle: {{unit: "1", shape: [2], range: [-1, 1]}}
      speed: {{unit: rad/s, range: [-8, 8]}}
actions:
  torque: {{unit: N·m, low: -2, high: 2}}
{TAIL}"""
FLEET = f"""
system: fleet
entity: service
tick: 15 s
sensors:
  load:
    every: 15 s
    max_age: 60 s
    channels:
      requests: {{unit: 1/s, range: [0, 10000]}}
      ready: {{unit: replicas, range: [0, 1000]}}
      late_share: {{unit: "1", range: [0, 1], align: mean}}
actions:
  replicas: {{unit: replicas, low: 1, high: 200}}
reward: >-
  -0.0025 * ready - 2 * late_share
  - 0.02 * max(0, 1.1 * requests / 3 + 0.7 * sqrt(max(requests, 3) / 3) - ready)
{TAIL.replace("value: 0", "value: 1")}"""


class World(ABC):
    """E copies of a system, from which a log is made and in which an actor is judged."""

    spec: SystemSpec

    def __init__(self, entities: int, rng: np.random.Generator) -> None:
        self.entities, self.rng = entities, rng

    @abstractmethod
    def seen(self) -> F64:
        """`[E, O]` what is seen now."""

    @abstractmethod
    def step(self, action: F64) -> F64:
        """One tick under `action` `[E, A]`; its rewards `[E]`."""

    @abstractmethod
    def wander(self, last: F64) -> F64:
        """`[E, A]` what the log does next."""


class Pendulum(World):
    """Pendulum-v1, begun anywhere, under torques that are held for a while."""

    spec = parse_spec(PENDULUM)

    def __init__(self, entities: int, rng: np.random.Generator) -> None:
        super().__init__(entities, rng)
        self.angle = rng.uniform(-np.pi, np.pi, entities)
        self.speed = rng.uniform(-1.0, 1.0, entities)

    def seen(self) -> F64:
        """Cosine, sine and speed."""
        return np.stack([np.cos(self.angle), np.sin(self.angle), self.speed], -1)

    def step(self, action: F64) -> F64:
        """As Gymnasium has it."""
        torque = action[:, 0].clip(-2.0, 2.0)
        turned = (self.angle + np.pi) % (2 * np.pi) - np.pi
        reward = -(turned**2 + 0.1 * self.speed**2 + 0.001 * torque**2)
        self.speed = self.speed + 0.05 * (15.0 * np.sin(self.angle) + 3.0 * torque)
        self.speed = self.speed.clip(-8.0, 8.0)
        self.angle = self.angle + 0.05 * self.speed
        return np.asarray(reward)

    def wander(self, last: F64) -> F64:
        """Another torque with chance 0.2."""
        other = self.rng.uniform(-2.0, 2.0, last.shape)
        return np.where(self.rng.random(last.shape) < 0.2, other, last)


class Fleet(World):
    """Services whose requests drift, and now and then burst to three times as many for a while.

    Requests are late from a use of 0.8 on, all of them at 1.2; replicas asked for are there one
    tick later.
    """

    spec = parse_spec(FLEET)

    def __init__(self, entities: int, rng: np.random.Generator) -> None:
        super().__init__(entities, rng)
        self.usual = np.exp(rng.uniform(np.log(10.0), np.log(60.0), entities))
        self.burst = np.zeros(entities, dtype=bool)
        self.use = rng.uniform(0.4, 1.1, entities)  # that the log aims at
        self.requests = self.usual.copy()
        self.ready = self.usual / 3.0 / self.use

    def seen(self) -> F64:
        """Requests, replicas, and the share of the requests that is late."""
        return np.stack([self.requests, self.ready, self._late()], -1)

    def _late(self) -> F64:
        return np.clip((self.requests / (3.0 * self.ready) - 0.8) / 0.4, 0.0, 1.0)

    def step(self, action: F64) -> F64:
        """One tick of requests."""
        rng, count = self.rng, self.entities
        flips = rng.random(count) < np.where(self.burst, 0.1, 0.01)
        self.burst = self.burst ^ flips
        self.usual = np.clip(self.usual * np.exp(0.02 * rng.standard_normal(count)), 5.0, 100.0)
        noise = np.exp(0.05 * rng.standard_normal(count))
        self.requests = self.usual * np.where(self.burst, 3.0, 1.0) * noise
        self.ready = action[:, 0].clip(1.0, 200.0)
        load = self.requests / 3.0
        missing = np.maximum(0.0, 1.1 * load + 0.7 * np.sqrt(np.maximum(load, 1.0)) - self.ready)
        return -0.0025 * self.ready - 2.0 * self._late() - 0.02 * missing

    def wander(self, last: F64) -> F64:
        """Replicas for a use that is another with chance 0.05."""
        other = self.rng.uniform(0.4, 1.1, self.entities)
        self.use = np.where(self.rng.random(self.entities) < 0.05, other, self.use)
        return np.asarray((self.requests / 3.0 / self.use).clip(1.0, 200.0)[:, None])


WORLDS: dict[str, type[World]] = {"pendulum": Pendulum, "fleet": Fleet}


def log(kind: type[World], entities: int, seed: int) -> Dataset:
    """Of episodes of `TICKS`, one for each entity."""
    world = kind(entities, np.random.default_rng([seed, 1]))
    action = np.zeros((entities, len(kind.spec.action_columns)))
    rewards, rows, actions = np.full(entities, np.nan), [], []
    for _ in range(TICKS):
        rows.append((world.seen(), rewards))
        actions.append(action)
        action = world.wander(action)
        rewards = world.step(action)
    seen, reward = (np.array(part) for part in zip(*rows, strict=True))
    return dataset(kind.spec, seen, np.array(actions), reward)


def learned(trainer: Trainer, critic: NumberName) -> Trainer:
    """Actor and critic of that form, learned in the model that `trainer` has learned."""
    actor = replace(trainer.config.actor, critic=critic)
    other = Trainer(trainer.spec, trainer.dataset, replace(trainer.config, actor=actor))
    other.model.load_state_dict(trainer.model.state_dict())
    other.progress.step = trainer.config.steps
    other.run()
    return other


@torch.no_grad()
def judge(trainer: Trainer, kind: type[World], seed: int) -> dict[str, float]:
    """The actor's mean return in the world, and errors of the values on its way there.

    `calm` is the median error at the quarter of the states from which least was lost, as a share of
    what was; `rmse` is over all states, `bias` how much too high values are.
    """
    model, behaviour = trainer.model, trainer.behaviour
    world = kind(JUDGED, np.random.default_rng([seed, 2]))
    h, z = torch.zeros(JUDGED, model.hidden), torch.zeros(JUDGED, model.latent)
    action, values, rewards = torch.zeros(JUDGED, model.actions), [], []
    for _ in range(TICKS):
        obs = torch.from_numpy(world.seen()).float()
        h, z, *_ = model.believe(h, z, action, obs, torch.ones_like(obs))
        action, value = behaviour.act(model, h, z)
        values.append(value.numpy())
        rewards.append(world.step(action.numpy().astype(np.float64)))
    reward, weight = np.array(rewards), trainer.config.actor.discount ** np.arange(AHEAD)
    reached = np.array([weight @ reward[t : t + AHEAD] for t in range(TICKS - AHEAD)])
    error = (np.array(values)[: len(reached)] - reached)[WARM:].ravel()
    lost = np.abs(reached[WARM:]).ravel()
    calm = lost <= np.quantile(lost, 0.25)
    figures = {
        "return": reward.sum(0).mean(),
        "rmse": np.sqrt(np.mean(error**2)),
        "bias": error.mean(),
        "calm": np.median(np.abs(error[calm]) / lost[calm]),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def trust(trainer: Trainer) -> Trial:
    """What `rehearse train` would say of this actor."""
    data, length = trainer.dataset.train, WARM + trainer.config.actor.horizon
    starts = data.draw(np.random.default_rng([trainer.config.seed, 19]), 256, length)
    weights = torch.ones(len(data) // 64 + 1, trainer.config.model.members)
    batch = data.window(starts, length, weights)
    return trial(trainer.model, trainer.behaviour, batch, WARM, trainer.generator(-1))


def main() -> None:
    """Every world, seed and critic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--world", choices=[*WORLDS])
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--actor-steps", type=int, default=CONFIG.actor_steps)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(given.seeds):
        for name in [given.world] if given.world else WORLDS:
            config = replace(CONFIG, steps=given.steps, actor_steps=given.actor_steps, seed=seed)
            kind = WORLDS[name]
            trainer = Trainer(kind.spec, log(kind, 24, seed), config)
            while trainer.progress.step < config.steps:
                trainer.update()
            for critic in CRITICS:
                one = learned(trainer, critic)
                verdict = trust(one)
                wins = round(min(verdict.wins), 3)
                line = {"world": name, "seed": seed, "critic": critic, **judge(one, kind, seed)}
                line |= {"trusted": verdict.trusted, "wins": wins}
                sys.stdout.write(json_line(line) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
