"""Pretraining without labels: what is hidden has no effect, it learns, resumes, and is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from models.checkpoint import CheckpointError
from models.cli import app
from models.encoders.masked import MaskedSeries, draw_hidden
from models.encoders.pretrain import CHECKPOINT, ENCODER, WEIGHTS, Pretrainer, prepared
from models.encoders.pretrain_recipe import PretrainError, Pretraining, load_pretraining
from models.encoders.series import AttentionSeriesEncoder
from models.encoders.windows import F32, WindowError, read_windows
from planner.encoder import Encoder
from schemas.perceive import TensorInput

SMALL = {"piece": 4, "width": 8, "heads": 2, "layers": 1, "units": 8}


def recipe(**changes: Any) -> Pretraining:
    content: dict[str, Any] = {
        "data": {"window": 16},
        "encoder": SMALL,
        "loop": {"steps": 12, "finetune_steps": 6, "batch": 8},
    }
    return Pretraining.model_validate({**content, **changes})


def sines(count: int, seed: int) -> tuple[F32, F32]:
    """Sines [count, 16, 1] of any phase, and their angular frequency [count, 1] a tick."""
    rng = np.random.default_rng(seed)
    speed = rng.uniform(0.2, 1.2, (count, 1))
    phase = rng.uniform(0, 2 * np.pi, (count, 1))
    waves = np.sin(speed * np.arange(16) + phase)[..., None]
    return waves.astype(np.float32), speed.astype(np.float32)


@given(st.integers(0, 2**31), st.integers(2, 9), st.floats(0.01, 0.99))
@settings(max_examples=40)
def test_as_many_pieces_are_hidden_in_each_row(seed: int, pieces: int, share: float) -> None:
    hide = draw_hidden(5, pieces, share, torch.Generator().manual_seed(seed))
    assert len(set(hide.sum(1).tolist())) == 1
    assert 1 <= hide[0].sum() <= pieces - 1


def test_what_is_hidden_has_no_effect_on_what_is_told() -> None:
    torch.manual_seed(0)
    model = MaskedSeries(AttentionSeriesEncoder(16, 1, 1, **SMALL))
    series = torch.randn(3, 16, 1)
    hide = draw_hidden(3, 4, 0.5, torch.Generator().manual_seed(1))
    held = hide.repeat_interleave(4, 1)[..., None]
    other = torch.where(held, torch.full_like(series, 7.0), series)
    with torch.no_grad():
        assert torch.equal(model(series, hide), model(other, hide))
        assert not torch.equal(model(series, hide), model(series, ~hide))
        wrong = (model(series, hide) - model.encoder.pieces(series))[hide].square().mean()
    assert model.loss(series, hide).item() == pytest.approx(wrong.item())


def test_it_learns_to_tell_what_is_hidden_and_then_labels() -> None:
    torch.manual_seed(0)
    learner = Pretrainer(
        recipe(
            loop={"steps": 250, "finetune_steps": 150, "batch": 32},
            encoder={**SMALL, "width": 16, "layers": 2},
        ),
        sines(500, 0)[0],
        sines(200, 1),
    )
    before = learner.model.encoder.read[1][0].weight.clone()  # type: ignore[index]
    for _ in range(250):
        learner.update()
    read = learner.model.encoder.read[1][0].weight  # type: ignore[index]
    assert torch.equal(read, before)  # what reads labels off has not learned yet
    assert learner.run()
    losses = learner.losses["masked"]
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:20])
    assert max(learner.errors(*sines(200, 2))) < 0.6  # of the spread: 1 is a guess


def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = sines(40, 0)[0], sines(20, 1)
    whole = Pretrainer(recipe(), *data)
    whole.run()
    for cut in (5, 14):
        first = Pretrainer(recipe(), *data)
        for _ in range(cut):
            first.update()
        first.save(tmp_path / CHECKPOINT)
        second = Pretrainer(recipe(), *data)
        second.load(tmp_path / CHECKPOINT)
        second.run()
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, second.model.state_dict()[name]), (cut, name)
    for other in (
        Pretrainer(recipe(seed=1), *data),
        Pretrainer(recipe(), sines(40, 3)[0], data[1]),
    ):
        with pytest.raises(CheckpointError, match="other settings or data"):
            other.load(tmp_path / CHECKPOINT)


def test_an_earlier_pretraining_is_gone_on_from(tmp_path: Path) -> None:
    first = Pretrainer(recipe(), sines(40, 0)[0])
    first.run()
    torch.save(first.model.state_dict(), tmp_path / WEIGHTS)
    again = recipe(encoder={**SMALL, "of": tmp_path / WEIGHTS}, seed=5)
    taught = Pretrainer(again, 3.0 * sines(40, 0)[0], sines(20, 1))
    for name, value in taught.model.encoder.named_parameters():
        if not name.startswith("read.0"):  # a norm begins alike
            same = torch.equal(value, first.model.encoder.get_parameter(name))
            assert same != name.startswith("read."), name
    assert torch.equal(taught.model.spread, first.model.spread)
    other = recipe(encoder={**SMALL, "width": 4, "of": tmp_path / WEIGHTS})
    with pytest.raises(PretrainError, match=r"encoder\.of: .*of these sizes"):
        Pretrainer(other, sines(40, 0)[0])


# windows


def logged(path: Path) -> None:
    """Two entities, one of which misses a tick; rows in no order."""
    rows = [("a", t, float(t)) for t in range(6)] + [("b", t, 10.0 + t) for t in (0, 1, 3, 4, 5)]
    table = pl.DataFrame(rows, schema=["entity", "tick", "x"], orient="row")
    table.with_columns(y=-pl.col("x")).sample(fraction=1.0, shuffle=True, seed=0).write_parquet(
        path
    )


def test_windows_of_a_log_end_where_a_tick_is_missing(tmp_path: Path) -> None:
    logged(tmp_path / "log.parquet")
    values, told = read_windows([tmp_path], ["x", "y"], 3, 2, ["x"])
    assert values[..., 0].tolist() == [[0, 1, 2], [2, 3, 4], [13, 14, 15]]
    assert (values[..., 1] == -values[..., 0]).all()
    assert told[:, 0].tolist() == [2, 4, 15]


def test_lists_are_windows_and_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "waves.parquet"
    waves = [[1.0, 2.0], [3.0, None], [5.0, 6.0]]
    pl.DataFrame({"wave": waves, "damage": [0.1, 0.2, None]}).write_parquet(file)
    assert read_windows([file], ["wave"], 2, 1)[0][..., 0].tolist() == [[1, 2], [5, 6]]
    assert read_windows([file], ["wave"], 2, 1, ["damage"])[1].tolist() == [[pytest.approx(0.1)]]
    for columns, length, said in (
        (["wave"], 3, "lists that are not of 3"),
        (["wav"], 2, "no column 'wav'; there are wave, damage"),
        (["damage"], 9, "holds no window of 9"),
    ):
        with pytest.raises(WindowError, match=said):
            read_windows([file], columns, length, 1)
    (tmp_path / "none").mkdir()
    with pytest.raises(WindowError, match="no Parquet file"):
        read_windows([tmp_path / "none"], ["x"], 2, 1)
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(WindowError, match="cannot be read"):
        read_windows([tmp_path / "bad.parquet"], ["x"], 2, 1)


# the command

FILE = """
pretraining: sines
data: {{files: [{folder}/plain.parquet], series: [wave], window: 16}}
labels: {{files: [{folder}/told.parquet], columns: [speed]}}
encoder: {{piece: 4, width: 8, heads: 2, layers: 1, units: 8}}
loop: {{steps: 6, finetune_steps: 4, batch: 8}}
run: {{out: {folder}/out}}
"""


def test_the_command_makes_an_encoder_that_perceive_takes(tmp_path: Path) -> None:
    for name, seed in (("plain", 0), ("told", 1)):
        waves, speed = sines(30, seed)
        table = {"wave": list(waves[..., 0]), "speed": speed[:, 0]}
        pl.DataFrame(table).write_parquet(tmp_path / f"{name}.parquet")
    file = tmp_path / "sines.yaml"
    file.write_text(FILE.format(folder=tmp_path))
    done = CliRunner().invoke(app, ["pretrain", str(file), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["windows"], result["labelled"], result["held_out"]) == (30, 24, 6)
    assert result["errors"].keys() == {"speed"}
    assert result["parity"] < 2e-5
    again = CliRunner().invoke(app, ["pretrain", str(file), "--resume", "--json"])
    assert json.loads(again.stdout)["errors"] == result["errors"]  # there was nothing left to do
    content = {"kind": "tensor", "size": [16, 1], "encoder": ENCODER}
    raw = TensorInput.model_validate(content, context={"folder": tmp_path / "out"})
    learner, _ = prepared(load_pretraining(file))
    learner.load(tmp_path / "out" / CHECKPOINT)
    with torch.no_grad():
        wanted = learner.model(torch.from_numpy(waves)).numpy()
    np.testing.assert_allclose(Encoder(raw, 1, "cpu").encode(waves), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {}\n", r"f\.yaml:1: a pretraining is a mapping that begins with"),
        ("pretraining: a\nmasking: {shar: 1}\n", r"f\.yaml:2: masking\.shar: there is no such"),
        ("pretraining: a\nmasking: {share: 1}\n", r"f\.yaml:2: masking\.share: .*less than 1"),
        ("pretraining: a\ndata: {window: 24}\n", r"f\.yaml:1: pretraining: data\.window 24: take"),
        ("pretraining: a\nencoder: {width: 9}\n", r"encoder\.width: take a multiple"),
        ("pretraining: a\nlabels: {files: [a]}\n", r"labels: name files, and the columns"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(PretrainError, match=said):
        load_pretraining(tmp_path / "f.yaml")
    done = CliRunner().invoke(app, ["pretrain", str(tmp_path / "f.yaml")])
    assert done.exit_code == 2


def test_every_option_has_its_place_in_the_file() -> None:
    command = typer.main.get_command(app).commands["pretrain"]  # type: ignore[attr-defined]
    schema, places = Pretraining.model_json_schema(), 0
    for parameter in command.params:
        if parameter.name in {"what", "resume", "as_json", "help"}:
            continue
        place = parameter.help[parameter.help.rindex("(") + 1 : -1]
        part = schema
        for name in place.split("."):
            assert name in part["properties"], f"--{parameter.name}: {place} is no field"
            part = part["properties"][name]
            for kind in [part, *part.get("anyOf", [])]:
                if "$ref" in kind:
                    part = schema["$defs"][kind["$ref"].rpartition("/")[2]]
        places += 1
    assert places >= 12
