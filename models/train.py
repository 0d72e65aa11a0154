"""The training loop: sequences in, model and actor out; resumable and reproducible."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.actor import ActorConfig, Behaviour, State
from models.belief import ModelConfig, WorldModel
from models.checkpoint import CheckpointError, settings_of, write_state
from models.compute import Compute, Swift
from models.costs import check as check_costs
from models.costs import cost_loss
from models.data import Batch, Dataset, Sequences, sensor_columns
from models.descent import adam, groups, schedule
from models.losses import (
    Trace,
    Weights,
    filtering_losses,
    hide,
    imagination_losses,
    lived,
    loss_weights,
    observe,
)
from models.physics import load_physics
from models.share import ALONE, Part, Share
from schemas.system import SystemSpec

SCALES = {"alive": 1.0, "reward": 1.0, "kl": 0.1, "imagine": 3.0, "imagine_share": 3.0}
"""Weights of the losses that do not count once."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome besides the spec and the data.

    Attributes:
        steps: updates of the world model; actor_steps: of the actor and critic after it.
        batch, length: windows per update, ticks per window.
        horizon: ticks of imagination that are scored; about what the planner looks ahead.
        starts, samples: imagined futures per update: places, and futures of each.
        noise_rate: how many times as fast the few numbers that say how noisy sensors are, and how
            much of a belief's spread stays, are learned; short trainings need it.
        checkpoint_every: updates between checkpoints.
        physics: `module:function` of known dynamics, or nothing (see `models.physics`).
    """

    steps: int = 3000
    actor_steps: int = 3000
    seed: int = 0
    batch: int = 32
    length: int = 32
    horizon: int = 12
    starts: int = 120
    samples: int = 3
    learning_rate: float = 3e-3
    clip: float = 10.0
    noise_rate: float = 1.0
    checkpoint_every: int = 250
    physics: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)

    @property
    def total(self) -> int:
        """Updates of both kinds."""
        return self.steps + self.actor_steps


@dataclass
class Progress:
    """What happened so far: losses per update, for curves and the report."""

    step: int = 0
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0

    def note(self, losses: dict[str, float]) -> None:
        """Adds the losses of the current step."""
        for name, value in losses.items():
            self.curves.setdefault(name, []).append((self.step, value))


class Trainer:
    """Trains one world model, then its actor. Every random draw depends on (seed, step) alone,
    so a run that was killed and resumed ends with the same weights as one that was not.
    """

    def __init__(
        self,
        spec: SystemSpec,
        dataset: Dataset,
        config: TrainConfig,
        compute: Compute | None = None,
        share: Share = ALONE,
    ) -> None:
        """Raises `ValueError` where settings do not go with each other, or with the data."""
        self.spec, self.dataset, self.config, self.share = spec, dataset, config, share
        self.compute = compute or Compute()
        self.device = torch.device(self.compute.device)
        check_costs(spec, config.model)
        share.check(config.batch, "sequence.batch", "windows")
        if config.physics and self.compute.precision != "float32":
            raise ValueError("run.precision: known dynamics are computed in float32; leave it out")
        known = load_physics(config.physics, spec, dataset) if config.physics else None
        parts = dataset.columns, dataset.actions, config.model, sensor_columns(spec), known
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = WorldModel(*parts)
            self.behaviour = Behaviour(spec, self.model, config.actor)
        self.calibrate()
        self.bootstrap = dataset.bootstrap(config.model.members, config.seed)
        self.weights = self._loss_weights()
        self.model.to(self.device)
        self.behaviour.to(self.device)
        ticks = [(self.model, "update"), (self.model, "imagine"), (self.model, "decode")]
        self._swift = Swift(*ticks) if self.compute.compiled else None
        self.optimizers = {
            "model": adam(groups(self.model, config.noise_rate), config.learning_rate),
            "actor": adam(self.behaviour.actor.parameters(), config.actor.learning_rate),
            "critic": adam(self.behaviour.critic.parameters(), config.actor.learning_rate),
        }
        if (cost := self.model.heads.cost) is not None:
            self.optimizers["cost"] = adam(cost.parameters(), config.learning_rate)
        self.progress = Progress()
        self.chances: npt.NDArray[np.float64] | None = None  # cumulated; None: all rows alike
        self.ends: State | None = None  # of the last imagined futures

    def calibrate(self) -> None:
        """Sets the units of rewards and values by those of the data; what was learned stays."""
        self.behaviour.calibrate(torch.from_numpy(self.dataset.train.reward))
        self.calibrate_reward()

    def calibrate_reward(self) -> None:
        """Those of the reward head alone."""
        reward = torch.from_numpy(self.dataset.train.reward)
        known = reward[torch.isfinite(reward)]
        if len(known) > 1:
            spread = float(known.std())
            self.model.heads.reward.rescale(float(known.mean()), spread if spread > 0 else 1.0)

    def _loss_weights(self) -> Weights:
        rng = np.random.default_rng([self.config.seed, 11])
        starts = self.dataset.train.draw(rng, 512, self.config.length)
        batch = self.dataset.train.window(starts, self.config.length, self.bootstrap)
        weights = loss_weights(self.model, batch, self.config.horizon)
        return Weights(*(weight.to(self.device) for weight in weights))

    def go_on_with(self, data: Sequences, chances: npt.NDArray[np.float64]) -> None:
        """Learns from other data from now on, each row being drawn with its chance `[R]`."""
        self.dataset = replace(self.dataset, train=data)
        self.bootstrap = self.dataset.bootstrap(self.config.model.members, self.config.seed)
        self.chances = np.cumsum(chances)

    def batch(self, step: int) -> Batch:
        """The windows of an update."""
        rng = np.random.default_rng([self.config.seed, step, 13])
        data, count = self.dataset.train, self.config.batch
        starts = data.draw(rng, count, self.config.length, self.chances)
        batch = self.dataset.train.window(starts, self.config.length, self.bootstrap)
        return batch.to(self.device)

    def generator(self, step: int) -> torch.Generator:
        """The noise of an update; drawn on the CPU, so that it is the same for every device."""
        return torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)

    @property
    def windows(self) -> Part:
        """Which windows of an update are this process's."""
        return self.share.part(self.config.batch)

    def filtered(self, step: int, generator: torch.Generator) -> tuple[Batch, Batch, Trace]:
        """The windows of an update, this process's, and beliefs along these, some of it hidden."""
        batch = self.batch(step)
        own, mask = batch.rows(self.windows), hide(batch.mask, generator)
        return batch, own, observe(self.model, own, self.windows.of(mask))

    def noise(self, generator: torch.Generator) -> Tensor:
        """`[L, B, Z]` standard normal, for what sensors did not show in this process's windows."""
        shape = self.config.length, self.config.batch, self.model.latent
        return self.windows.of(torch.randn(shape, generator=generator), 1).to(self.device)

    def update(self) -> dict[str, float]:
        """One update of the model, or of the actor once the model is done."""
        step = self.progress.step
        learn = self.learn_model if step < self.config.steps else self.learn_actor
        losses = learn(step)
        self.progress.step += 1
        self.progress.note(losses)
        return losses

    def learn_model(self, step: int) -> dict[str, float]:
        """Update `step` of the world model."""
        config, generator = self.config, self.generator(step)
        with self.computed():
            batch, own, trace = self.filtered(step, generator)
            noise, share = self.noise(generator), self.share
            losses = filtering_losses(self.model, own, trace, self.weights, noise, share)
            losses |= imagination_losses(
                self.model,
                batch,
                share.whole(trace.states(), self.windows, 1),
                self.weights,
                generator,
                share=share,
                starts=config.starts,
                samples=config.samples,
                horizon=config.horizon,
            )
            head = self.model.heads.cost
            cost = None
            if head is not None:
                cost = cost_loss(self.spec, self.model, own, trace, noise, share)
        if self.spec.reward is not None:
            losses.pop("reward")  # the expression is the reward
        total = torch.stack([SCALES.get(k, 1.0) * v for k, v in losses.items()]).sum()
        if cost is not None:
            losses["cost"] = cost
            self.descend("cost", cost, step, config.steps)
        self.descend("model", total, step, config.steps)
        return self.told(losses)

    @contextmanager
    def computed(self) -> Iterator[None]:
        """Within it, losses are computed as `compute` says; their gradients, after it."""
        with self.compute.products(), self._swift.instead() if self._swift else nullcontext():
            yield

    def learn_actor(self, step: int) -> dict[str, float]:
        """Update `step` of actor and critic; their steps go on from the model's."""
        losses = self.behave(step)
        first, count = self.config.steps, self.config.actor_steps
        for name in ("actor", "critic"):
            self.descend(name, losses[name], step - first, count)
        self.behaviour.follow()
        return self.told(losses)

    def told(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """The losses of all rows, of the parts that this process's rows are of them."""
        values = self.share.total(torch.stack([value.detach() for value in losses.values()]))
        return dict(zip(losses, values.tolist(), strict=True))

    def behave(self, step: int) -> dict[str, Tensor]:
        """Losses of actor and critic in futures that update `step` imagines."""
        config, generator = self.config, self.generator(step)
        self.model.requires_grad_(False)
        with self.computed():
            with torch.no_grad():
                batch, own, trace = self.filtered(step, generator)
                memory, mean, _ = self.share.whole(trace.states(), self.windows, 1)
                state = self._starts(batch, memory, mean, generator)
                state = self._continued(state, generator)
                members = config.model.members
                self.share.check(len(state[0]) // members, "actor_critic.starts", "for each member")
                part = self.share.part(len(state[0]), members)
                action, memory, latent = (part.of(x) for x in state)
            losses, ends, alive = self.behaviour.losses(
                self.model, action, memory, latent, generator, part
            )
            losses = {name: loss * part.share for name, loss in losses.items()}
            if config.actor.imitation:
                like = self.behaviour.imitation(self.model, *lived(self.model, own, trace))
                share = self.windows.share
                losses = {name: loss + share * like[name] for name, loss in losses.items()}
        *reached, alive = self.share.whole([*ends, alive[:, None]], part, 0)
        action, memory, latent = (x[alive[:, 0] > 0.5] for x in reached)
        self.ends = action, memory, latent
        self.model.requires_grad_(True)
        return losses

    def _starts(
        self, batch: Batch, memory: Tensor, mean: Tensor, generator: torch.Generator
    ) -> State:
        """Beliefs to imagine from: last action, memory, latent, a multiple of M of them."""
        places = torch.nonzero(batch.valid[:, 1:].T > 0)
        places = places[torch.randperm(len(places), generator=generator)]
        members = self.config.model.members
        count = min(self.config.actor.starts, len(places)) // members * members
        t, b = places[:count, 0] + 1, places[:count, 1]
        action = self.model.action_scaler(batch.action)[b, t]
        return action, memory[t, b], mean[t, b]

    def _continued(self, fresh: State, generator: torch.Generator) -> State:
        """`fresh` starts, a share of them replaced by where the last futures ended."""
        if self.ends is None or not len(self.ends[0]):
            return fresh
        count = len(fresh[0])
        going_on = torch.rand(count, 1, generator=generator) < self.config.actor.go_on
        chosen = torch.randint(len(self.ends[0]), (count,), generator=generator)
        going_on, chosen = going_on.to(self.device), chosen.to(self.device)
        pairs = zip(self.ends, fresh, strict=True)
        action, memory, latent = (torch.where(going_on, old[chosen], new) for old, new in pairs)
        return action, memory, latent

    def descend(
        self,
        name: str,
        loss: Tensor,
        step: int,
        count: int,
    ) -> None:
        """One update of what optimizer `name` holds, the `step`th of `count`, down `loss`."""
        optimizer = self.optimizers[name]
        acting = name in ("actor", "critic")
        base = self.config.actor.learning_rate if acting else self.config.learning_rate
        for group in optimizer.param_groups:
            group["lr"] = base * group.get("rate", 1.0) * schedule(step, count)
        kept = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=kept)  # type: ignore[no-untyped-call]
        self.share.add_gradients(kept)
        torch.nn.utils.clip_grad_norm_(kept, self.config.clip)
        optimizer.step()

    # checkpoints

    def fingerprint(self) -> str:
        """Changes with all that a checkpoint must agree on: settings, spec, data."""
        settings = settings_of(self.config)
        settings.pop("checkpoint_every")
        content: list[Any] = [settings, self.spec.interface_hash, self.spec.objective_hash]
        content += [self.compute.precision] if self.compute.precision != "float32" else []
        content += [self.model.physics.digest] if self.model.physics else []
        content += ["heads apart"] if self.model.shares else []  # one network, before
        content += [list(self.dataset.sources), [c.as_dict() for c in self.dataset.columns]]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]

    def state(self) -> dict[str, Any]:
        """All that learning goes on from, but for the data."""
        return {
            "model": self.model.state_dict(),
            "behaviour": self.behaviour.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "progress": asdict(self.progress),
            "ends": self.ends,
            "weights": tuple(self.weights),
        }

    def take_up(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.model.load_state_dict(state["model"])
        self.model.set_units()
        self.behaviour.load_state_dict(state["behaviour"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.progress = Progress(**state["progress"])
        self.ends = state["ends"]
        self.weights = Weights(*state["weights"])

    def take_over(self, other: Trainer) -> None:
        """What another one has learned for other scales; weights of losses are of one's own."""
        own = {"ends": None, "weights": tuple(self.weights)}
        self.take_up({**copy.deepcopy(other.state()), **own})

    def save(self, path: Path) -> None:
        """Writes a checkpoint; a kill at any moment leaves the old one or the new one."""
        write_state(path, {"fingerprint": self.fingerprint(), **self.state()})

    def load(self, path: Path) -> None:
        """Takes up a checkpoint, which the first process reads for all.

        Raises `CheckpointError` when it belongs to other settings.
        """
        data = self.share.of_first(path.read_bytes() if self.share.leads else b"")
        state = torch.load(io.BytesIO(data), map_location=self.device, weights_only=True)
        if state["fingerprint"] != self.fingerprint():
            raise CheckpointError(
                f"{path}: made with other settings, spec or data: repeat the command that made it, "
                "or remove the file to begin anew"
            )
        self.take_up(state)

    def run(
        self,
        checkpoint: Path | None = None,
        report: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Progress:
        """Trains to the end, or between two updates until `stop`, from wherever it stands."""
        while self.progress.step < self.config.total:
            if self.share.any(stop is not None and stop.is_set()):
                break
            began = time.perf_counter()
            self.update()
            self.progress.seconds += time.perf_counter() - began
            if report:
                report(self.progress)
            due = self.progress.step % self.config.checkpoint_every == 0
            if checkpoint and due and self.share.leads:
                self.save(checkpoint)
        return self.progress
