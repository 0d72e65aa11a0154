"""What a plant's readings say at a tick is what the aligner makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.plants.base import make_plant
from infra.plants.degrade import Faults
from infra.plants.seen import Seen
from schemas.clock import tick_time
from schemas.codes import Status
from schemas.system import load_spec
from schemas.topics import topic
from streams.align import Aligner

LOST = {"dropout": 0.8}


@pytest.mark.parametrize(
    ("system", "options"),
    [
        ("nav2d", {"robots": 6}),
        ("nav2d", {"robots": 6, "faults": {"odometry": Faults(**LOST, delay=0.13)}}),
        ("nav2d", {"robots": 6, "faults": {"odometry": Faults(dropout=1.0)}}),
        ("autoscale", {"services": 4}),
        ("autoscale", {"services": 4, "faults": {"load": Faults(**LOST), "pods": Faults(**LOST)}}),
    ],
)
def test_as_the_aligner(system: str, options: dict[str, Any]) -> None:
    spec = load_spec(system)
    plant = make_plant(spec, **options)
    sample = plant.reset(3)
    seen, known = Seen(spec, len(plant.entities)), 0
    aligner = Aligner(spec, "event", start_tick=sample.tick)
    index = aligner.intern(plant.entities)
    sources = list(dict.fromkeys(sensor.topic for sensor in spec.sensors.values()))
    everyone = np.arange(len(index))
    for _ in range(40):
        for batch in sample.batches:
            aligner.readings(batch.sensor, index[batch.entity], batch.time_us, batch.values)
        now = tick_time(sample.tick, spec.epoch_us, spec.period_us)
        for name in (topic(spec, "applied"), *sources):
            aligner.watermark(name, now)
        seen.take(sample)
        found = dict(zip(plant.entities, seen.values(sample.tick), strict=True))
        for frame in aligner.close():
            assert frame.tick == sample.tick
            for entity, values in zip(frame.entities, frame.values, strict=True):
                np.testing.assert_allclose(found[entity], values, rtol=1e-12, atol=1e-12)
                known += int(np.isfinite(values).sum())
        action = np.tile(np.clip(0.3, spec.action_low, spec.action_high), (len(index), 1))
        ticks = np.full(len(index), sample.tick, dtype=np.int64)
        status = np.full(len(index), int(Status.APPLIED), dtype=np.int64)
        aligner.applied(index[everyone], ticks, action, status)
        sample = plant.step(action)
    assert known > 300


def test_a_copy_goes_its_own_way() -> None:
    spec = load_spec("nav2d")
    plant = make_plant(spec, robots=3)
    seen = Seen(spec, 3)
    first = plant.reset(0)
    seen.take(first)
    before = seen.values(first.tick)
    copied = seen.copied(np.array([2, 2, 0]))
    np.testing.assert_array_equal(copied.values(first.tick), before[[2, 2, 0]])
    copied.take(plant.step(np.ones((3, 2))))
    np.testing.assert_array_equal(seen.values(first.tick), before)
