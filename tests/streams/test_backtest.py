"""The loop without Kafka: the same seed gives the same run, and its files hold what happened."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from infra.plants.base import make_plant
from infra.traces import Trace
from schemas.messages import action_id
from schemas.system import load_spec
from streams.backtest import backtest, exploring, policies
from streams.backtest_setup import BacktestSetup, prepare

SPEC = load_spec("autoscale")
TRACE = Trace(60.0, np.linspace(30.0, 90.0, 60), 86_400_000_000)
TICKS = 60


def run(folder: Path, seed: int = 0, share: float | None = None) -> pl.DataFrame:
    plant = make_plant(SPEC, services=3, trace=TRACE)
    policy = policies(SPEC, None)["fallback"] if share is None else exploring(SPEC, share, seed)
    done = backtest(
        SPEC,
        plant,
        policy,
        seed=seed,
        ticks=TICKS,
        decisions=folder / "out.parquet",
        log=folder / "log",
    )
    assert done.ticks == TICKS
    assert done.modes == {"fallback": TICKS * 3}
    return pl.read_parquet(folder / "out.parquet")


def test_there_is_a_row_per_tick_and_entity_with_what_a_scorer_needs(tmp_path: Path) -> None:
    rows = run(tmp_path)
    assert rows.height == TICKS * 3
    wanted = {"entity", "time_s", "requests", "desired", "ready", "allocated", "mode", "action_id"}
    assert wanted <= set(rows.columns)
    assert rows.group_by("entity").len()["len"].to_list() == [TICKS] * 3
    first = rows.row(0, named=True)
    tick = round(first["time_s"] / 15)
    assert first["action_id"] == action_id("autoscale", first["entity"], tick)
    assert rows["action_id"].n_unique() == rows.height


def test_the_cost_can_be_recomputed_from_the_rows(tmp_path: Path) -> None:
    plant = make_plant(SPEC, services=3, trace=TRACE)
    done = backtest(
        SPEC,
        plant,
        policies(SPEC, None)["fallback"],
        ticks=TICKS,
        decisions=tmp_path / "out.parquet",
    )
    rows = pl.read_parquet(tmp_path / "out.parquet")
    assert rows["allocated"].sum() * 15 == pytest.approx(done.score["cost"], rel=1e-9)
    assert rows["requests"].sum() == done.score["requests"]


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(tmp_path: Path) -> None:
    first, again = run(tmp_path / "a"), run(tmp_path / "b")
    assert first.equals(again)
    assert not first.equals(run(tmp_path / "c", seed=1))


def test_a_fallback_keeps_up_with_a_rising_load(tmp_path: Path) -> None:
    rows = run(tmp_path)
    last = rows.filter(pl.col("time_s") == rows["time_s"].max())
    assert last["ready"].min() * 3 > 60.0  # type: ignore[operator]
    assert last["ready"].max() * 3 * 0.5 < 60.0  # type: ignore[operator]


def test_exploration_moves_the_actions_and_the_log_can_be_trained_from(tmp_path: Path) -> None:
    plain, explored = run(tmp_path / "a"), run(tmp_path / "b", share=1.0)
    assert explored["desired"].std() > 1.5 * plain["desired"].std()  # type: ignore[operator]
    log = pl.concat([pl.read_parquet(f) for f in (tmp_path / "b/log").rglob("*.parquet")])
    assert log.height == (TICKS + 1) * 3  # the last frame completes the last transition
    one = log.filter(pl.col("entity") == "service-01").sort("tick")
    assert one["tick"].diff().drop_nulls().unique().to_list() == [1]
    # what was decided at a tick is what the next frame says was applied
    assert one["applied:replicas"][1:].to_list() == one["action:replicas"][:-1].to_list()


def test_nav2d_runs_at_its_own_pace(tmp_path: Path) -> None:
    spec = load_spec("nav2d")
    plant = make_plant(spec, robots=20)
    done = backtest(spec, plant, policies(spec, None)["fallback"], ticks=30)
    assert done.score["reached"] < 0.2  # the fallback only brakes
    assert done.frames == 30 * spec.cohorts
    assert done.speed > 0


def test_a_day_that_is_not_there_is_told() -> None:
    setup = BacktestSetup(SPEC, None, 99, "fallback", 0.5, 0, (), {"services": 1})
    with pytest.raises(ValueError, match="the trace has 14 full days: 0 to 13"):
        prepare(setup)


def test_a_planner_without_a_bundle_says_what_to_do(tmp_path: Path) -> None:
    setup = BacktestSetup(SPEC, None, None, "planner", 0.5, 0, (tmp_path,), {"services": 1})
    with pytest.raises(ValueError, match="rehearse train"):
        prepare(setup)


def test_unhurried_the_planner_gives_the_same_run_however_long_it_takes(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "planner/bundles/autoscale"
    spec = SPEC.model_copy(update={"budget": SPEC.budget.model_copy(update={"deadline_us": 1})})
    rows = []
    for name, unhurried in (("a", True), ("b", True), ("c", False)):
        setup = BacktestSetup(
            spec, None, None, "planner", 0.5, 0, (shipped,), {"services": 2}, unhurried
        )
        plant, policy = prepare(setup)
        done = backtest(spec, plant, policy, ticks=12, decisions=tmp_path / name)
        rows.append(pl.read_parquet(tmp_path / name))
        assert ("plan" in done.modes) == unhurried  # a microsecond is enough for nobody
    assert rows[0].equals(rows[1])
