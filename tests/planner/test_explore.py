"""Exploration: only the fallback's actions, only inside the range, the same in every replay."""

import numpy as np
import pytest

from planner.explore import explore, reach
from schemas.codes import Mode
from schemas.frames import Frame, FrameHeader
from schemas.spec_parts import ExploreSpec
from schemas.system import SystemSpec, load_spec

COUNT = 400


def exploring(share: float, hold: int = 8) -> SystemSpec:
    spec = load_spec("autoscale")
    return spec.model_copy(update={"explore": ExploreSpec(share=share, hold=hold)})


def frame(spec: SystemSpec, tick: int) -> Frame:
    return Frame(
        FrameHeader(spec.system, 0, tick, 0),
        tuple(f"service-{i:03d}" for i in range(COUNT)),
        np.zeros((COUNT, len(spec.columns))),
        np.zeros((COUNT, len(spec.channels)), np.float32),
        np.zeros((COUNT, 1)),
        np.zeros(COUNT, np.uint8),
        np.zeros(COUNT, np.uint8),
    )


def explored(spec: SystemSpec, tick: int, mode: Mode = Mode.FALLBACK) -> np.ndarray:
    proposal = np.full((COUNT, 1), 50.0)
    return explore(spec, frame(spec, tick), proposal, np.full(COUNT, mode, np.uint8))


def test_a_spec_without_exploration_changes_nothing() -> None:
    assert (explored(load_spec("autoscale"), 3) == 50.0).all()


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.HOLD, Mode.OVERRIDE, Mode.ACTOR])
def test_only_the_fallback_explores(mode: Mode) -> None:
    assert (explored(exploring(1.0), 3, mode) == 50.0).all()


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_so_many_entities_explore(share: float) -> None:
    ticks = [explored(exploring(share), tick) != 50.0 for tick in range(0, 80, 8)]
    assert np.mean(ticks) == pytest.approx(share, abs=0.03)


def test_a_shift_lasts_for_a_stretch_and_then_changes() -> None:
    spec = exploring(1.0)
    same = [explored(spec, tick) for tick in range(16, 24)]
    assert all((other == same[0]).all() for other in same)
    assert not (explored(spec, 24) == same[0]).any()


def test_shifts_are_as_large_as_a_few_ticks_may_cover_and_in_range() -> None:
    spec = exploring(1.0)
    shifts = np.concatenate([explored(spec, tick) - 50.0 for tick in range(0, 400, 8)])
    assert np.std(shifts) == pytest.approx(reach(spec)[0], rel=0.05)
    assert reach(spec)[0] == pytest.approx((10 + 3) / 4)
    low = explore(spec, frame(spec, 0), np.full((COUNT, 1), 1.0), np.full(COUNT, 3, np.uint8))
    assert low.min() == 1.0
