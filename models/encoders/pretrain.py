"""Pretrains a series encoder on streams without labels, then teaches it what labels there are."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoint import CheckpointError, write_state
from models.descent import adam, schedule
from models.encoders.export import export_encoder
from models.encoders.masked import MaskedSeries, draw_hidden
from models.encoders.pretrain_recipe import PretrainError, Pretraining
from models.encoders.series import AttentionSeriesEncoder
from models.encoders.windows import F32, WindowError, read_windows

CHECKPOINT, WEIGHTS, ENCODER = "checkpoint.pt", "pretrained.pt", "encoder.onnx"
_CLIP, _BETA = 10.0, 0.02


class SeriesModel(nn.Module):
    """Raw windows [B, T, C] → labels [B, L] in their units: scales, and an encoder in between."""

    mean: Tensor
    spread: Tensor
    offset: Tensor
    unit: Tensor

    def __init__(self, encoder: AttentionSeriesEncoder, channels: int, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        for name, size, value in (
            ("mean", channels, 0.0),
            ("spread", channels, 1.0),
            ("offset", outputs, 0.0),
            ("unit", outputs, 1.0),
        ):
            self.register_buffer(name, torch.full((size,), value))

    def normalised(self, raw: Tensor) -> Tensor:
        """[B, T, C] in units of each channel's spread, from its mean."""
        return (raw - self.mean) / self.spread

    def forward(self, raw: Tensor) -> Tensor:
        """[B, L] in the labels' units."""
        found: Tensor = self.offset + self.unit * self.encoder(self.normalised(raw))
        return found


