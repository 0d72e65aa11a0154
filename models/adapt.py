"""Fast adaptation: a bundle fitted to one entity from its last minutes, and never made worse.

By default a small adapter is learned (`models.dynamics.Adapter`, some hundred numbers) and every
other weight stays as it is; else all weights are, from where they stand, and the actor after them.
Nothing but the entity's own log is replayed. The first part of it is learned from, the next says
when to stop, and the last decides: where the futures imagined there are not better than the
parent's by more than chance would have it, the parent is kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.compute import Compute
from models.data import BLOCK, Dataset, Facts, Sequences, scales_of
from models.descent import adam
from models.logs import DataError
from models.losses import crps, observe
from models.parent import Parent, ParentError
from models.rescale import stretched
from models.target import SHORTEST, in_time, joined
from models.train import TrainConfig, Trainer
from models.trust import trial
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
SHARES = (0.6, 0.15, 0.25)
"""Of the target's time: to learn from, to stop by, and to decide on."""
WARM = 8
"""Ticks that a belief has seen before a future is imagined from it."""
EVERY = 10
"""Updates between two looks at where to stop."""
PATIENCE = 8
"""Looks without anything better after which it stops."""
ERRORS = 2.0
"""Standard errors by which the error has to fall on what decides."""
SLOW = 0.3
"""Learning rate of all weights, as a share of the one that they were learned with."""


