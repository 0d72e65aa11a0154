"""What a mask means, how spread grows, and that members disagree where there is no data."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from models.belief import WorldModel
from tests.models.conftest import Trained
from tests.models.synthetic import advance


def _settled(model: WorldModel, ticks: int = 8) -> tuple[Tensor, Tensor]:
    """A belief about two masses at rest near the middle."""
    h, z = torch.zeros(2, model.hidden), torch.zeros(2, model.latent)
    obs, mask = torch.tensor([[0.2, 0.0, 0.0], [-0.3, 0.1, 0.0]]), torch.ones(2, 3)
    for _ in range(ticks):
        h, z, *_ = model.believe(h, z, torch.zeros(2, 1), obs, mask)
    return h, z


def _believe(model: WorldModel, h: Tensor, z: Tensor, obs: Tensor, mask: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(model.believe(h, z, torch.zeros(len(h), 1), obs, mask))


def test_shapes(trained: Trained) -> None:
    model = trained.trainer.model
    h, z = _settled(model)
    out = _believe(model, h, z, torch.zeros(2, 3), torch.ones(2, 3))
    shapes = [tuple(x.shape) for x in out]
    assert shapes == [(2, model.hidden), (2, model.latent), (2, model.latent), (2, 3), (2, 3), (2,)]
    assert model.latent == 2 + 2  # place and speed are latents themselves, alarm is a share


def test_a_masked_channel_contributes_nothing_whatever_stands_there(trained: Trained) -> None:
    model = trained.trainer.model
    h, z = _settled(model)
    mask = torch.tensor([[1.0, 0.0, 1.0]] * 2)
    one = _believe(model, h, z, torch.tensor([[0.2, 0.0, 0.0]] * 2), mask)
    other = _believe(model, h, z, torch.tensor([[0.2, float("nan"), 0.0]] * 2), mask)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)
    seen = _believe(model, h, z, torch.tensor([[0.2, 5.0, 0.0]] * 2), torch.ones(2, 3))
    assert (seen[1] - one[1]).abs().max() > 0.1


def test_without_observations_the_posterior_is_exactly_the_prior(trained: Trained) -> None:
    model = trained.trainer.model
    h, z = _settled(model)
    _, mean, std, predicted, _, innovation = _believe(
        model, h, z, torch.full((2, 3), 9.0), torch.zeros(2, 3)
    )
    with torch.no_grad():
        _, prior = model.prior(model.unpack(h), z, model.action_scaler(torch.zeros(2, 1)))
    assert torch.equal(mean, prior.mean)
    assert torch.allclose(std, prior.variance.sqrt(), rtol=1e-3)
    assert torch.equal(predicted[:, :2], model.direct_scaler.inverse(mean[:, :2]))
    assert innovation.tolist() == [0.0, 0.0]


def test_spread_grows_through_a_dropout_and_shrinks_with_the_next_observation(
    trained: Trained,
) -> None:
    model = trained.trainer.model
    h, z = _settled(model)
    spreads = []
    for _ in range(10):
        h, z, std, *_ = _believe(model, h, z, torch.zeros(2, 3), torch.zeros(2, 3))
        spreads.append(std[:, 0].mean().item())
    assert all(b > a for a, b in pairwise(spreads))
    assert spreads[-1] > 1.5 * spreads[0]
    seen = _believe(model, h, z, torch.zeros(2, 3), torch.ones(2, 3))
    assert seen[2][:, 0].mean().item() < spreads[0]


def test_a_dropout_is_open_loop_prediction_along_the_true_dynamics(trained: Trained) -> None:
    model = trained.trainer.model
    truth = np.array([[2.0, 0.0], [-1.5, 0.5]])
    h, z = torch.zeros(2, model.hidden), torch.zeros(2, model.latent)
    for tick in range(14):
        obs = torch.tensor(np.c_[truth, np.abs(truth[:, 0]) > 1.5], dtype=torch.float32)
        mask = torch.full((2, 3), 1.0 if tick < 9 else 0.0)
        h, z, _, predicted, *_ = _believe(model, h, z, obs, mask)
        truth, before = advance(truth, np.zeros(2)), truth
    error = np.abs(predicted[:, :2].numpy() - before).max()
    assert error < 0.35
    assert error < 0.5 * np.abs(before).max()


def test_a_fresh_belief_expects_the_statistics_of_the_data(trained: Trained) -> None:
    model = trained.trainer.model
    h, z = torch.zeros(1, model.hidden), torch.zeros(1, model.latent)
    h, z, _, predicted, spread, _ = _believe(
        model, h, z, torch.tensor([[1.0, 0.5, 0.0]]), torch.ones(1, 3)
    )
    scales = trained.dataset.columns
    assert predicted[0, 0].item() == pytest.approx(scales[0].mean, abs=1e-4)
    assert spread[0, 0].item() == pytest.approx(scales[0].std, rel=0.05)
    anchored = model.direct_scaler.inverse(z[:, :2])[0]
    assert anchored.tolist() == pytest.approx([1.0, 0.5], abs=0.15)


def test_the_belief_carries_the_last_action_exactly(trained: Trained) -> None:
    model = trained.trainer.model
    h, z = _settled(model)
    action = torch.tensor([[1.25], [-0.5]])
    h, *_ = model.believe(h, z, action, torch.zeros(2, 3), torch.ones(2, 3))
    carried = model.action_scaler.inverse(model.unpack(h).action)
    assert torch.allclose(carried, action, atol=1e-5)


def test_members_disagree_more_off_the_data_than_on_it(trained: Trained) -> None:
    model = trained.trainer.model
    h, z = _settled(model)

    def disagreement(latent: Tensor, force: float) -> float:
        action = model.action_scaler(torch.full((2, 1), force))
        with torch.no_grad():
            _, prior = model.prior(model.unpack(h), latent, action)
        return prior.members_mean[..., :2].std(0).mean().item()

    assert disagreement(z + 8.0, 2.0) > 3 * disagreement(z, 0.0)


def test_imagination_keeps_every_candidate_under_its_own_member(trained: Trained) -> None:
    model = trained.trainer.model
    members, rows = model.config.members, 3
    memory = torch.zeros(members * rows, model.config.memory)
    latent, action = torch.zeros(len(memory), model.latent), torch.zeros(len(memory), 1)
    with torch.no_grad():
        _, out, _ = model.imagine(memory, latent, action, torch.zeros_like(latent))
        inputs = torch.cat(
            [model.memory(memory, torch.cat([latent, action], -1)), latent, action], -1
        )
        mean = model.ensemble(inputs[:rows], latent[:rows])[0]
    assert torch.allclose(out.view(members, rows, -1), mean, atol=1e-6)
    assert not torch.allclose(out[0], out[rows], atol=1e-4)
