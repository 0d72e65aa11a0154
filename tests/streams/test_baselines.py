"""Baselines: fair, chosen in advance, and in the order that theory demands."""

from pathlib import Path

import numpy as np
import pytest

from infra.plants.base import make_plant
from infra.plants.cluster import Cluster
from infra.traces import Trace, generate_trace
from schemas.system import load_spec
from streams.baselines import (
    HPA_TARGETS,
    Clairvoyant,
    HpaPolicy,
    Policy,
    baselines,
    gap_closed,
    run_policy,
    split,
    tune,
    tuned_parameters,
)

SPEC = load_spec("autoscale")


def wave(hours: float = 2.0, start: int = 0) -> Trace:
    bins = np.arange(round(hours * 60))
    return Trace(60.0, 60.0 + 30.0 * np.sin(2 * np.pi * bins / 60.0), start)


def cluster(trace: Trace, services: int = 2) -> Cluster:
    plant = make_plant(SPEC, services=services, trace=trace)
    assert isinstance(plant, Cluster)
    return plant


def test_a_higher_target_is_cheaper_and_later() -> None:
    plant = cluster(wave())
    careful = run_policy(plant, HpaPolicy(SPEC, 0.5), 0)
    tight = run_policy(plant, HpaPolicy(SPEC, 0.9), 0)
    assert tight["cost"] < careful["cost"]
    assert tight["slo"] < careful["slo"]
    assert careful["requests"] == tight["requests"]


def test_knowing_the_future_is_cheaper_at_the_same_service() -> None:
    plant = cluster(wave())
    hpa = run_policy(plant, HpaPolicy(SPEC, 0.7), 0)
    future = run_policy(plant, Clairvoyant(SPEC, 2.0), 0)
    assert future["slo"] >= 0.9995
    assert future["cost"] < hpa["cost"]


def test_tuning_finds_the_cheapest_value_that_meets_the_slo() -> None:
    plants = [cluster(wave())]
    made: list[float] = []

    def make(value: float) -> Policy:
        made.append(value)
        return HpaPolicy(SPEC, value)

    chosen = tune(make, HPA_TARGETS, plants, 0)
    place = HPA_TARGETS.index(chosen)
    assert run_policy(plants[0], HpaPolicy(SPEC, chosen), 0)["slo"] >= 0.9995
    assert run_policy(plants[0], HpaPolicy(SPEC, HPA_TARGETS[place + 1]), 0)["slo"] < 0.9995
    assert len(made) <= 6


def test_the_scored_day_is_never_a_training_day() -> None:
    trace = generate_trace(days=10, seed=3)
    window = split(trace)
    assert window.scored.start_us > max(day.start_us for day in window.training)
    other = split(trace, -1)
    assert all(day.start_us < other.scored.start_us for day in other.training)
    early = split(trace, 2)
    assert len(early.training) == 2
    with pytest.raises(ValueError, match="10 full days"):
        split(trace, 10)


def test_a_short_trace_is_cut_in_half() -> None:
    window = split(wave(4.0))
    assert window.scored.rates.size == 120
    assert window.training[0].start_us < window.scored.start_us


def test_parameters_are_kept_for_the_same_question_only(tmp_path: Path) -> None:
    training = (wave(1.0),)
    first = tuned_parameters(SPEC, {"services": 1}, training, 0, tmp_path)
    kept = list(tmp_path.glob("*.json"))
    assert len(kept) == 1
    kept[0].write_text('{"target": 0.123, "margin": 9.0}')
    assert tuned_parameters(SPEC, {"services": 1}, training, 0, tmp_path) == (0.123, 9.0)
    assert tuned_parameters(SPEC, {"services": 1}, training, 1, tmp_path) != (0.123, 9.0)
    assert first != (0.123, 9.0)


def test_the_report_has_every_baseline(tmp_path: Path) -> None:
    window = split(wave(2.0))
    found = baselines(SPEC, {"services": 1}, window, 0, tmp_path)
    assert set(found) == {"hpa_70", "hpa_best", "clairvoyant"}
    for score in found.values():
        assert {"cost", "slo", "flips", "parameter", "ready"} <= set(score)
        assert len(score["ready"]) == 240


def test_the_gap_has_a_sign_and_needs_the_slo() -> None:
    others = {"hpa_best": {"cost": 100.0}, "clairvoyant": {"cost": 80.0}}
    assert gap_closed({"cost": 90.0, "slo": 0.9999}, others) == pytest.approx(0.5)
    assert gap_closed({"cost": 110.0, "slo": 0.9999}, others) == pytest.approx(-0.5)
    assert gap_closed({"cost": 90.0, "slo": 0.999}, others) is None
