"""The load of the retraining demo: days that are alike, and long enough."""

import json
from pathlib import Path

import numpy as np
import pytest

from infra.traces import Trace, days
from streams.demo_scene import DemoOptions
from streams.retrain import _check, _training_note, steady_days

DAY_US = 86_400_000_000


def day(number: int, mean: float, hours: int = 24) -> Trace:
    return Trace(3_600.0, np.full(hours, mean), number * DAY_US)


def test_the_days_most_alike_are_taken_in_their_order() -> None:
    means = (10.0, 50.0, 100.0, 110.0, 105.0, 20.0)
    load = steady_days(tuple(day(i, mean) for i, mean in enumerate(means)))
    assert load.start_us == 2 * DAY_US
    assert load.rates[::24].tolist() == [100.0, 110.0, 105.0]


def test_a_short_load_is_repeated_until_it_is_long_enough() -> None:
    assert steady_days((day(0, 5.0),)).rates.tolist() == [5.0] * 72
    half = steady_days((day(0, 5.0, hours=12),))
    assert len(days(half)) >= 3
    assert set(half.rates.tolist()) == {5.0}


def test_a_system_without_an_endless_plant_is_refused() -> None:
    with pytest.raises(ValueError, match="--system autoscale"):
        _check(DemoOptions(system="nav2d"))
    with pytest.raises(ValueError, match="leave out --ticks"):
        _check(DemoOptions(ticks=10))


def test_the_progress_of_training_is_told(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    assert "reading" in _training_note(file)
    file.write_text(json.dumps({"step": 1_200, "total": 2_000}))
    assert "update 1,200 of 2,000" in _training_note(file)
    file.write_text(json.dumps({"step": 2_000, "total": 2_000}))
    assert "exporting" in _training_note(file)