class Pretrainer:
    """Masked pretraining, then supervised learning, of one `SeriesModel`.

    Every draw depends on (seed, step) alone, and a checkpoint holds all else, so that a run which
    was killed and resumed ends with the same weights as one that was not.

    Args:
        windows: [N, T, C] without labels.
        labelled: [M, T, C] and [M, L], or None: then no encoder is exported.
    """

    def __init__(
        self, recipe: Pretraining, windows: F32, labelled: tuple[F32, F32] | None = None
    ) -> None:
        self.recipe, self.windows, self.labelled = recipe, windows, labelled
        part, outputs = recipe.encoder, 1 if labelled is None else labelled[1].shape[1]
        sizes = part.model_dump(exclude={"of"})
        channels = windows.shape[2]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            encoder = AttentionSeriesEncoder(recipe.data.window, channels, outputs, **sizes)
            self.model = SeriesModel(encoder, channels, outputs)
            self.masked = MaskedSeries(encoder)
        self._scale("mean", "spread", windows.reshape(-1, channels))
        if part.of is not None:
            self._begin_with(part.of)
        if labelled is not None:
            self._scale("offset", "unit", labelled[1])
        self.step, self.losses = 0, {"masked": list[float](), "labels": list[float]()}
        # The layer that reads labels off learns with labels alone, what tells values without.
        self._optimizers = {
            "masked": adam(
                [p for n, p in self.masked.named_parameters() if not n.startswith("encoder.read.")],
                recipe.loop.learning_rate,
            ),
            "labels": adam(self.model.parameters(), recipe.loop.finetune_rate),
        }

    @property
    def total(self) -> int:
        """Updates of both kinds."""
        loop = self.recipe.loop
        return loop.steps + (loop.finetune_steps if self.labelled is not None else 0)

    def _scale(self, centre: str, spread: str, rows: F32) -> None:
        deviation = rows.std(0)
        getattr(self.model, centre).copy_(torch.from_numpy(rows.mean(0)))
        getattr(self.model, spread).copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1)))

    def _begin_with(self, path: Path) -> None:
        """Weights of another pretraining, but for what reads labels off."""
        try:
            state = torch.load(path, weights_only=True)
            kept = {n: v for n, v in state.items() if not _reads(n)}
            missing, unknown = self.model.load_state_dict(kept, strict=False)
        except Exception as error:  # of whatever kind torch raises at a file that is none
            first = str(error).partition("\n")[0].rstrip(":")
            raise PretrainError(
                f"encoder.of: {path}: {first}; name the pretrained.pt of an encoder of these sizes"
            ) from error
        if unknown or not all(map(_reads, missing)):
            raise PretrainError(f"encoder.of: {path}: holds other weights than an encoder's")

    def update(self) -> float:
        """One update; its loss."""
        loop, step = self.recipe.loop, self.step
        kind = "masked" if step < loop.steps else "labels"
        first, count = (0, loop.steps) if kind == "masked" else (loop.steps, loop.finetune_steps)
        rng = np.random.default_rng([self.recipe.seed, step, 17])
        loss = self._masked_loss(rng, step) if kind == "masked" else self._label_loss(rng)
        optimizer = self._optimizers[kind]
        rate = loop.learning_rate if kind == "masked" else loop.finetune_rate
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step - first, count)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        learned = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(learned, _CLIP)
        optimizer.step()
        self.step += 1
        self.losses[kind].append(loss.item())
        return self.losses[kind][-1]

    def _masked_loss(self, rng: np.random.Generator, step: int) -> Tensor:
        rows = rng.integers(len(self.windows), size=self.recipe.loop.batch)
        series = self.model.normalised(torch.from_numpy(self.windows[rows]))
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        pieces = self.recipe.data.window // self.recipe.encoder.piece
        hide = draw_hidden(len(rows), pieces, self.recipe.masking.share, generator)
        return self.masked.loss(series, hide)

    def _label_loss(self, rng: np.random.Generator) -> Tensor:
        assert self.labelled is not None
        rows = rng.integers(len(self.labelled[0]), size=self.recipe.loop.batch)
        series, truth = (torch.from_numpy(part[rows]) for part in self.labelled)
        error = (self.model(series) - truth) / self.model.unit
        return nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=_BETA)

    def run(
        self,
        checkpoint: Path | None = None,
        report: Callable[[int, float], None] | None = None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Goes on to the end, or between two updates until `stop`; whether it came to the end."""
        while self.step < self.total and not (stop and stop.is_set()):
            loss = self.update()
            if report:
                report(self.step, loss)
            every = self.recipe.loop.checkpoint_every
            if checkpoint and (self.step % every == 0 or self.step == self.total):
                self.save(checkpoint)
        if checkpoint and stop and stop.is_set():
            self.save(checkpoint)
        return self.step >= self.total

    @torch.no_grad()
    def errors(self, series: F32, truth: F32) -> list[float]:
        """[L] root mean square errors, in parts of the labels' spread."""
        parts = torch.split(torch.from_numpy(series), 256)
        told = torch.cat([self.model(part) for part in parts])
        off = (told - torch.from_numpy(truth)) / self.model.unit
        found: list[float] = off.square().mean(0).sqrt().tolist()
        return found

    def fingerprint(self) -> str:
        """Changes with all that decides the outcome: settings and data."""
        content = self.recipe.model_dump(mode="json", exclude={"run": True})
        content["loop"].pop("checkpoint_every")
        found = hashlib.sha256(json.dumps(content).encode())
        for part in (self.windows, *(self.labelled or ())):
            found.update(repr(part.shape).encode() + np.ascontiguousarray(part).tobytes())
        return found.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Writes a checkpoint; a kill at any moment leaves the old one or the new one."""
        state = {
            "fingerprint": self.fingerprint(),
            "step": self.step,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "masked": self.masked.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self._optimizers.items()},
        }
        write_state(path, state)

    def load(self, path: Path) -> None:
        """Takes up a checkpoint. Raises `CheckpointError` where it belongs to something else."""
        state = torch.load(path, weights_only=True)
        if state["fingerprint"] != self.fingerprint():
            raise CheckpointError(
                f"{path}: made with other settings or data: repeat the command that made it, or "
                "remove the file to begin anew"
            )
        self.model.load_state_dict(state["model"])
        self.masked.load_state_dict(state["masked"])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step, self.losses = state["step"], state["losses"]


def _reads(name: str) -> bool:
    """Whether a weight or scale is of what reads labels off."""
    return name.startswith("encoder.read.") or name in ("offset", "unit")


def prepared(recipe: Pretraining) -> tuple[Pretrainer, tuple[F32, F32] | None]:
    """What `recipe` names, read; and labelled windows that are not learned from.

    Raises:
        PretrainError, WindowError: with the remedy.
    """
    data, labels = recipe.data, recipe.labels
    if not data.files or not data.series:
        raise PretrainError("data: name files and series (--data, --series)")
    how = data.series, data.window, data.every or data.window
    windows, _ = read_windows(data.files, *how)
    if labels is None:
        return Pretrainer(recipe, windows), None
    series, truth = read_windows(labels.files, *how, labels.columns)
    kept = len(series) - max(1, round(labels.held_out * len(series)))
    if kept < 1:
        raise WindowError("labels: one window is not enough; name files with more")
    learner = Pretrainer(recipe, windows, (series[:kept], truth[:kept]))
    return learner, (series[kept:], truth[kept:])


def released(learner: Pretrainer, held_out: tuple[F32, F32] | None, out: Path) -> dict[str, Any]:
    """Writes weights, and with labels the encoder that `perceive` takes; what was reached."""
    out.mkdir(parents=True, exist_ok=True)
    write_state(out / WEIGHTS, learner.model.state_dict())
    losses = learner.losses["masked"]
    tenth = max(1, len(losses) // 10)
    result: dict[str, Any] = {"windows": len(learner.windows), "weights": str(out / WEIGHTS)}
    if losses:
        first, last = (float(np.mean(part)) for part in (losses[:tenth], losses[-tenth:]))
        result["masked_loss"] = {"first": round(first, 4), "last": round(last, 4)}
    labels, labelled = learner.recipe.labels, learner.labelled
    if labels is None or labelled is None or held_out is None:
        return result
    example = torch.from_numpy(labelled[0][:17])
    example = example if len(example) > 1 else example.repeat(2, 1, 1)
    parity = export_encoder(learner.model, example, out / ENCODER)
    told = [round(error, 4) for error in learner.errors(*held_out)]
    result |= {"labelled": len(labelled[0]), "held_out": len(held_out[0])}
    result |= {"errors": dict(zip(labels.columns, told, strict=True))}
    return result | {"encoder": str(out / ENCODER), "parity": parity}
