"""From a bundle and a log of one entity to a bundle of its own, in one call; or to none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from infra.signals import stopping
from infra.storage import Place
from models.acceptance import Acceptance
from models.adapt import AdaptTrainer, Verdict, Wish
from models.parent import Parent, ParentError, keep_weights
from models.target import read_target
from models.workflow import CHECKPOINT, SPEC, release, work_folder
from schemas.system import SystemSpec, load_spec


class AdaptationStopped(Exception):
    """It was interrupted; nothing was written, and the same command gives the same again."""


def spec_of(parent: Parent) -> SystemSpec:
    """The spec that a bundle was learned with, as far as it is known.

    Raises:
        SpecError: it cannot be read.
    """
    own = parent.folder / SPEC
    return load_spec(own if own.exists() else parent.manifest.system)


def adapt_bundle(
    which: Place,
    folders: Sequence[Place],
    out: Path,
    wish: Wish,
    *,
    spec: SystemSpec | None = None,
    command: str = "",
    report: Callable[[int, float], None] = lambda step, score: None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Verdict, dict[str, Any] | None]:
    """Fits the bundle `which` to what the trajectories below `folders` say of an entity.

    Returns the verdict, and the manifest of the bundle `out`: None where the parent is kept, and
    nothing was written.

    Args:
        spec: the system; None: as `spec_of`.
        report: told the updates done and the score where it stops; say: what is done after them.

    Raises:
        ParentError, DataError, SpecError: with the remedy.
        AdaptationStopped: it was interrupted.
    """
    parent = Parent.read(which, lambda folder: work_folder(folder) / CHECKPOINT)
    if parent.folder.resolve() == out.resolve():
        raise ParentError(f"{out}: is the parent itself; write to another folder")
    spec = spec or spec_of(parent)
    data, facts = read_target(spec, folders, wish.entity, wish.minutes)
    trainer = AdaptTrainer(spec, data, facts, wish, parent)
    with stopping() as stop:
        verdict = trainer.adapt(stop, report)
        if verdict is None:
            raise AdaptationStopped(f"{out}: nothing was written; the same command begins again")
        if not verdict.better:
            return verdict, None
        if trainer.config.actor_steps:
            say("learning to act")
            trainer.adapt_actor()
    work = work_folder(out)
    keep_weights(work, trainer, trainer.fingerprint())
    told = {**asdict(wish), "verdict": verdict.as_dict()}
    accept = Acceptance(seed=wish.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wish.seed)
        manifest = release(
            *(spec, trainer.dataset, trainer, out, parent.with_actor, command, accept),
            workflow={"adapt": told},
            say=say,
        )
    if (own := parent.folder / SPEC).exists():
        shutil.copyfile(own, out / SPEC)
    return verdict, manifest
