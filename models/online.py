"""Learning by doing: act, remember, learn, and again; resumable, and the same for the same seed.

A round is an episode in every environment, begun by a reset with a seed of its own. Between two
rounds nothing but this file's state is alive, so a checkpoint there is exact.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from infra.plants.base import Plant
from models.checkpoint import CheckpointError, settings_of, write_state
from models.compute import Compute
from models.data import Dataset, Sequences, scales_of
from models.evaluation.world import Policy, World, watch
from models.live import Blind, LiveModel
from models.practice import Chance, Planned, Returns, Who, judge, wandering
from models.replay import Mix, Replay
from models.rescale import convertible, outgrown, rescale, stretched, widened
from models.train import TrainConfig, Trainer
from models.transforms import ColumnScale
from planner.session import Model
from schemas.spec_parts import Tier
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
JUDGED = 20_011
"""Seed of the fixed resets from which all are judged, plus the run's own."""


@dataclass(frozen=True)
class LoopConfig:
    """How acting and learning take turns.

    Attributes:
        steps: decisions in all, over all environments, those of chance included.
        ticks: decisions of an episode while practising, which is a round.
        random: rounds that are left to chance.
        first_updates: of model and actor before the first planned round.
        updates: of model and actor per decision after it.
        last_updates: of both after the last round, beside those that are due: no decision is left
            to wait for, and what was lived through has more to teach.
        noise: of exploring actions, in halves of their range.
        curiosity: see `LiveModel`, in standard deviations of the rewards met so far (1 where all
            were alike); it falls to 0 at the share `curious_until` of the steps.
        tier: how much is planned while practising.
        judge_every: decisions between two judgements, for the learning curve; 0: none but the last.
        capacity: rows of experience that are kept; mix: how they are drawn.
    """

    steps: int = 20_000
    ticks: int = 500
    random: int = 2
    first_updates: int = 600
    updates: float = 0.25
    last_updates: int = 0
    noise: float = 0.3
    curiosity: float = 0.0
    curious_until: float = 0.6
    tier: Tier = field(default_factory=lambda: Tier(candidates=255, horizon=15, iterations=2))
    judge_every: int = 0
    capacity: int = 200_000
    mix: Mix = field(default_factory=Mix)

    def updates_in_all(self, envs: int) -> int:
        """Updates of the model over the whole run, but for those of models that are begun anew."""
        learned = max(0, self.steps - self.random * self.ticks * envs)
        return self.first_updates + round(self.updates * learned) + self.last_updates


@dataclass
class Course:
    """What happened so far.

    Attributes:
        steps, rounds: decisions and rounds done;  updates: of the model that is learning now.
        curve: per judgement the steps, and per policy the mean return.
        rounds_returned: per round the steps and the mean return while practising.
        widened: steps at which what was lived through had outgrown the model's scales.
        restarts: steps at which the model was begun anew, as its scales could not be widened.
    """

    steps: int = 0
    rounds: int = 0
    updates: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    rounds_returned: list[tuple[int, float]] = field(default_factory=list)
    widened: list[int] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)


