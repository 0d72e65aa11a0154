"""Sequences come out of trajectories whole, in order, and split in time."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from models.data import BLOCK, load_dataset, load_whole
from models.logs import DataError
from schemas.codes import Flag
from schemas.system import parse_spec
from tests.models.synthetic import SPEC, mass_spec, simulate

WEIGHTS = torch.ones(100, 5)


def _write(folder: Path, frame: pl.DataFrame) -> Path:
    folder.mkdir(parents=True)
    frame.write_parquet(folder / "part.parquet")
    return folder


def test_gaps_joins_and_resets_break_a_sequence(tmp_path: Path) -> None:
    frame = simulate(2, 60, seed=1)
    one = pl.col("entity") == "mass-0"
    frame = frame.filter(~(one & (pl.col("tick") == 10)))  # a gap
    flags = (
        pl.when(one & (pl.col("tick") == 20))
        .then(int(Flag.RESET))
        .when(one & (pl.col("tick") == 30))
        .then(int(Flag.JOINED))
        .otherwise(pl.col("flags"))
    )
    data = load_dataset(
        mass_spec(), [_write(tmp_path / "a", frame.with_columns(flags=flags))], validation=0.2
    )
    lengths = np.diff(data.train.segments, axis=1).flatten().tolist()
    assert lengths == [10, 9, 10, 18, 48]  # mass-0: 0–9, 11–19, 20–29, 30–47; mass-1: 0–47
    ended = np.flatnonzero(data.train.alive == 0)
    assert ended.tolist() == [18]  # the tick before the reset, and no other break


def test_training_comes_before_validation_in_time_and_never_overlaps(tmp_path: Path) -> None:
    frame = simulate(3, 100, seed=2)
    data = load_dataset(mass_spec(), [_write(tmp_path / "a", frame)], validation=0.25)
    assert len(data.train) + len(data.validation) == 300
    early = frame.filter(pl.col("tick") <= 74)["place"].drop_nans().sum()
    assert float(np.nansum(data.train.obs[:, 0], dtype=np.float64)) == pytest.approx(
        early, rel=1e-5
    )


def test_entities_can_be_held_out_instead(tmp_path: Path) -> None:
    frame = simulate(4, 30, seed=2)
    data = load_dataset(
        mass_spec(), [_write(tmp_path / "a", frame)], validation=0.25, split="entity"
    )
    assert (len(data.train), len(data.validation)) == (90, 30)
    last = frame.filter(pl.col("entity") == "mass-3")["place"].to_numpy().astype(np.float32)
    np.testing.assert_array_equal(data.validation.obs[:, 0], last)


def test_all_of_it_can_be_taken_and_rows_say_where_they_are_from(tmp_path: Path) -> None:
    folders = [_write(tmp_path / str(i), simulate(2, 40, seed=i)) for i in range(2)]
    data = load_whole(mass_spec(), folders)
    assert len(data) == 2 * 2 * 40
    row = int(np.flatnonzero((data.run == 1) & (data.entity == "mass-1") & (data.tick == 7))[0])
    known = simulate(2, 40, seed=1).filter((pl.col("entity") == "mass-1") & (pl.col("tick") == 7))
    np.testing.assert_allclose(data.obs[row, 0], known["place"].to_numpy()[0], rtol=1e-6)
    with pytest.raises(DataError, match="consecutive"):
        load_whole(mass_spec(), [_write(tmp_path / "short", simulate(1, 5, seed=1))])


def test_order_of_rows_and_repeated_attempts_do_not_matter(tmp_path: Path) -> None:
    frame = simulate(2, 40, seed=3)
    wrong = frame.with_columns(pl.col("place") + 100.0)
    again = pl.concat([frame.with_columns(attempt=pl.lit(1, pl.Int32)), wrong])
    shuffled = again.sample(fraction=1.0, shuffle=True, seed=5)
    plain = load_dataset(mass_spec(), [_write(tmp_path / "a", frame)])
    messy = load_dataset(mass_spec(), [_write(tmp_path / "b", shuffled)])
    np.testing.assert_array_equal(plain.train.obs, messy.train.obs)
    np.testing.assert_array_equal(plain.train.action, messy.train.action)


def test_two_runs_with_the_same_ticks_stay_apart(tmp_path: Path) -> None:
    folders = [_write(tmp_path / str(i), simulate(2, 40, seed=i)) for i in range(2)]
    data = load_dataset(mass_spec(), folders, validation=0.2)
    assert len(data.train.segments) == 4
    assert [source["entities"] for source in data.sources] == [2, 2]


def test_reward_is_computed_from_the_expression_and_the_applied_action(tmp_path: Path) -> None:
    frame = simulate(1, 30, seed=4).with_columns(reward=pl.lit(123.0))
    data = load_dataset(mass_spec(), [_write(tmp_path / "a", frame)])
    obs = data.train.obs
    known = np.isfinite(obs[:, 0])
    expected = -np.abs(obs[known, 0]) - obs[known, 2]
    np.testing.assert_allclose(data.train.reward[known], expected, rtol=1e-5)
    assert np.isnan(data.train.reward[~known]).all()


def test_columns_of_one_unit_and_range_share_a_scale(tmp_path: Path) -> None:
    text = SPEC.replace(
        "      speed: {unit: m/s",
        "      target: {unit: m, range: [-100, 100]}\n      speed: {unit: m/s",
    )
    frame = simulate(2, 60, seed=6).with_columns(target=pl.col("place") * 5 + 3)
    data = load_dataset(parse_spec(text), [_write(tmp_path / "a", frame)])
    place, target, speed, _ = data.columns
    assert (place.mean, place.std) == (target.mean, target.std) != (speed.mean, speed.std)
    assert target.step > 2 * place.step


def test_windows_stay_in_their_segment_and_say_what_is_padding(tmp_path: Path) -> None:
    data = load_dataset(mass_spec(), [_write(tmp_path / "a", simulate(3, 40, seed=6))])
    train = data.train
    rng = np.random.default_rng(0)
    starts = train.draw(rng, 200, 12)
    assert (starts >= train.first[starts]).all()
    assert (starts + 12 <= train.last[starts]).all()
    batch = train.window(np.array([int(train.segments[0, 1]) - 5]), 12, WEIGHTS)
    assert batch.valid[0].tolist() == [1.0] * 5 + [0.0] * 7
    assert batch.mask[0, 5:].sum() == 0
    assert torch.isfinite(batch.obs).all()
    everywhere = np.zeros(len(train), bool)
    for start in train.draw(rng, 500, 12):
        everywhere[start : start + 12] = True
    assert everywhere.all()


def test_bootstrap_weights_differ_by_member_and_repeat_by_seed(tmp_path: Path) -> None:
    data = load_dataset(mass_spec(), [_write(tmp_path / "a", simulate(3, 200, seed=7))])
    weights = data.bootstrap(5, seed=1)
    assert weights.shape == (len(data.train) // BLOCK + 1, 5)
    assert torch.equal(weights, data.bootstrap(5, seed=1))
    assert (weights.std(1) > 0.05).all()


def test_messages_name_the_folder_and_the_remedy(tmp_path: Path) -> None:
    spec = mass_spec()
    with pytest.raises(DataError, match=r"nothing: no Parquet.*backtest mass --log"):
        load_dataset(spec, [tmp_path / "nothing"])
    frame = simulate(2, 20, seed=8)
    with pytest.raises(DataError, match="column 'speed' is absent"):
        load_dataset(spec, [_write(tmp_path / "b", frame.drop("speed"))])
    odd = frame.with_columns(interface_hash=pl.lit("feed"))
    with pytest.raises(DataError, match=f"interface feed, the spec's is {spec.interface_hash}"):
        load_dataset(spec, [_write(tmp_path / "c", odd)])
    with pytest.raises(DataError, match="too few consecutive ticks"):
        load_dataset(spec, [_write(tmp_path / "d", frame.filter(pl.col("tick") % 2 == 0))])
