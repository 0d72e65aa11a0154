"""Windows: parts that share no tick, nothing beyond an end, and ends that are foreseen."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.termination import ending, judge_ends
from models.evaluation.windows import WARM, Imagined, cut, draw_windows
from tests.models.evaluation.robots import SPEC, robots
from tests.planner.worlds import edited


@given(st.integers(1, 5), st.integers(20, 300), st.integers(1, 50), st.integers(0, 9))
def test_blocks_cover_the_data_once_and_windows_stay_inside(
    entities: int, ticks: int, longest: int, seed: int
) -> None:
    data = robots(entities, ticks)
    edges, part = cut(data, WARM + longest)
    assert edges[0, 0] == 0
    assert edges[-1, 1] == len(data)
    np.testing.assert_array_equal(edges[1:, 0], edges[:-1, 1])
    assert abs(int((part == 0).sum()) - int((part == 1).sum())) <= 1
    windows = draw_windows(data, np.random.default_rng(seed), 40, longest)
    known = np.isfinite(windows.alive).sum(1)
    assert (known > WARM).all()
    first, last = windows.starts, windows.starts + known - 1
    assert (edges[windows.block, 0] <= first).all()
    assert (last < edges[windows.block, 1]).all()
    np.testing.assert_array_equal(windows.fitting, part[windows.block] == 0)


def test_what_is_beyond_the_end_is_not_known() -> None:
    data = robots(3, 30)
    windows = draw_windows(data, np.random.default_rng(0), 1000, 10)
    assert len(windows) == 3 * (30 - WARM)
    late = windows.starts % 30 == 30 - WARM - 1
    assert np.isnan(windows.obs[late][:, WARM + 1 :]).all()
    assert np.isfinite(windows.obs[late][:, : WARM + 1]).all()
    row = windows.starts[late][0] + WARM
    np.testing.assert_array_equal(windows.action[late][0, -1], data.action[row])


def _futures(alive: np.ndarray, channels: np.ndarray | None = None) -> Imagined:
    shape = (*alive.shape, 6)
    shown = np.zeros(shape, np.float32) if channels is None else channels
    return Imagined(shown, np.zeros(alive.shape, np.float32), alive.astype(np.float32))


def test_a_future_that_has_ended_says_nothing_of_later_ends() -> None:
    windows = draw_windows(robots(2, 40), np.random.default_rng(0), 4, 2)
    alive = np.ones((2, 100, len(windows)))
    alive[0, :50] = 0.0  # half of the futures end at once
    alive[1, :50] = 0.0  # and would end again, if they could
    found = ending(SPEC, _futures(alive), windows)
    np.testing.assert_allclose(found[0], 0.5, atol=0.01)
    np.testing.assert_allclose(found[1], 0.5 / 51, atol=1e-9)


def test_the_spec_says_what_ends_where_it_can() -> None:
    spec = edited("nav2d", ("fallback: {", 'termination: "position[0] > 1"\nfallback: {'))
    windows = draw_windows(robots(2, 40), np.random.default_rng(0), 4, 2)
    channels = np.zeros((2, 100, len(windows), 6), np.float32)
    channels[1, :30, :, 0] = 2.0
    found = ending(spec, _futures(np.zeros((2, 100, len(windows))), channels), windows)
    np.testing.assert_allclose(found[0], 0.5 / 101)
    np.testing.assert_allclose(found[1], 30.5 / 101)
    assert judge_ends(spec, found, windows) == {"by": "expression", "ticks": 8, "ends": 0}


def test_ends_that_are_told_apart_score_so() -> None:
    windows = draw_windows(robots(2, 40), np.random.default_rng(0), 8, 5)
    windows.alive[:3, WARM + 4] = 0.0
    chance = np.full((5, 8), 0.01)
    chance[4, :3] = 0.9
    good = judge_ends(SPEC, chance, windows)
    assert (good["ends"], good["auroc"]) == (3, 1.0)
    assert good["brier"] < good["brier_base"]
    assert good["log_loss"] < good["log_loss_base"]
    bad = judge_ends(SPEC, 1 - chance, windows)
    assert bad["auroc"] == 0.0
    assert bad["brier"] > bad["brier_base"]