@dataclass(frozen=True)
class Wish:
    """How to adapt.

    Attributes:
        whole: all weights, and not a small adapter alone.
        steps: updates at most;  actor_steps: of the actor after the model; of all weights alone.
        rate: learning rate of the adapter.
        entity, minutes: of the log, for the lineage.
    """

    whole: bool = False
    steps: int = 400
    actor_steps: int = 200
    rate: float = 1e-2
    seed: int = 0
    entity: str | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What came of it, on the part that decides.

    Attributes:
        before, after: mean score (CRPS in usual changes) of imagined futures, parent's and adapted.
        gain: mean fall of it, with the standard error of that over windows.
        windows, ticks: how many futures were imagined, and how far.
        updates: after which it was best on the part to stop by.
        parameters: how many numbers were learned.
    """

    before: float
    after: float
    gain: tuple[float, float]
    windows: int
    ticks: int
    updates: int
    parameters: int

    @property
    def better(self) -> bool:
        """Whether it is adopted."""
        return self.gain[0] > ERRORS * self.gain[1]

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        shown = {n: _short(getattr(self, n)) for n in ("before", "after")}
        gain, error = map(_short, self.gain)
        counts = {n: getattr(self, n) for n in ("windows", "ticks", "updates", "parameters")}
        return {**shown, "gain": gain, "standard_error": error, **counts, "adopted": self.better}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


class AdaptTrainer(Trainer):
    """Learns what one entity does otherwise than its parent expects.

    Attributes:
        stop, decide: what is held out.
    """

    def __init__(
        self,
        spec: SystemSpec,
        data: Sequences,
        facts: Facts,
        wish: Wish,
        parent: Parent,
        compute: Compute | None = None,
    ) -> None:
        """Raises `ParentError` or `DataError` where the bundle or the log will not do."""
        if spec.interface_hash != parent.manifest.interface_hash:
            raise ParentError(
                f"{parent.folder}: made for other channels or actions than {spec.system} has; "
                "such a change takes a whole training"
            )
        learn, self.stop, self.decide = in_time(data, SHARES)
        count = len(spec.columns)
        columns = stretched(parent.scales[:count], scales_of(spec, data)[0])
        held_out = joined(self.stop, self.decide)
        dataset = Dataset(learn, held_out, columns, parent.scales[count:], facts)
        super().__init__(spec, dataset, _settings(parent, wish, learn), compute)
        self.parent, self.wish = parent, wish
        self._take_over()
        if not wish.whole:
            adapter = self.model.ensemble.adapter
            assert adapter is not None
            self.optimizers = {"model": adam(adapter.parameters(), wish.rate)}

    def _take_over(self) -> None:
        """The parent's weights; an adapter that it has not is new, and changes nothing."""
        try:
            missing = self.model.load_state_dict(self.parent.weights["model"], strict=False)
            self.behaviour.load_state_dict(self.parent.weights["behaviour"])
        except RuntimeError as error:
            raise ParentError(f"{self.parent.folder}: weights of other sizes ({error})") from error
        other = [name for name in missing.missing_keys if not name.startswith("ensemble.adapter.")]
        if other or missing.unexpected_keys:
            names = ", ".join([*other, *missing.unexpected_keys])
            raise ParentError(
                f"{self.parent.folder}: weights of another version ({names}); train it again"
            )

    @property
    def learned(self) -> int:
        """How many numbers are learned."""
        groups = self.optimizers["model"].param_groups
        return sum(p.numel() for group in groups for p in group["params"])

    def descend(self, name: str, loss: Tensor, step: int, count: int) -> None:
        """As of a whole training, of what is learned here."""
        if name in self.optimizers:
            super().descend(name, loss, step, count)

    def scores(self, data: Sequences) -> F64:
        """`[W]` score of the futures imagined in windows of `data`; no tick is scored twice.

        The continuous ranked probability score of each column and tick ahead, in the units of the
        training loss, so that means and spreads count. The same noise for equal windows.
        """
        length = WARM + self.config.horizon
        starts = np.concatenate(
            [np.arange(a, b - length + 1, self.config.horizon) for a, b in data.segments]
        )
        if not len(starts):
            raise DataError(
                f"no run of {length} ticks is held out: adapt from more minutes, or longer runs"
            )
        members = self.config.model.members
        batch = data.window(starts, length, torch.ones(len(data) // BLOCK + 1, members))
        return _scores(self, batch.to(self.device))

    def adapt(
        self,
        stop: threading.Event | None = None,
        report: Callable[[int, float], None] = lambda step, score: None,
    ) -> Verdict | None:
        """Learns until it gets no better on what it stops by; None where `stop` came before.

        The best weights are taken, and judged.
        """
        before = self.scores(self.decide)
        best, at, kept = float(self.scores(self.stop).mean()), 0, self._weights()
        for step in range(self.config.steps):
            if stop and stop.is_set():
                return None
            self.update()
            if (step + 1) % EVERY:
                continue
            score = float(self.scores(self.stop).mean())
            report(step + 1, score)
            if score < best:
                best, at, kept = score, step + 1, self._weights()
            elif step + 1 - at >= PATIENCE * EVERY:
                break
        self.model.load_state_dict(kept)
        after = self.scores(self.decide)
        fall = before - after
        error = float(fall.std(ddof=1)) / math.sqrt(len(fall)) if len(fall) > 1 else math.inf
        return Verdict(
            before=float(before.mean()),
            after=float(after.mean()),
            gain=(float(fall.mean()), error),
            windows=len(fall),
            ticks=self.config.horizon,
            updates=at,
            parameters=self.learned,
        )

    def adapt_actor(self) -> bool:
        """The actor in the new model's imagination; whether it is better there than the old one."""
        old = {n: v.clone() for n, v in self.behaviour.state_dict().items()}
        before = self._imagined()
        for i in range(self.config.actor_steps):
            self.learn_actor(self.config.steps + i)
        if self._imagined() > before:
            return True
        self.behaviour.load_state_dict(old)
        return False

    def _imagined(self) -> float:
        """Mean return that the actor imagines for itself, from the target's beliefs."""
        length = WARM + self.config.actor.horizon
        starts = self.dataset.train.draw(np.random.default_rng([self.config.seed, 19]), 128, length)
        blocks = len(self.dataset.train) // BLOCK + 1
        weights = torch.ones(blocks, self.config.model.members)
        batch = self.dataset.train.window(starts, length, weights).to(self.device)
        found = trial(self.model, self.behaviour, batch, WARM, self.generator(-1))
        return float(np.mean(found.actor))

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    @property
    def origin(self) -> dict[str, Any]:
        """What the lineage says of where this comes from."""
        parent = {
            "digest": self.parent.manifest.digest,
            "learned": "all" if self.wish.whole else "adapter",
            "entity": self.wish.entity,
            "minutes": self.wish.minutes,
            "rows": len(self.dataset.train),
        }
        return {"parent": parent}

    def trusts(self, verdict: bool) -> bool:
        """Whether actor and value may serve: as before, where the reward is the same.

        What a verdict on the target's few minutes says is not asked: a log of the actor itself
        would hold nothing worse than it.
        """
        manifest = self.parent.manifest
        return manifest.actor_trusted and manifest.objective_hash == self.spec.objective_hash

    def fingerprint(self) -> str:
        """As of a whole training, and of which bundle it is."""
        kind = "all" if self.wish.whole else "adapter"
        return f"{super().fingerprint()}-{kind}-{self.parent.manifest.digest[:16]}"


def _settings(parent: Parent, wish: Wish, learn: Sequences) -> TrainConfig:
    """The parent's, with few updates; windows as long as the target's runs allow."""
    whole, config = wish.whole, parent.config
    longest = int(np.diff(learn.segments, axis=1).max())
    return replace(
        config,
        steps=wish.steps,
        actor_steps=wish.actor_steps if whole and parent.with_actor else 0,
        seed=wish.seed,
        length=max(SHORTEST, min(config.length, longest)),
        learning_rate=(SLOW * config.learning_rate) if whole else wish.rate,
        model=replace(config.model, adapter=config.model.adapter or not whole),
    )


@torch.no_grad()
def _scores(trainer: AdaptTrainer, batch: Any) -> F64:
    """`[W]` of the windows of `batch`; see `AdaptTrainer.scores`."""
    model, config = trainer.model, trainer.config
    members, horizon, windows = config.model.members, config.horizon, batch.obs.shape[0]
    trace = observe(model, batch, batch.mask)
    memory, mean, std = (
        x[WARM - 1] for x in (trace.memory(), trace.stack("mean"), trace.stack("std"))
    )
    # Two futures under each member: rows are ordered by member, then by future, then by window.
    rows = 2 * members
    generator = trainer.generator(-2)
    noise = torch.randn(horizon + 1, rows * windows, mean.shape[-1], generator=generator).to(mean)
    memory, mean, std = (x.repeat(rows, 1) for x in (memory, mean, std))
    latent, shown = mean + std * noise[0], []
    action = model.action_scaler(batch.action)
    for k in range(horizon):
        now = action[:, WARM + k].repeat(rows, 1)
        memory, latent, seen = model.imagine(memory, latent, now, noise[k + 1])
        shown.append(seen[:, : len(model.direct)])
    futures = torch.stack(shown, 1).view(rows, windows, horizon, -1)
    ahead = slice(WARM, WARM + horizon)
    truth = model.scaler(batch.obs)[:, ahead][..., model.direct]
    present = (batch.mask * batch.valid[..., None])[:, ahead][..., model.direct]
    score = crps(futures, truth) * trainer.weights.change * present
    total = score.sum((1, 2)) / present.sum((1, 2)).clamp(min=1.0)
    return np.asarray(total.double().cpu().numpy())
