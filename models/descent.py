"""How weights go down a slope: AdamW, which parameters learn faster, and the rate over a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from models.belief import WorldModel

WARM_UP = 50  # steps over which the learning rate rises


def groups(model: WorldModel, noise_rate: float) -> Any:
    """The model's parameters, those of noise and retention apart where they learn faster."""
    cost = [] if model.heads.cost is None else list(model.heads.cost.parameters())
    learned = [p for p in model.parameters() if not any(p is one for one in cost)]
    if noise_rate == 1.0:
        return learned
    few = [model.log_noise, model.share_noise, model.retention]
    others = [p for p in learned if not any(p is one for one in few)]
    return [{"params": others}, {"params": few, "rate": noise_rate}]


def adam(parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer of all parts (Loshchilov and Hutter 2019: AdamW)."""
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=1e-4, eps=1e-6)


def schedule(step: int, count: int) -> float:
    """Rises over the first steps, then falls along a cosine to a twentieth."""
    rise = min(1.0, (step + 1) / min(WARM_UP, max(1, count // 10)))
    fall = 0.5 * (1.0 + np.cos(np.pi * step / max(1, count)))
    return float(rise * max(0.05, fall))
