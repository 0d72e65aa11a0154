"""An encoder that is told how far off the prediction was: what it sees, and that it ships."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.belief import FAR_OFF
from models.checkpoint import settings_of
from models.encoders.vector import EncoderName
from models.export import export_graph
from models.train import Trainer
from tests.models.conftest import TINY, Trained

CORRECTS = replace(TINY, steps=12, actor_steps=0, model=replace(TINY.model, corrects=True))


@pytest.fixture(scope="module")
def correcting(trained: Trained) -> Trainer:
    trainer = Trainer(trained.spec, trained.dataset, CORRECTS)
    trainer.run()
    return trainer


def one_tick(trainer: Trainer) -> tuple[torch.Tensor, ...]:
    """Memory and belief after a window, and the next observation, normalised, all shown."""
    model, batch = trainer.model, trainer.batch(0)
    hidden, latent = model.start(batch.obs.shape[0])
    y, action = model.scaler(batch.obs), model.action_scaler(batch.action)
    whole = torch.ones_like(batch.mask)
    for t in range(4):
        after = model.update(hidden, latent, action[:, t], y[:, t], whole[:, t])
        hidden, latent = after.hidden, after.mean
    return *hidden, latent, action[:, 4], y[:, 4]


@torch.no_grad()
def test_it_sees_the_error_of_the_prediction_in_typical_changes(correcting: Trainer) -> None:
    model = correcting.model
    *parts, latent, action, y = one_tick(correcting)
    hidden = type(model.start(1)[0])(*parts)
    prior = model.prior(hidden, latent, action)[1]
    off = model._off(hidden.started, prior, y, torch.ones_like(y))
    count = len(model.direct)
    wrong = (y[:, model.direct] - prior.mean[:, :count]) / model.ensemble.step[:count]
    expected = wrong.clamp(-FAR_OFF, FAR_OFF)
    torch.testing.assert_close(off[:, model.direct], expected, rtol=1e-3, atol=1e-3)
    assert float(off[:, model.direct].abs().max()) > 0.1
    assert not off[:, model.shares].any()
    assert not model._off(hidden.started, prior, y, torch.zeros_like(y)).any()
    far = model._off(hidden.started, prior, y + 1e6, torch.ones_like(y))
    assert torch.equal(far[:, model.direct], torch.full((len(y), count), FAR_OFF))


@torch.no_grad()
def test_a_fresh_belief_has_predicted_nothing(correcting: Trainer) -> None:
    model = correcting.model
    hidden, latent = model.start(3)
    y = torch.full((3, model.observations), 2.0)
    prior = model.prior(hidden, latent, torch.zeros(3, model.actions))[1]
    assert not model._off(hidden.started, prior, y, torch.ones_like(y)).any()


@torch.no_grad()
def test_without_observations_the_posterior_is_still_the_prior(correcting: Trainer) -> None:
    model = correcting.model
    *parts, latent, action, y = one_tick(correcting)
    hidden = type(model.start(1)[0])(*parts)
    after = model.update(hidden, latent, action, y, torch.zeros_like(y))
    assert torch.equal(after.mean, after.prior.mean)


@pytest.mark.parametrize("encoder", ["joint", "fused"])
def test_it_learns_and_exports(trained: Trained, tmp_path: Path, encoder: EncoderName) -> None:
    config = replace(CORRECTS, model=replace(CORRECTS.model, encoder=encoder))
    trainer = Trainer(trained.spec, trained.dataset, config)
    net = getattr(trainer.model.encoder, "experts", [trainer.model.encoder])[0].net[0]
    before = net.weight.clone()
    trainer.run()
    # The last columns are the errors of place and speed, and of the alarm, which is a share: 0.
    moved = (net.weight - before)[:, -3:].abs().max(0).values
    last = 1 if encoder == "joint" else 3
    assert (moved[:2] > 10 * moved[2]).all() if last == 1 else moved.any()
    found = export_graph("believe", trainer.model, trainer.behaviour, tmp_path / "believe.onnx")
    assert max(found.values()) < 2e-5, found


def test_its_settings_tell_it_from_others_and_leave_old_ones_as_they_were(trained: Trained) -> None:
    plain = Trainer(trained.spec, trained.dataset, TINY)
    assert "corrects" not in settings_of(TINY)["model"]
    other = replace(TINY, model=replace(TINY.model, corrects=True))
    assert Trainer(trained.spec, trained.dataset, other).fingerprint() != plain.fingerprint()
