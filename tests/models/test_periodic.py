"""A model that is shown sines and cosines: a full turn changes nothing in them, and it ships."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoint import settings_of
from models.export import export_graph
from models.recipe import parse_recipe
from models.train import Trainer
from tests.models.conftest import TINY, Trained

PERIODIC = replace(TINY, steps=8, actor_steps=4, model=replace(TINY.model, periodic=True))


@pytest.fixture(scope="module")
def turning(trained: Trained) -> Trainer:
    trainer = Trainer(trained.spec, trained.dataset, PERIODIC)
    trainer.run()
    return trainer


@torch.no_grad()
def test_a_full_turn_shows_the_same(turning: Trainer) -> None:
    model = turning.model
    latent = torch.randn(9, model.latent)
    turn = 2 * math.pi / model.direct_scaler.std
    other = latent.clone()
    other[:, : len(model.direct)] += turn
    raw = model.direct_scaler.inverse(latent[:, : len(model.direct)])
    sine, cosine = model.turned(latent)
    torch.testing.assert_close(sine, torch.sin(raw))
    torch.testing.assert_close(cosine, torch.cos(raw))
    for one, two in zip((sine, cosine), model.turned(other), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


def first_layers(trainer: Trainer) -> list[torch.Tensor]:
    """`[..., inputs]` of what reads a state: memory, members, actor, critic."""
    model, behaviour = trainer.model, trainer.behaviour
    nets = behaviour.actor.net, behaviour.critic.head.net
    read = [model.memory.gates.weight, model.ensemble.weights[0].transpose(1, 2)]
    return [*read, *(net.get_parameter("0.weight") for net in nets)]


def test_dynamics_actor_and_critic_learn_from_it(trained: Trained, turning: Trainer) -> None:
    count = turning.model.turns
    assert count == 2 * len(turning.model.direct)
    fresh = first_layers(Trainer(trained.spec, trained.dataset, PERIODIC))
    for before, after in zip(fresh, first_layers(turning), strict=True):
        moved = (after - before)[..., -count:].detach().abs()
        assert (moved.amax(tuple(range(moved.dim() - 1))) > 0).all()


@pytest.mark.parametrize("graph", ["believe", "imagine", "actor"])
def test_it_exports(turning: Trainer, tmp_path: Path, graph: str) -> None:
    found = export_graph(graph, turning.model, turning.behaviour, tmp_path / f"{graph}.onnx")
    assert max(found.values()) < 2e-5, found


def test_a_workflow_says_so_and_old_settings_stay_as_they_were() -> None:
    recipe = parse_recipe("workflow: x\ndynamics: {periodic: true}\n")
    assert recipe.train_config().model.periodic
    assert settings_of(PERIODIC)["model"]["periodic"]
    assert "periodic" not in settings_of(TINY)["model"]
