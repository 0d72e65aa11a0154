"""Tests of the cluster as a plant: readings, billing, common arrivals, scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.plants.base import Floats, PlantError, Sample, make_plant
from infra.plants.cluster import Cluster
from infra.traces import Trace
from schemas.system import load_spec

SPEC = load_spec("autoscale")


def flat(rate: float, ticks: int = 40) -> Trace:
    """A constant rate in bins of 15 s."""
    return Trace(15.0, np.full(ticks, rate))


def cluster(**options: Any) -> Cluster:
    plant = make_plant(SPEC, **{"services": 2, "mean_replicas": None, **options})
    assert isinstance(plant, Cluster)
    return plant


def replicas(*counts: float) -> Floats:
    return np.array(counts, dtype=np.float64)[:, None]


def readings(sample: Sample, sensor: str, channel: str) -> Floats:
    """`[times, E]` of one channel."""
    batch = next(batch for batch in sample.batches if batch.sensor == sensor)
    return batch.values[channel].reshape(-1, 2)


def test_equal_seeds_and_actions_give_equal_samples_and_other_seeds_do_not() -> None:
    runs = []
    for seed in (3, 3, 4):
        plant = cluster(trace=flat(20.0))
        plant.reset(seed)
        runs.append([plant.step(replicas(9 + k % 3, 8)) for k in range(10)])
    for one, same in zip(runs[0], runs[1], strict=True):
        for name in one.outcomes:
            np.testing.assert_array_equal(one.outcomes[name], same.outcomes[name])
    assert any(
        (one.outcomes["requests"] != other.outcomes["requests"]).any()
        for one, other in zip(runs[0], runs[2], strict=True)
    )


def test_every_policy_meets_the_same_arrivals() -> None:
    arrived = []
    for count in (1, 7, 60):
        plant = cluster(trace=flat(20.0))
        plant.reset(1)
        arrived.append([plant.step(replicas(count, count)).outcomes["requests"] for _ in range(20)])
    np.testing.assert_array_equal(arrived[0], arrived[1])
    np.testing.assert_array_equal(arrived[0], arrived[2])
    assert not np.array_equal(np.array(arrived[0])[:, 0], np.array(arrived[0])[:, 1])


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(PlantError, match=r"no option 'replicas'.*mean_replicas"):
        cluster(replicas=3)


def test_readings_are_stamped_on_the_grid_of_their_sensor() -> None:
    plant = cluster(trace=flat(20.0), start_us=1_000_000_000_000_000)
    for sample in (plant.reset(0), plant.step(replicas(9, 9)), plant.step(replicas(9, 9))):
        end = sample.tick * SPEC.period_us
        load, pods = sample.batches
        assert (np.unique(load.time_us) - end).tolist() == [-10_000_000, -5_000_000, 0]
        assert (np.unique(pods.time_us) - end).tolist() == [0]
        np.testing.assert_array_equal(load.entity, [0, 1] * 3)
    assert end - 1_000_000_000_000_000 == pytest.approx(2 * SPEC.period_us, abs=SPEC.period_us)


def test_readings_are_as_old_as_the_metric_delay() -> None:
    """Three windows of `load` make one tick, so the truth of a tick is read `delay` later."""
    truth, read, ready = [], [], []
    plant = cluster(trace=flat(20.0), metric_delay="30 s", cold_start=0.0)
    plant.reset(0)
    for k in range(20):
        sample = plant.step(replicas(10 + k, 5))
        truth.append(sample.outcomes["requests"])
        read.append(readings(sample, "load", "requests").sum(axis=0) * 5.0)
        ready.append(readings(sample, "pods", "ready")[0, 0])
    np.testing.assert_allclose(read[2:], truth[:-2])
    assert ready[2:] == [10.0 + k for k in range(18)]


def test_arrivals_are_the_same_for_every_metric_delay_and_cold_start() -> None:
    seen = []
    for options in ({"metric_delay": 0.0}, {"metric_delay": 60.0}, {"cold_start": 300.0}):
        plant = cluster(trace=flat(20.0), **options)
        plant.reset(0)
        seen.append([plant.step(replicas(9, 9)).outcomes["requests"] for _ in range(10)])
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])


def test_billing_begins_with_the_request_and_ends_when_draining_ends() -> None:
    plant = cluster(trace=flat(0.3), service="constant", service_time=40.0, services=2)
    plant.reset(0)  # 0.3/s × 40 s = 12 Erlang: 18 replicas at 70 %
    assert (plant.step(replicas(18, 18)).outcomes["cost"] == 18 * 15.0).all()
    grown = plant.step(replicas(25, 18))
    np.testing.assert_array_equal(grown.outcomes["cost"], [25 * 15.0, 18 * 15.0])
    assert grown.outcomes["ready"][0] + grown.outcomes["starting"][0] == 25
    idle = 25 - 18
    cut = plant.step(replicas(1, 18))
    # What was starting costs nothing more, what was ready costs at most the rest of its request.
    assert 15.0 < cut.outcomes["cost"][0] <= 15.0 + (24 - idle) * 40.0
    assert cut.outcomes["allocated"][0] == cut.outcomes["cost"][0] / 15.0
    total = 18 * 15.0 * 4 + 25 * 15.0 + cut.outcomes["cost"][0]
    assert plant.score()["cost"] == pytest.approx(total)


def test_draining_is_billed_to_the_end_of_the_running_request() -> None:
    plant = cluster(trace=flat(0.3), service="constant", service_time=40.0, services=1)
    plant.reset(0)
    for _ in range(5):
        plant.step(replicas(18))
    free = np.sort(plant._running().free[0, :18])
    rest = np.maximum(free - 5 * 15.0, 0.0)  # seconds that each of the 18 has yet to work
    assert 0 < np.count_nonzero(rest) < 18
    cost = plant.step(replicas(3)).outcomes["cost"][0]
    assert cost == pytest.approx(3 * 15.0 + rest[:15].sum())
    assert plant.step(replicas(3)).outcomes["cost"][0] == 3 * 15.0


def test_a_replica_is_ready_after_its_cold_start() -> None:
    plant = cluster(trace=flat(20.0), cold_start="40 s", services=2)
    plant.reset(0)
    ready = [plant.step(replicas(60, 10)).outcomes["ready"][0] for _ in range(8)]
    assert ready[0] == 10.0  # 15 s: none of the lognormal's quantiles lies there
    assert 10 < ready[2] < 60  # 45 s: some, not all
    assert ready[-1] == 60.0


def test_cold_starts_have_their_mean_and_quantiles(tmp_path: Any) -> None:
    lognormal = cluster(trace=flat(1.0)).options.cold_quantiles()
    assert lognormal.mean() == pytest.approx(30.0)
    assert np.quantile(lognormal, 0.95) == pytest.approx(45.0, rel=0.01)
    file = tmp_path / "cold.csv"
    file.write_text("kind,quantile,seconds\nmodel,0.1,10\nmodel,0.9,90\nother,0.5,1\n")
    options = {"cold_start_csv": file, "cold_start_kind": "model"}
    measured = cluster(trace=flat(1.0), cold_start=None, **options).options.cold_quantiles()
    assert np.median(measured) == pytest.approx(50.0)
    assert (measured.min(), measured.max()) == (10.0, 90.0)
    scaled = cluster(trace=flat(1.0), cold_start=120.0, **options).options.cold_quantiles()
    assert scaled.mean() == pytest.approx(120.0)
    with pytest.raises(PlantError, match="no rows of kind 'none'; there are model, other"):
        cluster(trace=flat(1.0), cold_start_csv=file, cold_start_kind="none").reset(0)


def test_twice_the_replicas_have_twice_the_throughput_under_saturation() -> None:
    served = []
    for count in (20, 40):
        plant = cluster(trace=flat(300.0, 60), cold_start=0.0)
        plant.reset(0)
        outcomes = [plant.step(replicas(count, count)).outcomes for _ in range(60)]
        served.append(sum((o["requests"] - o["abandoned"]).sum() for o in outcomes[5:]))
    assert served[1] / served[0] == pytest.approx(2.0, rel=0.02)


def test_the_score_agrees_with_the_outcomes() -> None:
    plant = cluster(trace=flat(20.0), mean_replicas=10.0)
    plant.reset(0)
    outcomes = [plant.step(replicas(11 + k % 2, 10)).outcomes for k in range(40)]
    score = plant.score()
    total = {name: sum(o[name].sum() for o in outcomes) for name in outcomes[0]}
    assert score["cost"] == pytest.approx(total["cost"])
    drained = score["cost"] - 15.0 * (20 * 11 + 20 * 12 + 40 * 10)
    assert 0.0 <= drained < 20 * 2.0  # twenty times, one replica ends a request of a third of 1 s
    assert score["requests"] == total["requests"]
    waiting = outcomes[-1]["queue"].sum()
    assert total["late"] < score["late"] <= total["late"] + waiting  # some wait too long already
    assert score["slo"] == pytest.approx(1.0 - score["late"] / score["requests"], abs=1e-3)
    assert 0.5 < score["slo"] < 0.999
    assert score["flips"] == 39.0  # from 15: down to 11, up, down, …: 40 changes of the first
    assert score["flips_per_service_day"] == pytest.approx(39.0 / (2 * 600.0 / 86_400.0))
    elastic = 2 * 600.0 * 10.0
    assert score["cost_ratio"] == pytest.approx(score["cost"] / elastic)
    assert 0.0 <= score["wait_p50"] <= score["wait_p99"] <= 10.0
    assert score["wait_p99"] > 0.5


def test_load_is_scaled_to_the_mean_number_of_busy_replicas() -> None:
    rates = np.array([[1.0, 2.0] * 20, [5.0, 5.0] * 20])
    plant = cluster(trace=Trace(30.0, rates), mean_replicas=20, service_time=0.5)
    assert plant.ticks == 80
    np.testing.assert_allclose(plant.rates.mean(axis=1) * 0.5, 20.0)
    np.testing.assert_allclose(plant.rates[0, :4] * 0.5, [20 / 1.5] * 2 + [40 / 1.5] * 2)


def test_true_rates_are_averages_over_ticks_of_finer_bins() -> None:
    plant = cluster(trace=Trace(1.0, np.arange(60.0)), services=1)
    np.testing.assert_allclose(plant.rates[0], [7.0, 22.0, 37.0, 52.0])


def test_actions_are_rounded_and_kept_within_the_spec() -> None:
    plant = cluster(trace=flat(20.0))
    plant.reset(0)
    np.testing.assert_array_equal(plant.step(replicas(12.4, 0.0)).outcomes["desired"], [12, 1])
    np.testing.assert_array_equal(plant.step(replicas(12.6, 999)).outcomes["desired"], [13, 200])
    with pytest.raises(PlantError, match="entity 1 is not finite"):
        plant.step(replicas(1.0, np.nan))


def test_a_day_goes_on_with_its_clock() -> None:
    plant = cluster(trace=Trace(60.0, np.full(1440, 5.0), start_us=1_704_067_200_000_000))
    sample = plant.reset(0)
    assert sample.tick * SPEC.period_us == 1_704_067_200_000_000
    assert plant.ticks == 5760


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"services": 0}, "services: at least 1"),
        ({"timeout": 0.1}, "timeout: more than slo_wait"),
        ({"service": "uniform"}, "'exponential' or 'constant'"),
        ({"metric_delay": "12345 us"}, "no common step"),
        ({"trace": Trace(60.0, np.ones((3, 10)))}, "3 rows, one per service, but services is 2"),
        ({"trace": Trace(1.0, np.ones(3))}, "shorter than one tick"),
        ({"cold_start": None}, "cold_start: a number"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlantError, match=message):
        cluster(**{"trace": flat(20.0), **options})


def test_a_million_requests_are_all_accounted_for() -> None:
    plant = cluster(services=10, trace=flat(200.0, 40), mean_replicas=None)
    plant.reset(0)
    sample = [plant.step(np.full((10, 1), 75.0)) for _ in range(40)][-1]
    score = plant.score()
    assert score["requests"] > 1_000_000
    assert score["slo"] > 0.99
    fleet = plant._running()
    line = sample.outcomes["queue"].sum()
    assert fleet.tally[:, 0].sum() == fleet.tally[:, 1].sum() + line


def test_a_trace_that_is_over_says_so() -> None:
    plant = cluster(trace=flat(20.0, 2))
    plant.reset(0)
    plant.step(replicas(9, 9))
    plant.step(replicas(9, 9))
    with pytest.raises(PlantError, match="over after 2 ticks"):
        plant.step(replicas(9, 9))
