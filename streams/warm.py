"""No pause that can be helped: first calls before they count, and a garbage collector at rest."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from schemas.frames import Frame, decode_frame, encode_frame
from schemas.system import SystemSpec
from streams.align import Aligner

ENTITIES = 64
TICKS = 4


def warm_frames(spec: SystemSpec) -> list[Frame]:
    """Frames of a few ticks in which every entity of a made-up fleet says the same.

    Making them warms up an aligner's process, deciding them a worker's.
    """
    aligner = Aligner(spec, start_tick=1)
    rows = aligner.intern([f"warm-{i}" for i in range(ENTITIES)])
    frames: list[Frame] = []
    for tick in range(1, TICKS + 1):
        due = np.full(ENTITIES, spec.epoch_us + tick * spec.period_us)
        for name, sensor in spec.sensors.items():
            channels = sensor.channels.values()
            middle = [np.clip(1.0, c.low, c.high) for c in channels for _ in range(c.size)]
            aligner.readings(name, rows, due, np.tile(middle, (ENTITIES, 1)))
            aligner.watermark(sensor.topic, int(due[0]))
        frames += aligner.close()
    return [decode_frame(spec, encode_frame(spec, frame)) for frame in frames]


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Shorter pauses: what lives until the end is not looked through, and cycles are few."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
