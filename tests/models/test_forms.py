"""Both forms of the free latents: what they mean, that they learn, and that their graphs agree."""

import hashlib
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical as Classes
from torch.distributions import kl_divergence

from models.actor import Behaviour
from models.belief import ModelConfig, WorldModel
from models.data import load_dataset
from models.export import export_graph
from models.forms import STAY, UNIFORM, Categorical, Form, FormName, gumbel, make_form
from models.train import Trainer
from tests.models.conftest import TINY, Trained
from tests.models.synthetic import mass_spec
from tests.models.test_operators import COLUMNS, FORCE, operators

SIZES = ModelConfig(memory=6, free=3, units=10, members=4, classes=4)
SEEDS = st.integers(0, 2**31)
FORM = Categorical(2, 3, 4)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _model(form: FormName) -> WorldModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WorldModel(COLUMNS, (FORCE,), replace(SIZES, form=form))


@given(SEEDS)
def test_a_draw_is_one_class_of_each_group_and_leaves_direct_latents(seed: int) -> None:
    latent, noise = _normal(seed, 5, 14), _normal(seed + 1, 5, 14)
    drawn = FORM.draw(latent, noise)
    assert torch.equal(drawn[:, :2], latent[:, :2])
    classes = drawn[:, 2:].view(5, 3, 4)
    assert torch.equal(classes.sum(-1), torch.ones(5, 3))
    assert set(classes.flatten().tolist()) == {0.0, 1.0}
    with torch.no_grad():
        assert torch.equal(drawn, FORM.draw(latent, noise))


def test_classes_are_drawn_as_often_as_they_are_likely() -> None:
    likely = torch.tensor([0.6, 0.3, 0.09, 0.01])
    form = Categorical(0, 1, 4)
    drawn = form.draw(likely.log().expand(200_000, 4), _normal(0, 200_000, 4))
    torch.testing.assert_close(drawn.mean(0), likely, atol=4e-3, rtol=0.05)


def test_the_gradient_of_a_draw_goes_straight_to_the_probabilities() -> None:
    latent = _normal(0, 4, 14).requires_grad_()
    weight = _normal(1, 4, 14)
    (through,) = torch.autograd.grad((FORM.draw(latent, _normal(2, 4, 14)) * weight).sum(), latent)
    (wanted,) = torch.autograd.grad((FORM.seen(latent) * weight).sum(), latent)
    assert torch.equal(through, wanted)
    assert through[:, 2:].abs().min() > 0


def test_normal_noise_becomes_gumbel_noise() -> None:
    found = gumbel(_normal(0, 400_000))
    assert found.mean().item() == pytest.approx(0.5772, abs=0.01)  # Euler's constant
    assert found.var().item() == pytest.approx(torch.pi**2 / 6, rel=0.02)
    assert torch.isfinite(gumbel(torch.tensor([-40.0, 40.0]))).all()


@given(SEEDS)
def test_no_class_is_ever_impossible_and_none_is_left_out(seed: int) -> None:
    out, seen = 30 * _normal(seed, 6, 12), FORM.seen(_normal(seed + 1, 6, 14))[:, 2:]
    likely = FORM.logits(out, seen).exp().view(6, 3, 4)
    torch.testing.assert_close(likely.sum(-1), torch.ones(6, 3))
    assert likely.min().item() >= 0.999 * UNIFORM / 4


def test_before_learning_a_class_tends_to_stay() -> None:
    drawn = torch.eye(4).repeat(1, 3)
    likely = FORM.logits(torch.zeros(4, 12), drawn).exp().view(4, 3, 4)
    odds = likely.diagonal(dim1=0, dim2=2).mean() / likely[0, :, 1].mean()
    assert odds.log().item() == pytest.approx(STAY, rel=0.1)


@given(SEEDS)
def test_the_divergence_is_that_of_classes(seed: int) -> None:
    a, b = 3 * _normal(seed, 7, 14), 3 * _normal(seed + 1, 7, 14)
    std = torch.ones(7, 2)
    wanted = kl_divergence(
        Classes(logits=a[:, 2:].view(7, 3, 4)), Classes(logits=b[:, 2:].view(7, 3, 4))
    )
    torch.testing.assert_close(FORM.divergence(a, std, b, std), wanted, atol=1e-5, rtol=1e-4)
    assert FORM.divergence(a, std, a, std).abs().max() < 1e-6


