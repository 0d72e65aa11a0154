"""Fusion: what is absent adds nothing, no order matters, and a silent sensor costs little."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.belief import ModelConfig, WorldModel
from models.data import sensor_columns
from models.encoders.fusion import Fusion, product
from models.encoders.vector import FusedEncoder
from models.export import OPSET, export_graph, quiet
from models.forms import FormName, make_form
from models.train import Trainer
from schemas.system import load_spec
from tests.models.conftest import TINY, Trained
from tests.models.synthetic import mass_spec
from tests.models.test_operators import COLUMNS, FORCE

SEEDS = st.integers(0, 2**31)
FORMS: tuple[FormName, ...] = ("gaussian", "categorical")


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(SEEDS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_product_has_no_order_and_absent_experts_no_part(
    seed: int, k: int, random: object
) -> None:
    mean, precision = _normal(seed, k, 4, 3), _normal(seed + 1, k, 4, 3).exp()
    order = list(range(k))
    random.shuffle(order)  # type: ignore[attr-defined]
    once, again = product(mean, precision), product(mean[order], precision[order])
    torch.testing.assert_close(once, again)
    absent = torch.full((1, 4, 3), float("nan"))
    more = product(torch.cat([mean, absent]), torch.cat([precision, torch.zeros(1, 4, 3)]))
    assert torch.equal(once[0], more[0])
    assert torch.equal(once[1], more[1])


@given(SEEDS)
def test_a_product_is_that_of_the_densities(seed: int) -> None:
    mean, precision = _normal(seed, 3, 1), _normal(seed + 1, 3, 1).exp()
    at = torch.linspace(-30, 30, 20_001, dtype=torch.float64)[:, None, None]
    density = torch.exp(-0.5 * (precision * (at - mean).square()).sum(1))[:, 0]
    density = density / density.sum()
    centre = (density * at[:, 0, 0]).sum()
    width = (density * (at[:, 0, 0] - centre).square()).sum()
    found, total = product(mean, precision)
    assert found.item() == pytest.approx(centre.item(), abs=1e-3)
    assert 1 / total.item() == pytest.approx(width.item(), rel=1e-3)


def test_nobody_says_nothing() -> None:
    mean, precision = product(torch.full((2, 3), float("nan")), torch.zeros(2, 3))
    assert mean.tolist() == precision.tolist() == [0.0, 0.0, 0.0]


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_fused_embeddings_do_not_depend_on_what_absent_ones_hold(seed: int) -> None:
    torch.manual_seed(seed % 1000)
    fusion = Fusion((2, 3, 1), 4, units=8)
    whole = _normal(seed, 5, 6)
    present = (_normal(seed + 1, 5, 3) > 0).float()
    held = present.repeat_interleave(torch.tensor(fusion.sizes), 1) > 0
    with torch.no_grad():
        mean, std = fusion(whole, present)
        odd, spread = fusion(
            torch.where(held, whole, torch.full_like(whole, float("nan"))), present
        )
        nothing = fusion(whole, torch.zeros(5, 3))
        more = fusion(whole, torch.ones(5, 3))
    assert torch.equal(mean, odd)
    assert torch.equal(std, spread)
    assert torch.equal(nothing[0], torch.zeros(5, 4))
    assert torch.equal(nothing[1], torch.ones(5, 4))
    assert (more[1] <= std + 1e-6).all()  # who hears more is no less sure


def test_it_exports_with_any_number_of_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    fusion = Fusion((2, 3), 4).eval()
    rows = torch.export.Dim("rows", min=1)
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            fusion,
            (_normal(0, 3, 5), torch.ones(3, 2)),
            dynamo=True,
            dynamic_shapes=({0: rows}, {0: rows}),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.save(str(tmp_path / "f.onnx"))
    session = ort.InferenceSession(str(tmp_path / "f.onnx"), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    for count in (1, 8):
        given = _normal(count, count, 5), (_normal(9, count, 2) > 0).float()
        found = session.run(None, {n: x.numpy() for n, x in zip(names, given, strict=True)})
        with torch.no_grad():
            for mine, wanted in zip(found, fusion(*given), strict=True):
                np.testing.assert_allclose(mine, wanted.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_a_silent_sensor_takes_away_its_own_evidence_alone(name: FormName) -> None:
    torch.manual_seed(0)
    form = make_form(name, 0, 2, 3)
    encoder = FusedEncoder([(0, 2), (1,), (3, 4)], 4, 8, form)
    seen, memory = _normal(1, 6, 5), _normal(2, 6, 4)
    mask = torch.ones(6, 5)
    mask[:, 1] = 0.0
    with torch.no_grad():
        found = encoder(seen, mask, memory)
        rest = [
            expert(seen[:, list(columns)], torch.ones(6, 2), memory)
            for columns, expert in zip(
                [(0, 2), (3, 4)], (encoder.experts[0], encoder.experts[2]), strict=True
            )
        ]
        wanted = form.fuse(*(torch.stack(parts) for parts in zip(*rest, strict=True)))
        silent = encoder(seen, torch.zeros(6, 5), memory)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
    assert silent[0].abs().max() == silent[1].abs().max() == 0.0


def test_columns_are_grouped_by_the_sensors_of_the_spec() -> None:
    assert sensor_columns(mass_spec()) == ((0, 1, 2),)
    assert sensor_columns(load_spec("nav2d")) == ((0, 1, 2, 3), (4, 5))
    spec = load_spec("autoscale")
    groups = sensor_columns(spec)
    assert [spec.columns[i] for group in groups for i in group] == list(spec.columns)
    assert len(groups) == len(spec.sensors) + 1  # and the time of day


def test_a_fused_encoder_needs_the_sensors() -> None:
    config = ModelConfig(memory=4, free=2, units=8, encoder="fused")
    for sensors in ((), ((0, 1),), ((0, 1), (1, 2))):
        with pytest.raises(ValueError, match="columns of each sensor"):
            WorldModel(COLUMNS, (FORCE,), config, sensors)


@pytest.mark.parametrize("name", FORMS)
def test_a_belief_with_a_fused_encoder_learns_and_exports(
    trained: Trained, tmp_path: Path, name: FormName
) -> None:
    sizes = replace(TINY.model, encoder="fused", form=name, classes=3)
    trainer = Trainer(
        trained.spec, trained.dataset, replace(TINY, steps=12, actor_steps=0, model=sizes)
    )
    first = trainer.model.encoder.experts[0].net[0].weight  # type: ignore[union-attr,index]
    before = first.clone()
    trainer.run()
    assert not torch.equal(before, first)
    model, behaviour = trainer.model, trainer.behaviour
    found = export_graph("believe", model, behaviour, tmp_path / "believe.onnx")
    assert max(found.values()) < 2e-5
