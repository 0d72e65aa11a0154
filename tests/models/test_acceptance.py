"""What a workflow asks of a bundle: each limit, metric, bound and changed plant has its effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.plants.base import make_plant
from models import metrics
from models.acceptance import Acceptance
from models.deployed import Acted, Deployed, acted, stage, violations
from models.evaluation.apart import disagreements
from models.evaluation.held_out import evaluate
from models.evaluation.result import Evaluation
from models.evaluation.shifts import kinds_of
from models.evaluation.world import Explorer, World, watch
from planner.library import SHIPPED
from planner.session import Bundle, load_bundle
from schemas.system import SystemSpec, load_spec
from tests.models.evaluation.robots import SIGMA, SPEC, robots
from tests.models.synthetic import mass_spec
from tests.planner.worlds import double_integrator, edited, make_bundle, with_tiers

DATA = robots(100, 60)
GAINS = (0.8, 0.9, 1.0, 1.1, 1.2)
ACTED = Acted(-7.5, 12.0, 0.1, 4, 50)
QUICK = with_tiers(
    SPEC,
    only=next(iter(SPEC.budget.tiers.values())).model_copy(
        update={"candidates": 12, "horizon": 4, "iterations": 1}
    ),
)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    world = double_integrator(noise=SIGMA, gains=GAINS)
    return make_bundle(tmp_path_factory.mktemp("apart"), SPEC, world)


@pytest.fixture(scope="module")
def found(apart: Bundle) -> Evaluation:
    return evaluate(apart, SPEC, DATA, windows=200, futures=4)


@pytest.fixture(scope="module")
def nav2d() -> Bundle:
    return load_bundle(SHIPPED / "nav2d", provider="cpu")


def test_metrics_are_those_of_the_evaluation(found: Evaluation) -> None:
    asked = {"one_step_loss": None, "rollout_error@3": None, "task_return": None}
    told = metrics.measured({**asked, "constraint_violations": None}, found, ACTED)
    moving = found.of_persistence[2, :-1]
    assert told["rollout_error@3"]["value"] == pytest.approx(np.nanmean(moving), rel=1e-3)
    assert told["one_step_loss"]["value"] == pytest.approx(found.nll[0, :-1].mean(), rel=1e-3)
    assert (told["task_return"], told["constraint_violations"]) == ({"value": -7.5}, {"value": 12})
    assert metrics.passed(told) is None
    # 60 ticks less 16 to warm up: fewer than 50 can be judged.
    far = metrics.measured({"rollout_error@50": 0.5}, found, "")["rollout_error@50"]
    assert (far["value"], far["passed"]) == (None, False)
    assert "held-out episodes reach" in far["reason"]


@pytest.mark.parametrize(
    ("name", "bound", "kept"),
    [
        ("task_return", -8.0, True),
        ("task_return", -7.0, False),
        ("constraint_violations", 12.0, True),
        ("constraint_violations", 11.0, False),
        ("one_step_loss", 1e6, True),
        ("one_step_loss", -1e6, False),
    ],
)
def test_returns_are_bounded_from_below_all_else_from_above(
    found: Evaluation, name: str, bound: float, kept: bool
) -> None:
    told = metrics.measured({name: bound, "rollout_error@5": None}, found, ACTED)
    assert metrics.passed(told) is kept
    assert (name in metrics.missed(told)) is not kept
    assert ("passed" if kept else "missed") in metrics.lines(told)


def test_what_cannot_be_measured_keeps_no_bound(found: Evaluation) -> None:
    told = metrics.measured({"task_return": -9.0}, found, "no plant")["task_return"]
    assert (told["value"], told["reason"], told["passed"]) == (None, "no plant", False)


def test_limits_are_quantiles_of_held_out_data(apart: Bundle) -> None:
    def limits(**more: Any) -> dict[str, Any]:
        asked = Acceptance(**more)
        found = evaluate(apart, SPEC, DATA, windows=200, futures=2, band=asked.innovation)
        return asked.calibration(apart, SPEC, found, 0.9)[0]

    usual, strict = limits(), limits(innovation=0.5, disagreement=0.9)
    assert "max_uncertainty" not in usual
    assert strict["innovation_band"] < usual["innovation_band"]
    found = evaluate(apart, SPEC, DATA, windows=200, futures=2)
    horizon = SPEC.budget.tiers["deep"].horizon
    away = disagreements(apart, found, horizon)
    assert (away <= strict["max_uncertainty"]).mean() == pytest.approx(0.9, abs=0.01)
    assert limits(disagreement=0.5)["max_uncertainty"] < strict["max_uncertainty"]


def test_members_that_agree_are_not_apart(found: Evaluation, tmp_path: Path) -> None:
    alike = make_bundle(tmp_path, SPEC, double_integrator(noise=SIGMA))
    np.testing.assert_allclose(disagreements(alike, found, 10), 0.0, atol=1e-6)


def test_a_limit_of_the_bundle_brings_the_fallback_as_it_is_deployed(tmp_path: Path) -> None:
    free = QUICK.model_copy(
        update={"gate": QUICK.gate.model_copy(update={"max_uncertainty": None})}
    )
    world = double_integrator(noise=SIGMA, gains=GAINS)
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * 6}
    shares = []
    for limit in (None, 0.02, 1e-9):
        more = calibration if limit is None else calibration | {"max_uncertainty": limit}
        bundle = make_bundle(tmp_path / str(limit), SPEC, world, calibration=more)
        plant, ticks = stage(free, 4, 20, 0)
        assert (len(plant.entities), ticks) == (4, 20)
        shares.append(acted(free, bundle, plant, ticks, 0).fallback)
    assert shares[0] == 0.0 < shares[1] < shares[2] == 1.0


def test_violations_are_counted_where_they_happen() -> None:
    half = edited("nav2d", ("<= 15", "<= 4"))
    bundle = load_bundle(SHIPPED / "nav2d", provider="cpu")
    world = World(half, make_plant(half, robots=10), bundle)
    world.reset(3)
    record = watch(world, Explorer(half, 10, 0.8, 3), 30)
    outside = np.abs(record.obs[1:, :, :2]).max(axis=-1) > 4
    assert 0.05 < outside.mean() < 0.95
    assert violations(half, record) == pytest.approx(1000 * outside.mean())
    # Where an episode begins outside, no action is to blame.
    begun = record.begun.copy()
    begun[1:][outside] = True
    assert violations(half, replace(record, begun=begun)) == 0.0
    bare = half.model_copy(update={"constraint_texts": {}})
    assert violations(bare, record) is None


def test_the_deployed_policy_acts_in_the_plant_of_the_system(
    nav2d: Bundle, found: Evaluation
) -> None:
    asked = Acceptance({"task_return": -1e9, "constraint_violations": None}, entities=3, ticks=20)
    told = asked.judge(nav2d, QUICK, found)
    assert told["asked"]["task_return"]["passed"] is True
    assert told["passed"] is True
    assert told["asked"]["constraint_violations"]["value"] >= 0
    assert (told["deployed"]["entities"], told["deployed"]["ticks"]) == (3, 20)
    world = World(QUICK, stage(QUICK, 3, 20, 0)[0], nav2d)
    world.reset(0)
    returned = watch(world, Deployed(QUICK, nav2d, 3, 0), 20).reward.sum(axis=0).mean()
    assert told["asked"]["task_return"]["value"] == pytest.approx(returned, rel=1e-3)
    without = Acceptance({"task_return": None}).judge(nav2d, _no_plant(), found)["asked"]
    assert without["task_return"]["value"] is None
    assert "names no plant" in without["task_return"]["reason"]


def test_only_the_changes_that_are_asked_for_are_tried(nav2d: Bundle, found: Evaluation) -> None:
    few = QUICK.model_copy(update={"plant": QUICK.plant.model_copy(update={"robots": 6})})  # type: ignore[union-attr]
    asked = Acceptance({}, shifts=("delay", "noise"), entities=6)
    told = asked.judge(nav2d, few, found)["out_of_distribution"]
    kinds = [one["kind"] for one in told["shifts"].values()]
    assert kinds == ["none", "delay", "noise"]
    assert all(0 <= one["disagreement"] <= 1 for one in told["shifts"].values())
    assert -1 <= told["tracks"] <= 1
    assert "out_of_distribution" not in Acceptance({}).judge(nav2d, few, found)


def _no_plant() -> SystemSpec:
    return SPEC.model_copy(update={"plant": None})


@pytest.mark.parametrize(
    ("spec", "asked", "message"),
    [
        (mass_spec(), {"shifts": ("delay",)}, "shifts: mass names no plant .*leave shifts out"),
        (SPEC, {"shifts": ("traffic",)}, "shifts: .*nav2d has no change of kind traffic; it has"),
        (mass_spec(), {"metrics": {"task_return": 1.0}}, "metrics.task_return: mass names no pl"),
        (
            SPEC.model_copy(update={"constraint_texts": {}}),
            {"metrics": {"constraint_violations": 1.0}},
            "metrics.constraint_violations: nav2d has no constraints",
        ),
    ],
)
def test_what_the_system_does_not_allow_is_refused_at_once(
    spec: SystemSpec, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Acceptance(**asked).check(spec)


def test_what_the_system_allows_is_not_refused() -> None:
    Acceptance({"task_return": None}).check(mass_spec())
    autoscale = load_spec("autoscale")
    for spec, metric, kinds in (
        (SPEC, "task_return", ("mass", "friction", "delay", "dropout")),
        (autoscale, "constraint_violations", ("traffic", "service")),
    ):
        Acceptance({metric: 3.0}, shifts=kinds).check(spec)
        assert set(kinds) <= set(kinds_of(spec, {}))
