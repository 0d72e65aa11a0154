"""The cost head: how likely a constraint of the spec is broken at a tick, learned from logs.

It is learned on what the rest of the model believes, and the rest learns nothing from it: with it
and without it, all other weights are the same, and it can be learned again by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.belief import ModelConfig, WorldModel
from models.data import Batch
from models.evaluation.violations import seen_violations
from models.losses import Trace, as_shown, averaged
from models.share import ALONE, Share
from schemas.system import SystemSpec


def check(spec: SystemSpec, config: ModelConfig) -> None:
    """Raises `ValueError` where there is nothing to learn a cost from."""
    if config.cost and not spec.constraints:
        raise ValueError(
            f"heads.cost: {spec.system} has no constraints that could be broken: add 'constraints' "
            "to the spec, or leave the head out"
        )


def broken(spec: SystemSpec, batch: Batch) -> tuple[Tensor, Tensor]:
    """`[B, L]` whether a constraint, hard or soft, is broken at a tick, and whether that is known.

    It is known where one is broken, or all that constraints read is there.
    """
    obs = torch.where(batch.mask > 0, batch.obs, torch.nan)
    found = seen_violations(spec, obs.cpu().numpy(), batch.action.cpu().numpy())
    truth = torch.from_numpy(found).to(batch.obs)
    return truth > 0, torch.isfinite(truth) & (batch.valid > 0)


def cost_loss(
    spec: SystemSpec,
    model: WorldModel,
    batch: Batch,
    trace: Trace,
    noise: Tensor,
    share: Share = ALONE,
) -> Tensor:
    """Cross entropy of the cost head on a filtered batch; nothing flows back beyond the head."""
    with torch.no_grad():
        memory, sample = trace.memory(), as_shown(model, batch, trace, noise)
    truth, known = (x.T for x in broken(spec, batch))  # [L, B]
    logit = model.heads.costs(memory.detach().flatten(0, 1), sample.flatten(0, 1))
    logit = logit.view(truth.shape)
    wrong = F.binary_cross_entropy_with_logits(logit, truth.to(logit), reduction="none")
    return averaged(wrong, known, share)