@given(SEEDS)
def test_evidence_is_bayes_rule(seed: int) -> None:
    prior, said = _normal(seed, 3, 14), _normal(seed + 1, 3, 14)
    mean, std = FORM.combine(prior, torch.ones(3, 2), said, torch.ones(3, 14))
    joint = prior[:, 2:].view(3, 3, 4).softmax(-1) * said[:, 2:].view(3, 3, 4).exp()
    wanted = joint / joint.sum(-1, keepdim=True)
    torch.testing.assert_close(FORM.seen(mean)[:, 2:].view(3, 3, 4), wanted)
    assert std[:, 2:].abs().max() == 0.0
    torch.testing.assert_close(mean[:, :2], 0.5 * (prior + said)[:, :2])


@pytest.mark.parametrize("name", ["gaussian", "categorical"])
def test_without_observations_the_posterior_is_exactly_the_prior(name: FormName) -> None:
    model = _model(name)
    h, z = torch.zeros(2, model.hidden), torch.zeros(2, model.latent)
    obs, action = torch.tensor([[1.0, -2.0, 5.0], [3.0, 0.5, 90.0]]), torch.zeros(2, 1)
    with torch.no_grad():
        for _ in range(4):
            h, z, std, *_ = model.believe(h, z, action, obs, torch.ones(2, 3))
        _, mean, _, _, _, innovation = model.believe(h, z, action, obs * 9, torch.zeros(2, 3))
        _, prior = model.prior(model.unpack(h), z, model.action_scaler(action))
        _, seen, *_ = model.believe(h, z, action, obs, torch.ones(2, 3))
    assert torch.equal(mean, prior.mean)
    assert innovation.tolist() == [0.0, 0.0]
    free = slice(len(model.direct), None)
    assert (seen - mean)[:, free].abs().max() > 1e-3  # what is seen is evidence about them
    assert (std[:, free] == 0).all() == (name == "categorical")


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_a_prior_of_members_is_the_mean_of_their_probabilities(seed: int) -> None:
    members = FORM.logits(_normal(seed, 4, 5, 12), torch.zeros(4, 5, 12))
    mixed = FORM.mix(torch.cat([torch.zeros(4, 5, 2), members], -1))
    torch.testing.assert_close(mixed[:, 2:].exp(), members.exp().mean(0))


@pytest.mark.parametrize("graph", ["believe", "imagine", "actor", "drive"])
def test_graphs_of_classes_agree_with_torch(tmp_path: Path, graph: str, trained: Trained) -> None:
    model = _model("categorical")
    with torch.no_grad():  # as far from persistence as training may lead
        model.ensemble.weights[-1].mul_(20.0)
    behaviour = Behaviour(trained.spec, model, TINY.actor)
    path = tmp_path / f"{graph}.onnx"
    assert max(export_graph(graph, model, behaviour, path).values()) < 2e-5
    found = operators(onnx.load(str(path)).graph)
    assert ("Erf" in found) == (graph in {"imagine", "drive"})
    assert not found & {"RandomNormal", "RandomUniform", "RandomNormalLike", "Multinomial"}


def test_losses_fall_with_classes_too(run_folder: Path) -> None:
    """As in `test_train`: whether they fall as far as with Gaussian latents is not said here."""
    spec = mass_spec()
    sizes = replace(TINY.model, form="categorical", classes=4)
    config = replace(TINY, steps=150, actor_steps=10, model=sizes)
    trainer = Trainer(spec, load_dataset(spec, [run_folder]), config)
    trainer.run()
    for name in ("predict", "imagine", "share"):
        values = [value for _, value in trainer.progress.curves[name]]
        assert sum(values[-20:]) < 0.7 * sum(values[:20]) or sum(values[-20:]) < 0, name
    assert all(torch.isfinite(v).all() for v in trainer.model.state_dict().values())


def test_the_default_model_has_the_weights_it_always_had() -> None:
    """Of a seed: whoever trains again after an update gets what was shipped."""
    model = _model("gaussian")
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    assert digest.hexdigest()[:16] == "ffe94138d2001187"


@pytest.mark.parametrize(("name", "classes"), [("cat", 4), ("categorical", 1)])
def test_what_is_no_form_is_told(name: FormName, classes: int) -> None:
    with pytest.raises(ValueError, match=r"form 'cat'|classes 1"):
        make_form(name, 2, 3, classes)


@pytest.mark.parametrize("form", [make_form("gaussian", 2, 3, 4), FORM])
def test_a_future_is_the_mean_where_there_is_no_spread(form: Form) -> None:
    mean = _normal(0, 4, form.direct + form.size)
    assert torch.equal(form.add(mean, torch.zeros(4, form.normal), _normal(1, *mean.shape)), mean)
