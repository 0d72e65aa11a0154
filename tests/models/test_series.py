"""Encoders of time series: they look back alone, learn, and run in `perceive` as in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.plants.waveforms import FULL_SCALE, SAMPLES, SPEEDS_HZ, vibrations
from models.encoders.example import TURNS, Scaled, draw_vibration, train_encoder
from models.encoders.export import difference, export_encoder
from models.encoders.series import AttentionSeriesEncoder, ConvSeriesEncoder
from models.export import TOLERANCE
from planner.encoder import Encoder
from schemas.system import parse_spec
from streams.raw_inputs import RawReader

SPEC = """
system: mill
entity: shaft
tick: 100 ms
sensors:
  vibration:
    perceive: {kind: tensor, size: [256, 1], type: <i2, encoder: vibration.onnx, batch: 8}
    time: {field: ts, unit: us}
    every: 100 ms
    max_age: 1 s
    channels:
      speed: {unit: Hz, range: [0, 100]}
      damage: {unit: "1", range: [-1, 2]}
actions:
  torque: {unit: N m, low: -1, high: 1}
reward: "-damage"
fallback: {kind: value, value: 0}
budget: {deadline: 20 ms, tiers: {deep: {candidates: 20, horizon: 5, iterations: 1}}}
"""


def _attention(length: int = SAMPLES, scale: float = 1.0) -> AttentionSeriesEncoder:
    return AttentionSeriesEncoder(length, 1, 2, scale=scale)


@given(st.integers(0, 2**31), st.integers(1, 39))
@settings(max_examples=25, deadline=None)
def test_convolutions_do_not_look_ahead(seed: int, cut: int) -> None:
    g = torch.Generator().manual_seed(seed)
    encoder = ConvSeriesEncoder(2, 3, widths=(4, 4, 4), kernel=3)
    series = torch.randn(2, 40, 2, generator=g)
    other = series.clone()
    other[:, cut:] = torch.randn(2, 40 - cut, 2, generator=g)
    with torch.no_grad():
        one, two = encoder.features(series), encoder.features(other)
    assert torch.equal(one[:, :cut], two[:, :cut])
    assert not torch.equal(one[:, cut:], two[:, cut:])


def test_convolutions_look_back_as_far_as_they_say() -> None:
    encoder = ConvSeriesEncoder(1, 2, widths=(3, 3, 3), kernel=3)
    assert encoder.sight == 1 + 2 * (1 + 2 + 4)
    series = torch.zeros(1, 40, 1, requires_grad=True)
    with torch.no_grad():  # no unit is shut, so whatever is looked at has a gradient
        for name, weight in encoder.levels.named_parameters():
            weight.fill_(0.5 if "weight" in name else 1.0)
    last = encoder.features(series)[0, -1].sum()
    (slope,) = torch.autograd.grad(last, series)
    assert (slope[0, :, 0] != 0).nonzero().min().item() == 40 - encoder.sight


def test_a_transformer_knows_where_its_pieces_are() -> None:
    torch.manual_seed(0)
    encoder = _attention(64)
    series = torch.randn(3, 64, 1)
    turned = series.view(3, 4, 16, 1)[:, [1, 0, 2, 3]].reshape(3, 64, 1)
    with torch.no_grad():
        assert (encoder(series) - encoder(turned)).abs().max() > 1e-3
        encoder.place.zero_()
        torch.testing.assert_close(encoder(series), encoder(turned))
    with pytest.raises(ValueError, match="multiples of piece 16"):
        _attention(60)


@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_exported_they_compute_what_torch_does(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    encoder = ConvSeriesEncoder(1, 2) if kind == "conv" else _attention()
    waves, _ = draw_vibration(np.random.default_rng(0), 9)
    path = tmp_path / "a.onnx"
    assert export_encoder(encoder, waves / FULL_SCALE, path) < TOLERANCE
    with torch.no_grad():
        next(encoder.parameters()).mul_(1.5)
    assert difference(encoder, waves / FULL_SCALE, path) > TOLERANCE


@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_they_learn_from_a_waveform_how_a_shaft_turns(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    inner = ConvSeriesEncoder(1, 2, scale=FULL_SCALE)
    learner = Scaled(inner if kind == "conv" else _attention(scale=FULL_SCALE), TURNS)
    error = train_encoder(learner, draw_vibration, 160, rows=32)
    assert error < 0.3  # of what is guessed without looking, 95 % are below 0.56
    if kind == "conv":
        _runs_in_perceive(learner, tmp_path)


def _runs_in_perceive(learner: Scaled, folder: Path) -> None:
    """A packed message of the raw topic, read as `perceive` reads it, and encoded as it encodes."""
    rng = np.random.default_rng(1)
    speed, damage = rng.uniform(*SPEEDS_HZ, 11), rng.random(11)
    waves = vibrations(speed, damage, rng)
    export_encoder(learner, torch.from_numpy(waves.astype(np.float32)), folder / "vibration.onnx")
    ((sensor, raw),) = parse_spec(SPEC, str(folder / "mill.yaml")).perceived
    reader = RawReader(sensor, raw)
    rows = [reader.read(b"shaft-1", wave.tobytes(), {"ts": b"1"}).row for wave in waves]
    found = Encoder(raw, 2, "cpu").encode(np.stack(rows))
    with torch.no_grad():
        wanted = learner(torch.from_numpy(waves.astype(np.float32))).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-2)
    assert np.abs(found[:, 0] - speed).mean() < np.abs(speed - speed.mean()).mean()
