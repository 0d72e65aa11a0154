"""Context channels: what the time of a tick alone says, as sine and cosine."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_DAY = 86_400_000_000
_PERIODS = {"time_of_day": (_DAY, 0), "day_of_week": (7 * _DAY, 3 * _DAY)}  # 1970-01-01: a Thursday


def context_values(
    context: Sequence[str], time_us: npt.NDArray[np.int64] | int
) -> npt.NDArray[np.float64]:
    """[..., 2 × context] sine and cosine of the UTC time of day, and of the week from Monday on."""
    times = np.asarray(time_us, dtype=np.int64)
    columns = []
    for name in context:
        period, shift = _PERIODS[name]
        angle = (times + shift) % period * (2 * np.pi / period)
        columns += [np.sin(angle), np.cos(angle)]
    if not columns:
        return np.zeros((*times.shape, 0))
    return np.stack(columns, axis=-1)
