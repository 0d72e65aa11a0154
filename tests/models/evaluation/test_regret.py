"""The true dynamics are true, the search uses what it is given, and regret is what it says."""

import numpy as np
import pytest

from infra.plants.base import PlantError, make_plant
from infra.plants.degrade import Faults
from models.evaluation.regret import Regret, regret, whole_return
from models.evaluation.tried import realise
from models.evaluation.truth import Search, Truth, search_tier
from models.evaluation.world import Explorer, World
from planner.imagine import Imagination
from planner.library import SHIPPED
from planner.session import Dynamics, Posterior, load_bundle
from schemas.system import load_spec
from tests.models.evaluation.conftest import MakeWorld

QUIET = {"actuation_noise": 0.0, "position_noise": 0.0, "velocity_noise": 0.0}


def begun(world: World, seed: int = 0, ticks: int = 5) -> World:
    world.reset(seed)
    policy = Explorer(world.spec, world.entities, 0.8, seed)
    for _ in range(ticks):
        world.step(policy(world))
    return world


def by_truth(world: World) -> tuple[Dynamics, Posterior]:
    truth = Truth(world)
    return truth, truth.posterior()


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_what_the_truth_imagines_comes_about(make_world: MakeWorld, delay: float) -> None:
    world = begun(make_world(**QUIET, action_delay=delay))
    truth = Truth(world)
    sequences = np.random.default_rng(0).uniform(-1, 1, (6, 3, 8, 2))
    imagination = Imagination(world.spec, truth, truth.posterior(), world.sample.tick)
    noise = np.zeros((9, 1, 1), np.float32)
    verdict = imagination.under_all(np.arange(6), sequences, noise)
    true, returned, _ = realise(world, sequences, truth)
    np.testing.assert_allclose(verdict.channels[:, 0, :, :, 0], true, atol=1e-5)
    np.testing.assert_allclose(verdict.samples[:, :, 0], returned, rtol=1e-5)
    np.testing.assert_array_equal(  # a part of the rows, and one tick
        truth.next(*_one(world, truth, sequences))[0], verdict.channels[0, 0, ::2, 1, 0]
    )


def _one(world: World, truth: Truth, sequences: np.ndarray) -> tuple[np.ndarray, ...]:
    h, none = truth.posterior().h[::2], np.zeros((3, 1), np.float32)
    return h, none, sequences[::2, 1, 0].astype(np.float32), none


def test_a_search_with_the_truth_does_what_helps(make_world: MakeWorld) -> None:
    world = begun(make_world(**QUIET), ticks=1)
    search = Search(world.spec, by_truth, world.entities, seed=0)
    answer = search.answer(world)
    horizon = search_tier(world.spec).horizon
    assert answer.sequence.shape == (6, horizon, 2)
    _, own, _ = realise(world, answer.sequence[:, None], Truth(world))
    np.testing.assert_allclose(answer.returned, own[:, 0], rtol=1e-5)
    rest = np.random.default_rng(0).uniform(-1, 1, (6, 20, horizon, 2))
    _, others, _ = realise(world, rest, Truth(world))
    assert (own[:, 0] > others.max(axis=1)).all()


def test_regret_is_small_for_the_shipped_bundle_and_whole_for_the_fallback(
    make_world: MakeWorld,
) -> None:
    named: list[str] = []
    found = regret(make_world(robots=3), ticks=12, on_policy=named.append)
    assert named == list(found.returned) == ["fallback", "bundle", "planner", "truth"]
    assert found.share("fallback") == 1.0
    assert found.regret("truth") == (0.0, 0.0)
    assert -0.1 < found.share("bundle") < 0.3
    assert found.share("planner") < 0.5


def test_equal_seeds_give_equal_runs(make_world: MakeWorld) -> None:
    world, runs = make_world(robots=2), []
    for seed in (0, 0, 1):
        world.reset(0)
        runs.append(whole_return(world, Search(world.spec, by_truth, 2, seed), 3))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).all()


def test_regret_adds_up() -> None:
    lost = Regret(
        5,
        {
            "fallback": np.array([0.0, 2.0]),
            "bundle": np.array([8.0, 9.0]),
            "truth": np.array([10.0, 12.0]),
        },
    )
    np.testing.assert_allclose(lost.regret("bundle"), (2.5, 0.5))
    assert lost.share("bundle") == 0.25
    assert lost.as_dict()["policies"]["bundle"]["share_of_gap"] == 0.25


def test_plants_that_cannot_be_copied_are_named(make_world: MakeWorld) -> None:
    spec = load_spec("autoscale")
    cluster = make_plant(spec, services=2)
    world = World(spec, cluster, load_bundle(SHIPPED / "autoscale", provider="cpu"))
    with pytest.raises(PlantError, match=r"cluster-1: entities of this plant cannot be copied"):
        Truth(world)
    degraded = make_world(robots=2, faults={"odometry": Faults(dropout=0.1)})
    degraded.reset(0)
    with pytest.raises(PlantError, match=r"degraded-1: this plant cannot be taken back to a state"):
        degraded.snapshot()
