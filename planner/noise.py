"""Noise that is a function of its key, so that a plan can be computed again from the log.

The generator is counter-based: block n of the stream of a key is Philox4x64-10(key, n), with no
state carried from call to call (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
1, 2, 3", SC 2011; the Random123 library). Here seed and cohort are Philox's 128-bit key, tick and
stream the upper half of its 256-bit counter, and the lower half counts the blocks within one call:
no two keys can ever share a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_WORD = (1 << 64) - 1


def normal(
    seed: int, cohort: int, tick: int, stream: int, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Standard normal samples `[*shape]` in float32, the same for the same key whenever called.

    `stream` tells apart what is drawn within one tick: the planner's iterations, its purposes. Each
    part of the key is taken modulo 2^64, so a negative tick is as good as any. A longer shape
    begins with the samples of a shorter one. The numbers are those of NumPy's ziggurat
    (`Generator.standard_normal`); NumPy may change it in a new version, which a test notices.
    """
    key = np.array([seed & _WORD, cohort & _WORD], dtype=np.uint64)
    counter = np.array([0, 0, tick & _WORD, stream & _WORD], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.standard_normal(shape, dtype=np.float32)
