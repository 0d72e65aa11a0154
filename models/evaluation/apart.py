"""How far the members of a bundle are apart on held-out data: what a limit on it can be set by."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from models.evaluation.result import Evaluation
from models.evaluation.windows import WARM, Believed, filtered
from planner.draws import pairs
from planner.imagine import disagreement
from planner.session import Bundle

F64 = npt.NDArray[np.float64]
CHUNK: Final = 128
"""Windows that are imagined at once."""
DRAWS: Final = 2
PURPOSE: Final = 29


def disagreements(bundle: Bundle, found: Evaluation, horizon: int, seed: int = 0) -> F64:
    """`[B]` of the windows of `found`, about the ticks to come under the actions that were taken.

    As the planner measures it of a plan.
    """
    windows = found.windows
    belief = filtered(bundle, windows.obs[:, :WARM], windows.action[:, :WARM])
    ahead = windows.action[:, WARM : WARM + horizon]
    noise = pairs((seed, 0, 0), PURPOSE, (ahead.shape[1] + 1, DRAWS, bundle.latent))
    scale = found.channel_scale[: len(found.columns)]
    parts = []
    for first in range(0, len(windows), CHUNK):
        rows = slice(first, first + CHUNK)
        parts.append(_apart(bundle, belief.of(rows), ahead[rows], noise, scale))
    return np.concatenate(parts)


def _apart(
    bundle: Bundle,
    belief: Believed,
    action: npt.NDArray[np.float32],
    noise: npt.NDArray[np.float32],
    scale: F64,
) -> F64:
    rows, ticks, members = len(action), action.shape[1], bundle.members

    def wide(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`[M, B × D, ·]` of `[B × D, ·]`."""
        return np.broadcast_to(x, (members, *x.shape)).copy()

    drawn = np.tile(noise, (1, rows, 1))  # [T + 1, B × D, Z]
    h, z, std = (np.repeat(x, DRAWS, axis=0) for x in (belief.h, belief.mean, belief.std))
    actions = np.repeat(action, DRAWS, axis=0).transpose(1, 0, 2)
    futures = bundle.imagine(
        wide(h),
        wide((z + std * drawn[0]).astype(np.float32)),
        np.repeat(actions[:, None], members, axis=1),
        np.repeat(drawn[1:, None], members, axis=1),
    )
    channels = futures.channels.reshape(ticks, members, rows, DRAWS, -1)
    return disagreement(channels, scale.astype(np.float32))
