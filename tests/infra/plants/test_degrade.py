"""Tests of degraded sensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.plants.base import Plant, PlantError, Sample, SensorBatch, make_plant
from infra.plants.degrade import Degraded
from schemas.system import load_spec

SPEC = load_spec("nav2d")
TICK_US = SPEC.period_us


def run(ticks: int = 60, seed: int = 0, **faults: Any) -> list[Sample]:
    """Samples of robots that drive about, with faults of sensor `odometry`."""
    options: dict[str, Any] = {"faults": {"odometry": faults}} if faults else {}
    plant: Plant = make_plant(SPEC, robots=20, **options)
    assert isinstance(plant, Degraded) == bool(faults)
    samples = [plant.reset(seed)]
    action = np.tile([0.5, -0.25], (20, 1))
    return [*samples, *(plant.step(action) for _ in range(ticks))]


def odometry(samples: list[Sample]) -> list[SensorBatch]:
    """The batches of `odometry`, one per sample."""
    found = []
    for sample in samples:
        of = [batch for batch in sample.batches if batch.sensor == "odometry"]
        found.append(of[0] if of else None)
    return [batch for batch in found if batch is not None]


def every(samples: list[Sample]) -> dict[tuple[int, int], tuple[float, ...]]:
    """Position by entity and time."""
    return {
        (int(e), int(t)): tuple(position)
        for batch in odometry(samples)
        for e, t, position in zip(
            batch.entity, batch.time_us, batch.values["position"], strict=True
        )
    }


def test_no_fault_changes_nothing() -> None:
    assert every(run(dropout=0.0)) == every(run())


def test_dropout_loses_its_share_and_leaves_the_rest_as_it_is() -> None:
    whole, left = every(run()), every(run(dropout=0.3))
    assert len(left) / len(whole) == pytest.approx(0.7, abs=0.04)
    assert left.items() <= whole.items()


def test_noise_has_its_deviation_on_the_named_channel_only() -> None:
    clean, noisy = odometry(run()), odometry(run(noise={"position": 0.5}))
    shift = np.concatenate(
        [a.values["position"] - b.values["position"] for a, b in zip(noisy, clean, strict=True)]
    )
    assert shift.std() == pytest.approx(0.5, rel=0.05)
    assert abs(shift.mean()) < 0.05
    np.testing.assert_array_equal(noisy[3].values["velocity"], clean[3].values["velocity"])


def test_a_delayed_sensor_says_what_was_and_only_when_it_is_due() -> None:
    delay = 230_000
    whole, samples = every(run()), run(delay="230 ms")
    for (entity, time), position in every(samples).items():
        assert position == whole[entity, time - delay]
    for sample in samples:
        for batch in sample.batches:
            assert (batch.time_us <= sample.tick * TICK_US).all()
            assert (batch.time_us > (sample.tick - 1) * TICK_US).all()
    assert len(every(samples)) > 0.9 * len(whole)


def test_duplicates_repeat_readings_as_they_are() -> None:
    samples, whole = run(duplicates=0.25), run()
    count = sum(map(len, odometry(samples))) / sum(map(len, odometry(whole)))
    assert count == pytest.approx(1.25, abs=0.04)
    assert every(samples) == every(whole)


def test_disorder_moves_readings_within_their_tick() -> None:
    samples, whole = run(disorder=0.5), run()
    assert every(samples) == every(whole)
    backwards = [(np.diff(batch.time_us) < 0).any() for batch in odometry(samples)]
    assert np.mean(backwards) > 0.9
    assert not any((np.diff(batch.time_us) < 0).any() for batch in odometry(whole))


def test_late_readings_come_one_tick_later_with_their_true_time() -> None:
    samples = run(late=0.2)
    age = np.concatenate(
        [
            sample.tick - np.ceil(batch.time_us / TICK_US)
            for sample in samples
            for batch in sample.batches
            if batch.sensor == "odometry"
        ]
    )
    assert set(age) == {0.0, 1.0}
    assert age.mean() == pytest.approx(0.2, abs=0.03)
    assert every(samples).items() <= every(run()).items()


def test_other_sensors_and_the_truth_stay_as_they_are_and_faults_are_seeded() -> None:
    clean, one, same, other = run(), run(dropout=0.5), run(dropout=0.5), run(dropout=0.5, seed=1)
    assert every(one) == every(same)
    assert every(one).keys() != every(other).keys()
    for a, b in zip(clean, one, strict=True):
        np.testing.assert_array_equal(a.reward, b.reward)
        goals = [
            [batch.values["goal"] for batch in s.batches if batch.sensor == "mission"]
            for s in (a, b)
        ]
        np.testing.assert_array_equal(goals[0], goals[1])


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"odometri": {}}, "no sensor 'odometri'"),
        ({"odometry": {"drop": 0.1}}, "no fault 'drop'"),
        ({"odometry": {"dropout": 1.5}}, "from 0 to 1"),
        ({"odometry": {"delay": -1.0}}, "0 s or more"),
        ({"odometry": {"noise": {"goal": 0.1}}}, "no channel 'goal'"),
    ],
)
def test_faults_that_cannot_be_are_refused(faults: dict[str, Any], message: str) -> None:
    with pytest.raises(PlantError, match=message):
        make_plant(SPEC, faults=faults)
