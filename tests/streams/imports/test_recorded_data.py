"""Real logs through their shipped mappings: equal to a plain offline reference."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.codes import Status
from schemas.frames import Frame
from schemas.system import SystemSpec, load_spec, spec_path
from streams.imports.frames import Alignment
from streams.imports.gather import Gathered, Stream, gather
from streams.imports.mapping import load_mapping
from tests.streams.offline import offline

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        "REHEARSE_DATA" not in os.environ, reason="REHEARSE_DATA names no folder of recorded data"
    ),
]
EXAMPLES = Path(spec_path("nav2d")).parents[2] / "streams/imports/examples"
FILES = {"husky": "husky_drive.bag", "px4": "px4_flight.ulg", "comma": "comma2k19_drive/*.parquet"}


@cache
def gathered(name: str) -> tuple[SystemSpec, Gathered]:
    files = sorted(Path(os.environ["REHEARSE_DATA"]).glob(FILES[name]))
    assert files
    spec = load_spec(EXAMPLES / f"{name}.yaml")
    return spec, gather(load_mapping(EXAMPLES / f"{name}.map.yaml", spec), spec, files)


def thinned(found: Gathered, share: float) -> Gathered:
    """Without a random `share` of the readings of the sensor that has the most."""
    most = max(found.sensors, key=lambda name: len(found.sensors[name].time_us))
    stream = found.sensors[most]
    kept = np.random.default_rng(0).random(len(stream.time_us)) >= share
    fewer = Stream(stream.entity[kept], stream.time_us[kept], stream.values[kept])
    return found._replace(sensors={**found.sensors, most: fewer})


@pytest.fixture(scope="module", params=[(n, share) for n in sorted(FILES) for share in (0.0, 0.4)])
def imported(request: pytest.FixtureRequest) -> tuple[SystemSpec, Gathered, list[Frame]]:
    """A log as it is, and with 40 % of its fastest sensor lost."""
    name, share = request.param
    spec, found = gathered(name)
    found = thinned(found, share) if share else found
    alignment = Alignment(spec, found)
    frames = list(alignment.frames())
    assert alignment.counters["readings"] == found.readings
    assert not {"late", "future", "out_of_range"} & set(alignment.counters)
    return spec, found, frames


def test_every_tick_is_there_and_every_value_is_the_offline_one(
    imported: tuple[SystemSpec, Gathered, list[Frame]],
) -> None:
    spec, found, frames = imported
    ticks = [frame.tick for frame in frames]
    assert ticks == list(range(ticks[0], ticks[-1] + 1))
    made = np.stack([frame.values[0] for frame in frames])
    compared = column = 0
    for name, sensor in spec.sensors.items():
        stream, own = found.sensors[name], 0
        unique = np.append(np.diff(stream.time_us) > 0, True)
        first = np.append(True, np.diff(stream.time_us) > 0)  # of equal times the first counts
        assert unique.sum() == first.sum()
        times, table = stream.time_us[first], stream.values[first]
        for channel in sensor.channels.values():
            for _ in range(channel.size):
                wanted: list[Any] = [
                    offline(
                        times,
                        table[:, own],
                        spec.epoch_us + tick * spec.period_us,
                        spec,
                        channel.align,
                        sensor.max_age_us,
                    )
                    for tick in ticks
                ]
                kept = np.array([value is not None for value in wanted])
                reference = np.array([w for w in wanted if w is not None])
                np.testing.assert_allclose(
                    made[kept, column], reference, rtol=1e-9, atol=1e-12, err_msg=channel.name
                )
                compared += int(np.isfinite(reference).sum())
                own += 1
                column += 1
    assert compared > 10_000


def test_the_drivers_or_pilots_actions_are_in_force(
    imported: tuple[SystemSpec, Gathered, list[Frame]],
) -> None:
    spec, found, frames = imported
    if found.actions is None:
        assert all(np.isnan(frame.applied).all() for frame in frames)
        return
    times = found.actions.time_us
    for frame in frames[5:]:
        before = spec.epoch_us + (frame.tick - 1) * spec.period_us
        end = int(np.searchsorted(times, before, side="right"))
        if end:
            np.testing.assert_array_equal(frame.applied[0], found.actions.values[end - 1])
            assert frame.status[0] == Status.APPLIED
