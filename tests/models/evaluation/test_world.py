"""Worlds: beliefs as in the loop, what is watched, and what is tried from one state."""

import numpy as np

from infra.plants.base import make_plant
from models.evaluation.tried import Plain, realise, returned, try_out
from models.evaluation.world import Explorer, World, watch
from planner.library import SHIPPED
from planner.session import Bundle, load_bundle
from schemas.system import load_spec
from streams.belief import update
from tests.models.evaluation.conftest import MakeWorld


def test_beliefs_are_those_of_the_loop(make_world: MakeWorld) -> None:
    world = make_world()
    world.reset(1)
    policy, row = Explorer(world.spec, world.entities, 0.8, 1), None
    assert isinstance(world.bundle, Bundle)
    for _ in range(12):
        row, posterior, _ = update(world.spec, world.bundle, row, world.frame)
        np.testing.assert_array_equal(world.posterior.h, posterior.h)
        np.testing.assert_array_equal(world.posterior.mean, posterior.mean)
        np.testing.assert_array_equal(world.posterior.innovation, posterior.innovation)
        world.step(policy(world))


def test_a_record_says_what_happened(make_world: MakeWorld) -> None:
    world, again = make_world(), make_world()
    world.reset(2)
    record = watch(world, Explorer(world.spec, world.entities, 0.8, 5), 10)
    again.reset(2)
    np.testing.assert_array_equal(again.obs, record.obs[0])
    for t in range(10):
        again.step(record.action[t])
        np.testing.assert_array_equal(again.obs, record.obs[t + 1])
        np.testing.assert_array_equal(again.posterior.h, record.posterior(t + 1).h)
        np.testing.assert_array_equal(again.sample.reward, record.reward[t])
    moved = np.abs(np.diff(record.action, axis=0)).max(axis=(0, 2))
    assert (moved > 0.1).all(), "everybody's actions vary"


def test_what_is_realised_is_what_happens_next(make_world: MakeWorld) -> None:
    world = make_world()
    world.reset(3)
    policy = Explorer(world.spec, world.entities, 0.8, 3)
    for _ in range(5):
        world.step(policy(world))
    rng = np.random.default_rng(0)
    sequences = rng.uniform(-1, 1, (world.entities, 4, 6, 2))
    dynamics = Plain(world.bundle, 0.9)
    before, h = world.obs, world.posterior.h
    true, worth, whole = realise(world, sequences, dynamics)
    np.testing.assert_array_equal(world.obs, before)
    np.testing.assert_array_equal(world.posterior.h, h)
    assert whole.all()
    rewards = []
    for t in range(6):
        world.step(sequences[:, 2, t])
        np.testing.assert_array_equal(world.obs, true[t, :, 2])
        x, goal = world.obs[:, :2], world.obs[:, 4:]
        rewards.append(0.9**t * -np.hypot(*(x - goal).T))
    np.testing.assert_allclose(worth[:, 2], np.sum(rewards, axis=0), rtol=1e-5)


def test_the_return_ends_with_the_episode(make_world: MakeWorld) -> None:
    spec = load_spec("nav2d").model_copy(update={"reward_text": None})
    bundle = make_world().bundle
    obs, action = np.zeros((3, 1, 6)), np.zeros((3, 1, 2))
    reward, alive = np.array([[1.0], [2.0], [4.0]]), np.array([[True], [False], [True]])
    worth = returned(spec, Plain(bundle, 0.5), 0, (obs, action, reward, alive))
    np.testing.assert_allclose(worth, [1.0 + 0.5 * 2.0])


def test_what_is_imagined_is_near_the_truth(make_world: MakeWorld) -> None:
    world = make_world(robots=12)
    world.reset(4)
    policy = Explorer(world.spec, world.entities, 0.8, 4)
    for _ in range(16):
        world.step(policy(world))
    sequences = np.random.default_rng(1).uniform(-1, 1, (12, 3, 5, 2))
    found = try_out(world, sequences)
    assert found.imagined.shape == found.true.shape == (5, 12, 3, 6)
    still = np.abs(world.obs[None, :, None, :2] - found.true[..., :2]).mean()
    assert np.abs(found.imagined[..., :2] - found.true[..., :2]).mean() < 0.5 * still
    np.testing.assert_allclose(found.imagined_return, found.true_return, rtol=0.1)


def test_a_new_episode_begins_a_new_belief() -> None:
    spec = load_spec("autoscale")
    plant = make_plant(spec, services=3)
    world = World(spec, plant, load_bundle(SHIPPED / "autoscale", provider="cpu"))
    world.reset(0)
    for _ in range(5):
        world.step(np.full((3, 1), 20.0))
    assert np.isfinite(world.obs).all()
    last = world.posterior
    world.sample.outcomes["reset"] = np.array([0.0, 1.0, 0.0])
    world._show(world.sample, world.sample.outcomes["reset"] > 0)
    assert not world.before[0][1].any()
    np.testing.assert_array_equal(world.before[0][[0, 2]], last.h[[0, 2]])
