"""What an accelerometer on a turning shaft would feel: its turns, and a bearing that rings.

Made up for demonstrations and tests of `perceive`, as `views.py` is.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from infra.plants.base import Floats

Waveforms = npt.NDArray[np.int16]
SAMPLES: Final = 256
RATE_HZ: Final = 2_000
SPEEDS_HZ: Final = (10.0, 50.0)
FULL_SCALE: Final = 8_192.0
"""What the sensor writes for one unit of acceleration."""
_ORDER: Final = 3.6  # a damaged bearing knocks so often in a turn of the shaft
_RING: Final = (700.0, 90.0)  # frequency in Hz and decay in 1/s of a knock


def vibrations(speed: Floats, severity: Floats, rng: np.random.Generator) -> Waveforms:
    """[n, SAMPLES, 1] as the sensor packs them.

    Args:
        speed: [n] turns of the shaft in Hz, within `SPEEDS_HZ`.
        severity: [n] of the damage, 0 (none) to 1.
        rng: of phases and noise.
    """
    count = len(speed)
    time = np.arange(SAMPLES) / RATE_HZ
    turns = speed[:, None] * time + rng.random((count, 1))
    shaft = np.sin(2 * np.pi * turns) + 0.4 * np.sin(4 * np.pi * turns + 1.0)
    knocks = _ORDER * turns + rng.random((count, 1))
    since = (knocks % 1.0) / (_ORDER * speed[:, None])
    frequency, decay = _RING
    ring = np.exp(-decay * since) * np.sin(2 * np.pi * frequency * since)
    felt = 0.5 * shaft + severity[:, None] * ring + 0.1 * rng.standard_normal((count, SAMPLES))
    packed = np.clip(felt * FULL_SCALE, -32_768, 32_767).astype(np.int16)
    return np.asarray(packed[..., None])