class Online:
    """Learns one system from a plant.

    Args:
        spec: the system;  plant: what is acted on;  judged: another one, for judgements.
        loop, config: how. `config.steps` and `actor_steps` follow from `loop`.
        judged_ticks: decisions of a judged episode; None: as many as of a practised one.
    """

    def __init__(
        self,
        spec: SystemSpec,
        plant: Plant,
        judged: Plant,
        loop: LoopConfig,
        config: TrainConfig,
        compute: Compute | None = None,
        judged_ticks: int | None = None,
    ) -> None:
        self.judged_ticks = judged_ticks or loop.ticks
        tiers = {"tiers": {"practice": loop.tier}}
        self.spec = spec.model_copy(update={"budget": spec.budget.model_copy(update=tiers)})
        # Practice is bold: only what is tried is learned of.
        bold = spec.budget.model_copy(update={**tiers, "caution": 0.0})
        self._bold = spec.model_copy(update={"budget": bold})
        self.plant, self.judged, self.loop = plant, judged, loop
        self.compute = compute or Compute()
        count = loop.updates_in_all(len(plant.entities))
        self.config = replace(config, steps=count, actor_steps=count)
        self.replay = Replay(loop.capacity, loop.mix)
        self.course = Course()
        self.trainer: Trainer | None = None

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.course.steps >= self.loop.steps

    def run(
        self,
        checkpoint: Path | None = None,
        report: Callable[[Course, str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Course:
        """Goes on to the end, or until `stop`; a checkpoint follows every round."""
        while not self.done and not (stop and stop.is_set()):
            if not self.round(report, stop):
                break
            if checkpoint:
                self.save(checkpoint)
        return self.course

    def round(
        self,
        report: Callable[[Course, str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Learns from what there is, then acts for an episode; False: stopped on the way."""
        course, say = self.course, report or (lambda course, text: None)
        if course.rounds < self.loop.random:
            return self._act(say, stop)
        if not (self._learn_on(self._prepare(), say, stop) and self._act(say, stop)):
            return False
        every = self.loop.judge_every
        if every and course.steps // every > (course.steps - self._round_steps) // every:
            say(course, "judging")
            self._judge()
        return True

    @property
    def _round_steps(self) -> int:
        return self.loop.ticks * len(self.plant.entities)

    def finish(
        self,
        report: Callable[[Course, str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Learns from the last round as well, and once more from all; False: stopped on the way."""
        due = self._prepare() + self.loop.last_updates
        return self._learn_on(due, report or (lambda course, text: None), stop)

    # learning

    def _prepare(self) -> int:
        """Has a trainer ready for all that is remembered; the updates that are due."""
        data = self.replay.sequences(self.config.actor.discount)
        columns, actions = scales_of(self.spec, data)
        updates = round(self.loop.updates * self._round_steps)
        if self.trainer is None or not convertible(self.trainer.dataset.columns, columns):
            if self.trainer is not None:
                self.course.restarts.append(self.course.steps)
            updates = max(updates, self.loop.first_updates, self.course.updates // 2)
            self._begin(data, columns, actions)
        elif outgrown(self.trainer.dataset.columns, columns):
            self.course.widened.append(self.course.steps)
            self._widen(data, columns)
        trainer = self.trainer
        assert trainer is not None
        reached = stretched(trainer.dataset.columns, columns)
        trainer.dataset = replace(trainer.dataset, columns=reached)
        trainer.model.stretch(reached)
        trainer.go_on_with(data, self.replay.chances())
        trainer.calibrate()
        return updates

    def _begin(
        self, data: Sequences, columns: Sequence[ColumnScale], actions: Sequence[ColumnScale]
    ) -> None:
        dataset = Dataset(data, data, tuple(columns), tuple(actions), ())
        self.trainer = Trainer(self.spec, dataset, self.config, self.compute)
        self.course.updates = 0

    def _widen(self, data: Sequences, columns: Sequence[ColumnScale]) -> None:
        """Goes on with wider scales and the same networks."""
        old, updates = self.trainer, self.course.updates
        assert old is not None
        before = old.dataset.columns
        self._begin(data, widened(before, columns), old.dataset.actions)
        self.course.updates = updates
        assert self.trainer is not None
        self.trainer.take_over(old)
        rescale(self.trainer.model, self.trainer.behaviour, before, self.trainer.dataset.columns)

    def _learn_on(
        self, due: int, say: Callable[[Course, str], None], stop: threading.Event | None
    ) -> bool:
        """So many updates; False: stopped on the way."""
        for i in range(due):
            if stop and stop.is_set():
                return False
            losses = self._learn()
            if i % 20 == 0:
                say(self.course, f"learning {i:,}/{due:,}  predict {losses['predict']:.3g}")
        return True

    def _learn(self) -> dict[str, float]:
        """One update of the model, and one of the actor."""
        trainer, course = self.trainer, self.course
        assert trainer is not None
        last = self.config.steps - 1
        losses = trainer.learn_model(min(course.updates, last))
        losses |= trainer.learn_actor(self.config.steps + min(course.updates, last))
        course.updates += 1
        return losses

    # acting

    def _act(self, say: Callable[[Course, str], None], stop: threading.Event | None) -> bool:
        """An episode in every environment, from a reset of its own; False: stopped on the way."""
        course, envs = self.course, len(self.plant.entities)
        say(course, "acting")
        seed = self.config.seed * 1_000_003 + course.rounds
        if self.trainer is None:
            world = World(self.spec, self.plant, cast(Model, Blind()))  # nothing else is asked
            policy: Any = Chance(self.spec, envs, self.loop.ticks, seed)
        else:
            model = self.live(self._curiosity())
            world = World(self.spec, self.plant, model)
            noise = self.loop.noise * wandering(self.spec, envs, self.loop.ticks, seed)
            policy = Planned(self._bold, model, envs, seed, noise=noise)
        world.reset(seed)
        try:
            record = watch(world, _unless(stop, policy), self.loop.ticks)
        except _StoppedError:
            return False
        self.replay.add(self.spec, record)
        course.steps += self._round_steps
        course.rounds += 1
        course.rounds_returned.append((course.steps, float(record.reward.sum(0).mean())))
        return True

    def _curiosity(self) -> float:
        """What curiosity is paid: of the rewards' spread as far as it is known, less and less."""
        reward = self.replay.sequences().reward
        spread = float(np.nanstd(reward)) or 1.0
        left = 1.0 - self.course.steps / (self.loop.curious_until * self.loop.steps)
        return self.loop.curiosity * spread * max(0.0, left)

    def live(self, curiosity: float = 0.0) -> LiveModel:
        """The model as it is now, for a planner."""
        assert self.trainer is not None
        model, behaviour = self.trainer.model, self.trainer.behaviour
        return LiveModel(model, behaviour, curiosity=curiosity)

    def _judge(self) -> None:
        returns = {who: self.judge(who).as_dict()["mean"] for who in ("actor", "both")}
        self.course.curve.append({"steps": self.course.steps, **returns})

    def judge(self, who: Who) -> Returns:
        """What a policy reaches now, from the fixed resets."""
        model, seed = self.live(), self.config.seed + JUDGED
        world = World(self.spec, self.judged, model)
        policy = Planned(self.spec, model, len(self.judged.entities), seed, who=who)
        return judge(world, policy, self.judged_ticks, seed)[0]

    # checkpoints

    def fingerprint(self) -> str:
        """Changes with all that a checkpoint must agree on."""
        settings = settings_of(self.config), asdict(replace(self.loop, tier=None))  # type: ignore[arg-type]
        tier = self.loop.tier.model_dump()
        kind: list[Any] = [self.plant.version, len(self.plant.entities), len(self.judged.entities)]
        kind += [drawn] if (drawn := self.spec.plant and self.spec.plant.randomise) else []
        content = [*settings, tier, kind, self.spec.interface_hash, self.spec.objective_hash]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Writes a checkpoint; a kill at any moment leaves the old one or the new one."""
        trainer = self.trainer
        state: dict[str, Any] = {
            "fingerprint": self.fingerprint(),
            "course": asdict(self.course),
            "replay": [
                {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in e.items()}
                for e in self.replay.state()
            ],
            "trainer": None,
        }
        if trainer is not None:
            state["trainer"] = trainer.state()
            state["columns"] = [c.as_dict() for c in trainer.dataset.columns]
            state["actions"] = [c.as_dict() for c in trainer.dataset.actions]
        write_state(path, state)

    def load(self, path: Path) -> None:
        """Takes up a checkpoint. Raises `CheckpointError` when it belongs to other settings."""
        state = torch.load(path, map_location=self.compute.device, weights_only=True)
        if state["fingerprint"] != self.fingerprint():
            raise CheckpointError(
                f"{path}: made with other settings, spec or environment: repeat the command that "
                "made it, or remove the file to begin anew"
            )
        self.replay.restore(
            [
                {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in e.items()}
                for e in state["replay"]
            ]
        )
        self.course = Course(**state["course"])
        updates = self.course.updates
        if state["trainer"] is not None:
            columns, actions = (
                tuple(ColumnScale(**c) for c in state[name]) for name in ("columns", "actions")
            )
            self._begin(self.replay.sequences(self.config.actor.discount), columns, actions)
            self.course.updates = updates
            assert self.trainer is not None
            self.trainer.take_up(state["trainer"])


class _StoppedError(Exception):
    """An episode that is not brought to its end."""


def _unless(stop: threading.Event | None, policy: Policy) -> Policy:
    """The policy, until `stop`."""

    def act(world: World) -> F64:
        if stop is not None and stop.is_set():
            raise _StoppedError
        return policy(world)

    return act
