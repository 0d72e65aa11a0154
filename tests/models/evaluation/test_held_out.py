"""Bundles whose faults are known: the evaluation finds these, and recalibration mends them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.data import Sequences
from models.evaluation.drift import drift
from models.evaluation.foresee import LEVELS
from models.evaluation.held_out import evaluate
from models.evaluation.report import write_report
from models.evaluation.result import Evaluation
from models.evaluation.sections import Section
from models.evaluation.tell import brief, full
from models.evaluation.worst import typical_windows, worst_episodes, worst_windows
from models.registry import write_recalibrated
from planner.session import Bundle, load_bundle
from tests.models.evaluation.robots import SIGMA, SPEC, knowing, robots

DATA = robots(800, 60)
SHORT = (1, 5, 20)
AT80 = LEVELS.index(0.8)


def apart(*lengths: int) -> Sequences:
    """One robot, whose ticks are in sequences of such lengths."""
    data = robots(1, sum(lengths))
    size = np.array(lengths, dtype=np.int64)
    ends = np.cumsum(size)
    first, last = np.repeat(ends - size, size), np.repeat(ends, size)
    return replace(data, first=first, last=last)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return knowing(tmp_path_factory.mktemp("wide"), 3 * SIGMA)


@pytest.fixture(scope="module")
def found(wide: Bundle) -> Evaluation:
    return evaluate(wide, SPEC, DATA, horizons=SHORT, windows=1600, futures=8)


def test_errors_and_spreads_are_those_that_theory_gives(tmp_path: Path) -> None:
    right = knowing(tmp_path, SIGMA)
    found = evaluate(right, SPEC, DATA, horizons=SHORT, windows=1600, futures=8)
    ahead = np.arange(1, 21)
    theory = SIGMA * np.sqrt((ahead + 1) * (1 + 1 / 40))  # the mean of 40 futures is one too
    np.testing.assert_allclose(found.rmse[:, 0], theory, rtol=0.12)
    np.testing.assert_allclose(found.rmse[:, 2], 0.0, atol=1e-4)
    for i, level in enumerate(LEVELS):
        np.testing.assert_allclose(found.coverage.share[i, :, :2], level, atol=0.05)
    np.testing.assert_allclose(found.pit[:, 0, :2], 1.0, atol=0.3)
    assert found.worse == ()
    assert found.ends == {"by": "learned head", "ticks": found.ends["ticks"], "ends": 0}


def test_too_wide_spreads_are_found_and_mended(found: Evaluation) -> None:
    assert (found.before.share[AT80, :, :2] > 0.97).all()
    assert found.after is not None
    assert np.abs(found.after.gap()[AT80, :, :2]).mean() < 0.035  # two standard errors
    narrower = found.after.width[AT80, :, :2] / found.before.width[AT80, :, :2]
    np.testing.assert_allclose(narrower, 1 / 3, atol=0.06)
    assert found.within(found.after) > found.within(found.before)


def test_the_same_seed_gives_the_same_figures(wide: Bundle) -> None:
    one, same, other = (
        full(evaluate(wide, SPEC, DATA, horizons=(1, 5), windows=160, futures=2, seed=seed))
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_horizons_that_no_window_reaches_are_said_to_be_left_out(wide: Bundle) -> None:
    found = evaluate(wide, SPEC, robots(40, 30), windows=100, futures=2)
    assert (found.horizons, found.left_out) == ((1, 5, 10), (20, 50))
    assert brief(found)["left_out"] == [20, 50]
    with pytest.raises(ValueError, match="log longer runs"):
        evaluate(wide, SPEC, robots(40, 16))


@pytest.mark.parametrize("lengths", [(21,), (33,), (16, 33)])
def test_one_short_sequence_is_refused_with_what_is_needed(
    wide: Bundle, lengths: tuple[int, ...]
) -> None:
    longest = max(lengths)
    wanted = f"{sum(lengths)} rows, {longest} of them in the longest .* needed are 34 in one"
    with pytest.raises(ValueError, match=wanted):
        evaluate(wide, SPEC, apart(*lengths))


@pytest.mark.parametrize("lengths", [(34,), (16, 34), (17, 10, 17), (100,)])
def test_little_is_enough_where_both_parts_get_some(wide: Bundle, lengths: tuple[int, ...]) -> None:
    found = evaluate(wide, SPEC, apart(*lengths), horizons=(1, 5), futures=2)
    assert set(found.windows.fitting) == {True, False}
    assert np.isfinite(found.before.share[:, 0, :2]).all()


def test_windows_of_which_none_is_left_to_judge_are_too_few(wide: Bundle) -> None:
    with pytest.raises(ValueError, match=r"1 window, all .* fitted on: ask for more"):
        evaluate(wide, SPEC, DATA, windows=1, seed=3)


def test_a_few_windows_are_judged_but_not_recalibrated_on(wide: Bundle) -> None:
    found = evaluate(wide, SPEC, robots(4, 30), windows=20, futures=2)
    assert found.recalibration is None
    assert found.after is None
    assert brief(found)["recalibration"] is None
    assert "recalibration" not in found.calibration(0.9)
    assert drift(wide, found, DATA) is None


def test_a_bundle_that_is_worse_than_persistence_is_said_to_be(tmp_path: Path) -> None:
    mad = knowing(tmp_path, 100 * SIGMA)
    found = evaluate(mad, SPEC, DATA, horizons=(1, 5), windows=64, futures=2)
    assert {"position[0]", "position[1]"} <= set(found.worse)


def test_a_copy_of_the_bundle_carries_the_factors(
    tmp_path: Path, wide: Bundle, found: Evaluation
) -> None:
    made = write_recalibrated(wide.path, tmp_path / "copy", found.recalibration)
    copy = load_bundle(tmp_path / "copy", provider="cpu")
    copy.check(SPEC)
    assert copy.digest == made["digest"] != wide.digest
    assert copy.manifest.lineage["recalibrated_from"] == wide.digest
    assert copy.manifest.calibration.recalibration == found.recalibration
    judged = evaluate(copy, SPEC, robots(800, 60, seed=5), horizons=SHORT, windows=1600, futures=8)
    assert judged.stored == found.recalibration
    assert judged.after is not None
    assert np.abs(judged.after.gap()[AT80, :, :2]).mean() < 0.035
    assert brief(judged)["recalibration"]["by"] == "the bundle"
    with pytest.raises(ValueError, match="itself"):
        write_recalibrated(wide.path, wide.path, found.recalibration)
    with pytest.raises(ValueError, match="too few"):
        write_recalibrated(wide.path, tmp_path / "none", None)


def test_under_drift_only_the_adaptive_factor_keeps_its_coverage(
    wide: Bundle, found: Evaluation
) -> None:
    tried = drift(wide, found, robots(64, 220, seed=3))
    assert tried is not None
    end = slice(-40, None)
    assert tried.fixed[: tried.begins, :2].mean() == pytest.approx(0.8, abs=0.05)
    assert tried.fixed[end, :2].mean() < 0.6
    assert tried.adaptive[end, :2].mean() == pytest.approx(0.8, abs=0.04)
    told = tried.as_dict()
    assert told["fixed_under"]["position[0]"] < told["adaptive_under"]["position[0]"]


def test_the_worst_window_is_found_where_something_odd_was_done(wide: Bundle) -> None:
    data = robots(60, 60)
    data.obs[20 * 60 + 35 : 20 * 60 + 60, 1] += 4.0  # someone carried robot-20 away
    found = evaluate(wide, SPEC, data, horizons=(1, 10), windows=2000, futures=4)
    worst = worst_windows(found, data)
    assert worst[0].entity == "robot-20"
    assert found.columns[worst[0].channel] == "position[1]"
    assert len({x.entity for x in worst}) == len(worst)
    assert worst_episodes(found, data)[0]["entity"] == "robot-20"
    assert len(typical_windows(found)) == 4


def test_json_and_report_hold_what_was_found(
    tmp_path: Path, wide: Bundle, found: Evaluation
) -> None:
    content = json.loads(json.dumps(full(found), allow_nan=False))
    assert set(content["steps"]) == {"1", "5", "20"}
    assert len(content["growth"]["position[0]"]["rmse"]) == 20
    spread = content["calibration"]["5"]["position[0]"]
    assert set(spread["coverage"]) == set(spread["width"]) == {"50", "80", "95"}
    assert len(spread["pit"]) == 10
    assert content["reward"]["5"]["of_persistence"] > 0
    more = Section("Against a simulator", "How to read it.", rows=[{"regret": "0.1"}])
    tried = drift(wide, found, robots(64, 120, seed=3))
    facts = {"system": "nav2d", "digest": wide.digest}
    path = write_report(tmp_path / "sub" / "page.html", found, DATA, tried, facts, [more])
    page = path.read_text()
    for heading in ("what came", "Error against", "honest", "PIT", "drifts", "worst", "simulator"):
        assert heading in page
    assert wide.digest in page
    assert "src=" not in page.split("</head>")[1]  # nothing is fetched
