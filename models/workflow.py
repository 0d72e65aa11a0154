"""From trajectories to a bundle in one call: read, train, export, measure, seal."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infra.signals import stopping
from infra.storage import Place
from models.acceptance import Acceptance
from models.adapt import AdaptTrainer
from models.checkpoint import TrainingStopped
from models.compute import Compute
from models.data import BLOCK, Dataset, Sequences, Split, load_dataset
from models.evaluation.held_out import evaluate
from models.evaluation.result import Evaluation
from models.evaluation.tell import brief
from models.evaluation.windows import WARM
from models.inverse import part_trainer
from models.logs import Days
from models.one_head import HeadError, Only, PartTrainer
from models.parent import WEIGHTS, Parent
from models.registry import write_bundle
from models.regret import Regret, regret
from models.revision import revision
from models.share import ALONE, Share
from models.train import Progress, TrainConfig, Trainer
from models.training_report import write_report
from models.trust import Trial, trial
from planner.session import Bundle
from schemas.system import SystemSpec

CHECKPOINT = "checkpoint.pt"
CURVES = "curves.json"
REPORT = "training.html"
PROGRESS = "progress.json"
SPEC = "system.yaml"
"""The spec that belongs to a bundle, beside its graphs."""
NOTE_S = 0.5


def work_folder(out: Path) -> Path:
    """Where a bundle's checkpoint, curves and report are kept: beside it, not in it."""
    return out.parent / f".{out.name}.training"


