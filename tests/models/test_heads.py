"""What is read off a state keeps its value when its units change."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.actor import ActorConfig, Behaviour
from models.belief import ModelConfig, WorldModel
from models.checkpoint import settings_of
from models.data import load_dataset
from models.export import export_graph
from models.heads import (
    BINS,
    Heads,
    NumberName,
    Scaled,
    TwoHot,
    make_number,
    symexp,
    symlog,
    two_hot,
)
from models.train import Trainer
from tests.models.conftest import TINY
from tests.models.synthetic import mass_spec
from tests.models.test_operators import COLUMNS, FORCE

LAST = "critic.head.net.4.weight"
NUMBERS = st.floats(-900, 900)


@given(
    units=st.lists(st.tuples(st.floats(-100, 100), st.floats(0.01, 100)), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_new_units_change_no_value(units: list[tuple[float, float]], seed: int) -> None:
    torch.manual_seed(seed)
    head, state = Scaled(4, 8).double(), torch.randn(16, 4).double()
    before = head(state)
    for offset, scale in units:
        head.rescale(offset, scale)
        torch.testing.assert_close(head(state), before, rtol=1e-6, atol=1e-6)
        assert float(head.offset) == offset
        assert float(head.scale) == scale


def test_the_reward_can_be_learned_again_without_the_rest() -> None:
    heads = Heads(memory=3, latent=2, shares=2, units=8)
    memory, latent = torch.randn(5, 3), torch.randn(5, 2)
    before = heads(memory, latent)
    heads.reward = Scaled(5, 8)
    after = heads(memory, latent)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[2], after[2])


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_two_hot_weights_have_the_truth_as_their_mean(truths: list[float]) -> None:
    bins, truth = TwoHot(2, 4).bins, torch.tensor(truths)
    weights = two_hot(truth, bins)
    assert ((weights > 0).sum(-1) <= 2).all()
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(truth)))
    torch.testing.assert_close(weights @ bins, truth, rtol=1e-5, atol=1e-5)
    used = weights > 0
    beside = used[:, 1:] & used[:, :-1]
    assert (beside.any(-1) | (used.sum(-1) == 1)).all(), "the two bins are neighbours"


def test_what_lies_beyond_the_bins_is_put_on_the_last() -> None:
    bins = torch.tensor([-1.0, 0.0, 2.0])
    found = two_hot(torch.tensor([-9.0, -1.0, 0.0, 1.5, 2.0, 9.0]), bins)
    wanted = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0.25, 0.75], [0, 0, 1], [0, 0, 1]]
    assert found.tolist() == wanted


@given(st.floats(-1e6, 1e6))
def test_symexp_undoes_symlog(x: float) -> None:
    value = torch.tensor(x, dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(value)), value, rtol=1e-9, atol=1e-9)


def test_bins_are_symmetric_and_one_is_zero() -> None:
    bins = TwoHot(2, 4).bins
    assert bins[BINS // 2] == 0.0
    assert torch.equal(bins, -bins.flip(0))
    assert (bins.diff() > 0).all()


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (-300.0, 40.0), (0.02, 0.1), (7.0, 2.0)])
def test_before_learning_a_number_is_about_the_offset(offset: float, scale: float) -> None:
    torch.manual_seed(0)
    head = TwoHot(3, 8)
    head.rescale(offset, scale)
    found = head(torch.randn(4, 3))
    torch.testing.assert_close(found, torch.full((4,), offset), rtol=0.1, atol=0.01 * scale)


def test_units_of_like_size_change_nothing_that_was_learned() -> None:
    torch.manual_seed(0)
    head, state = TwoHot(3, 8), torch.randn(5, 3)
    head.rescale(1.0, 2.0)
    with torch.no_grad():
        head.net[-1].weight.normal_()  # type: ignore[operator]
    before = head(state)
    head.rescale(3.0, 15.0)
    assert float(head.scale) == 15.0
    assert torch.equal(head(state), before)
    head.rescale(30.0, 50.0)
    torch.testing.assert_close(head(state), torch.full((5,), 30.0), rtol=0.1, atol=0.5)


def _learned(form: NumberName, state: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    head = make_number(form, state.shape[1], 32)
    head.rescale(float(truth.mean()), float(truth.std()))
    descent = torch.optim.Adam(head.parameters(), 3e-3)
    for _ in range(400):
        descent.zero_grad()
        loss = head.error(state, truth).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        descent.step()
    found: torch.Tensor = head(state).detach()
    return found


def test_small_numbers_are_learned_beside_rare_large_ones() -> None:
    """What a mean is not: calm days are thousandths of the spread that busy ones make."""
    rng = torch.Generator().manual_seed(0)
    state = torch.rand(400, 2, generator=rng)
    busy = state[:, 1] > 0.95
    truth = torch.where(busy, torch.tensor(-400.0), -0.5 - state[:, 0])
    off = {}
    for form in ("mean", "two_hot"):
        found = _learned(form, state, truth)
        off[form] = float((found - truth)[~busy].abs().median())
    assert off["two_hot"] < 0.2
    assert off["two_hot"] < 0.3 * off["mean"]


def test_the_error_is_cross_entropy_with_a_least_value_at_the_truth() -> None:
    head = TwoHot(2, 4)
    state, truth = torch.zeros(1, 2), torch.tensor([0.37])
    wanted = two_hot(truth, head.bins)
    with torch.no_grad():
        head.net[-1].bias.copy_((wanted[0] + 1e-12).log())  # type: ignore[operator]
    least = -(wanted * (wanted + 1e-12).log()).sum()
    torch.testing.assert_close(head.error(state, truth)[0], least)
    torch.testing.assert_close(head(state), truth, rtol=1e-4, atol=1e-5)
    assert head.error(state, truth + 5.0)[0] > least + 1.0


@pytest.mark.parametrize("graph", ["imagine", "actor"])
def test_graphs_give_the_mean_of_a_distribution(tmp_path: Path, graph: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = ModelConfig(memory=6, free=2, units=10, members=3, reward="two_hot")
        model = WorldModel(COLUMNS, (FORCE,), sizes)
        actor = ActorConfig(units=8, critic="two_hot")
        spec = mass_spec().model_copy(update={"reward": None})
        behaviour = Behaviour(spec, model, actor)
        behaviour.calibrate(torch.tensor([-3.0, 0.0, -40.0, 1.0]))
        with torch.no_grad():
            behaviour.critic.head.net[-1].weight.normal_()  # type: ignore[operator]
            model.heads.reward.net[-1].weight.normal_()  # type: ignore[operator]
    found = export_graph(graph, model, behaviour, tmp_path / f"{graph}.onnx")
    assert found["value"] <= 1e-5
    assert found.get("reward", 0.0) <= 1e-5


def test_a_critic_of_distributions_resumes(run_folder: Path, tmp_path: Path) -> None:
    spec = mass_spec()
    data = load_dataset(spec, [run_folder])
    actor = replace(TINY.actor, critic="two_hot")
    config = replace(TINY, steps=2, actor_steps=8, batch=8, actor=actor)
    whole = Trainer(spec, data, config)
    whole.run()
    fresh = Trainer(spec, data, config).behaviour.state_dict()
    assert not torch.equal(whole.behaviour.state_dict()[LAST], fresh[LAST])
    half = Trainer(spec, data, config)
    while half.progress.step < 6:
        half.update()
    half.save(tmp_path / "half.pt")
    other = Trainer(spec, data, config)
    other.load(tmp_path / "half.pt")
    other.run()
    for name, value in whole.behaviour.state_dict().items():
        assert torch.equal(value, other.behaviour.state_dict()[name]), name


def test_forms_of_numbers_are_in_the_fingerprint_only_where_chosen() -> None:
    plain = settings_of(TINY)
    assert "critic" not in plain["actor"]
    assert "reward" not in plain["model"]
    actor = replace(TINY.actor, critic="two_hot")
    chosen = settings_of(replace(TINY, actor=actor, model=replace(TINY.model, reward="two_hot")))
    assert (chosen["actor"]["critic"], chosen["model"]["reward"]) == ("two_hot", "two_hot")


def test_what_is_no_form_of_a_number_is_told() -> None:
    with pytest.raises(ValueError, match="'three_hot'"):
        make_number("three_hot", 2, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("shares", [0, 2])
def test_weights_of_one_network_give_the_same_in_two(shares: int) -> None:
    """As checkpoints had them in which shares and continuation shared a hidden layer."""
    torch.manual_seed(1)
    heads = Heads(memory=3, latent=2, shares=shares, units=8)
    one = torch.nn.Sequential(
        torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, shares + 1)
    )
    kept = heads.state_dict()
    old = {name: value for name, value in kept.items() if name.startswith("reward.")}
    old |= {f"net.{name}": value for name, value in one.state_dict().items()}
    given = dict(old)
    heads.load_state_dict(old)
    assert old.keys() == given.keys(), "what was given stays as it was"
    memory, latent = torch.randn(6, 3), torch.randn(6, 2)
    found, alive, _ = heads(memory, latent)
    wanted = one(torch.cat([memory, latent], -1))
    torch.testing.assert_close(found, wanted[:, :shares])
    torch.testing.assert_close(alive, wanted[:, shares])
    assert math.isfinite(float(alive.detach().sum()))