def train_bundle(
    spec: SystemSpec,
    folders: Sequence[Place],
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    with_actor: bool = True,
    split: Split = "time",
    days: Days | None = None,
    compute: Compute | None = None,
    share: Share = ALONE,
    only: Only | None = None,
    command: str = "",
    accept: Acceptance | None = None,
    workflow: Mapping[str, Any] | None = None,
    report: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains on the trajectories below `folders` and writes the bundle `out`; its manifest.

    SIGINT and SIGTERM end it between two updates. Of several processes the first one writes; the
    others are done when training is, and return nothing.

    Args:
        share: this process's part of every update.
        only: the head that is learned again, all else being that of a bundle there is.
        accept: what the bundle is judged by beside its held-out errors.
        workflow: for the lineage.
        say: told what is done after training.

    Raises:
        ValueError: the spec does not allow what `accept` or `only` asks for.
        DataError, CheckpointError, ParityError, ShareError: with the remedy.
        TrainingStopped: it was interrupted; the checkpoint holds all updates so far.
    """
    accept = accept or Acceptance(seed=config.seed)
    accept.check(spec)
    dataset = load_dataset(spec, folders, split=split, days=days)
    work = work_folder(out)
    if only is None:
        trainer = Trainer(spec, dataset, config, compute, share)
    else:
        parent = Parent.read(only.of, lambda folder: work_folder(folder) / CHECKPOINT)
        if parent.folder.resolve() == out.resolve():
            raise HeadError(f"{out}: is what the rest is taken of; write to another folder")
        trainer = part_trainer(spec, dataset, config, only, parent, compute, share)
        dataset, config, with_actor = trainer.dataset, trainer.config, trainer.with_actor
    checkpoint = work / CHECKPOINT
    if share.leads:
        (work / WEIGHTS).unlink(missing_ok=True)  # of another bundle that was here
    share.agree(trainer.fingerprint(), "settings or data")
    if share.any(share.leads and resume and checkpoint.exists()):
        trainer.load(checkpoint)
    notes = _Notes(work / PROGRESS, config.total, report) if share.leads else None
    with stopping() as stop:
        progress = trainer.run(checkpoint, notes, stop)
        if share.leads:
            trainer.save(checkpoint)
    kept = TrainingStopped(checkpoint, progress.step, config.total)
    if share.any(stop.is_set()):
        raise kept
    if not share.leads:
        return {}
    try:
        (work / CURVES).write_text(json.dumps(progress.curves))
        write_report(work / REPORT, progress.curves, f"{spec.system}: {config.total} updates")
        return release(
            spec, dataset, trainer, out, with_actor, command, accept, workflow=workflow, say=say
        )
    except KeyboardInterrupt:
        raise kept from None


class _Notes:
    """Says how far training is in a file, so that another process can show it."""

    def __init__(
        self, path: Path, total: int, report: Callable[[Progress], None] | None = None
    ) -> None:
        self.path, self.total, self.report = path, total, report
        self._noted = -NOTE_S
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)

    def __call__(self, progress: Progress) -> None:
        if self.report is not None:
            self.report(progress)
        now = time.monotonic()
        if now - self._noted < NOTE_S and progress.step < self.total:
            return
        self._noted = now
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"step": progress.step, "total": self.total}))
        part.replace(self.path)  # a reader sees a whole note, or the one before


def release(
    spec: SystemSpec,
    dataset: Dataset,
    trainer: Trainer,
    out: Path,
    with_actor: bool,
    command: str,
    accept: Acceptance | None = None,
    *,
    workflow: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Exports what `trainer` has learned as the bundle `out`, judged on what is held out of
    `dataset`; see `train_bundle`. Returns the manifest.
    """
    accept = accept or Acceptance()
    config, seconds = trainer.config, trainer.progress.seconds
    model, behaviour = trainer.model.cpu(), trainer.behaviour.cpu()
    verdict = _trial(dataset, trainer) if with_actor else None
    trusted = verdict is not None and verdict.trusted
    results = list[Evaluation]()

    def measure(bundle: Bundle) -> tuple[dict[str, Any], dict[str, Any]]:
        say("filtering and imagining")
        result = evaluate(bundle, spec, dataset.validation, band=accept.innovation)
        results.append(result)
        metrics: dict[str, Any] = {"held_out": brief(result), "train_seconds": round(seconds)}
        if verdict is not None:
            metrics["actor"] = verdict.as_dict()
        discount = config.actor.discount
        calibration, monitors = accept.calibration(bundle, spec, result, discount)
        return calibration, metrics | monitors

    def judge(bundle: Bundle) -> dict[str, Any]:
        return accept.judge(bundle, spec, results[-1], say=say)

    def weigh(exact: Bundle, coarse: Bundle) -> Regret:
        return regret(exact, coarse, spec, dataset.validation, config.seed)

    files = dataset.files or ({},) * len(dataset.sources)
    lineage = {
        "command": command,
        "code": revision(),
        "datasets": [{**a, **b} for a, b in zip(dataset.sources, files, strict=True)],
        "spec": {"name": spec.system, "spec_hash": spec.spec_hash},
        "config": asdict(config),
        "scales": [c.as_dict() for c in (*dataset.columns, *dataset.actions)],
        "seed": config.seed,
        "steps": config.steps,
    }
    lineage |= {"compute": asdict(trainer.compute), "fingerprint": trainer.fingerprint()}
    lineage |= {"processes": trainer.share.count}
    if workflow is not None:
        lineage["workflow"] = dict(workflow)
    if isinstance(trainer, (PartTrainer, AdaptTrainer)):
        lineage |= trainer.origin
        trusted = trainer.trusts(trusted)
    if model.physics is not None:
        lineage["physics"] = {"function": config.physics, "sha256": model.physics.digest}
    return write_bundle(
        out,
        spec,
        model,
        behaviour,
        name=spec.system,
        measure=measure,
        weigh=weigh,
        judge=judge,
        lineage=lineage,
        with_actor=with_actor,
        actor_trusted=trusted,
    )


def _long_enough(dataset: Dataset, length: int) -> Sequences:
    """Held-out sequences where any is `length` ticks long, else those of training."""
    spans = np.diff(dataset.validation.segments, axis=1)
    return dataset.validation if spans.max() >= length else dataset.train


def _trial(dataset: Dataset, trainer: Trainer) -> Trial:
    length = WARM + trainer.config.actor.horizon
    data = _long_enough(dataset, length)
    rng = np.random.default_rng([trainer.config.seed, 19])
    starts = data.draw(rng, 256, length)
    weights = torch.ones(len(data) // BLOCK + 1, trainer.config.model.members)
    batch = data.window(starts, length, weights)
    return trial(trainer.model, trainer.behaviour, batch, WARM, trainer.generator(-1))
