"""Belief rows: bytes, digests, who is carried over, and who is anchored."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.session import Bundle
from schemas.codes import Flag
from schemas.frames import Frame
from schemas.system import SystemSpec, load_spec
from streams.belief import STRIKES, Row, RowError, decode_row, encode_row, index_of, update
from tests.planner.worlds import double_integrator, make_bundle, make_frame

SPEC = load_spec("nav2d")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"), SPEC, double_integrator())


def frames(count: int, ticks: int, seed: int = 0, missing: float = 0.3) -> list[Frame]:
    """Small random motion; `missing` of the readings are absent, except in the first frame."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, len(SPEC.columns)))
    made = []
    for tick in range(ticks):
        values = values + 0.05 * rng.normal(size=values.shape)
        seen = np.where(rng.random(values.shape) < (missing if tick else 0.0), np.nan, values)
        applied = rng.uniform(-1, 1, (count, 2))
        made.append(make_frame(SPEC, seen, tick=tick, applied=applied))
    return made


def row_of(entities: tuple[str, ...], seed: int = 0) -> Row:
    rng = np.random.default_rng(seed)
    n = len(entities)

    def floats(*shape: int) -> npt.NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    return Row(
        cohort=2,
        tick=7,
        epoch=1,
        bundle="b",
        entities=entities,
        hidden=floats(n, 5),
        mean=floats(n, 3),
        std=floats(n, 3),
        innovation=floats(n),
        strikes=rng.integers(0, 3, n).astype(np.uint8),
        memory={"sequence": rng.normal(size=(n, 4, 2)), "gated": np.zeros(n, bool)},
        offset=41,
    )


names = st.lists(st.text("abcdef", min_size=1, max_size=4), max_size=8, unique=True)


@given(names, st.integers(0, 99))
def test_bytes_and_back(entities: list[str], seed: int) -> None:
    row = row_of(tuple(sorted(entities)), seed)
    again = decode_row(encode_row(row))
    assert again.digest == row.digest
    assert (again.offset, again.tick, again.entities) == (41, 7, row.entities)
    assert set(again.memory) == {"sequence", "gated"}
    for name, array in row.memory.items():
        assert again.memory[name].dtype == array.dtype
        np.testing.assert_array_equal(again.memory[name], array)


def test_digest_covers_the_belief_and_only_the_belief() -> None:
    row = row_of(("a", "b"))
    assert replace(row, memory={}, offset=0).digest == row.digest
    changed = row.std.copy()
    changed[1, 2] = np.nextafter(changed[1, 2], 9)
    for other in (
        replace(row, std=changed),
        replace(row, tick=8),
        replace(row, epoch=2),
        replace(row, bundle="c"),
        replace(row, entities=("a", "c")),
        replace(row, strikes=row.strikes + np.uint8(1)),
    ):
        assert other.digest != row.digest


@given(names, names)
def test_carry_keeps_each_belief_with_its_entity(before: list[str], after: list[str]) -> None:
    row = row_of(tuple(sorted(before)))
    moved, known = row.carry(tuple(sorted(after)))
    assert moved.entities == tuple(sorted(after))
    for i, entity in enumerate(moved.entities):
        assert known[i] == (entity in before)
        kept = row.hidden[row.entities.index(entity)] if entity in before else np.zeros(5)
        np.testing.assert_array_equal(moved.hidden[i], kept)


def test_index_of_says_minus_one_for_strangers() -> None:
    assert index_of(("a", "c"), ("c", "b", "a")).tolist() == [1, -1, 0]


@pytest.mark.parametrize("data", [b"", b"\x00", b"not a row", b"\x93\x01\x02\x03"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RowError, match="belief row"):
        decode_row(data)


def test_a_row_with_a_short_array_or_of_another_format_is_refused() -> None:
    packed = msgspec.msgpack.decode(encode_row(row_of(("a", "b"))))
    short, later = list(packed), list(packed)
    short[8] = short[8][:-4]
    later[0] = 99
    with pytest.raises(RowError, match="not a belief row"):
        decode_row(msgspec.msgpack.encode(short))
    with pytest.raises(RowError, match="format 99"):
        decode_row(msgspec.msgpack.encode(later))


def believe_all(bundle: Bundle, made: list[Frame], spec: SystemSpec = SPEC) -> list[Row]:
    row, rows = None, []
    for frame in made:
        row, _, _ = update(spec, bundle, row, frame)
        rows.append(row)
    return rows


def test_first_tick_anchors_and_a_missing_channel_is_predicted(bundle: Bundle) -> None:
    first, second = frames(3, 2, missing=0.0)
    row, _, anchored = update(SPEC, bundle, None, first)
    assert anchored.all()
    assert np.isnan(row.innovation).all()
    np.testing.assert_allclose(row.hidden, first.values, rtol=1e-6)
    blind = replace(second, values=np.full_like(second.values, np.nan))
    after, _, anchored = update(SPEC, bundle, row, blind)
    assert not anchored.any()
    world = double_integrator()
    expected = first.values @ world.transition + second.applied @ world.control
    np.testing.assert_allclose(after.hidden, expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_action_counts_as_the_safe_one(bundle: Bundle) -> None:
    first, second = frames(2, 2)
    row, _, _ = update(SPEC, bundle, None, first)
    unknown = replace(second, applied=np.full_like(second.applied, np.nan))
    safe = replace(second, applied=np.tile(SPEC.action_safe, (2, 1)))
    assert update(SPEC, bundle, row, unknown)[0].digest == update(SPEC, bundle, row, safe)[0].digest


def test_beliefs_depend_on_frames_and_bundle_alone(bundle: Bundle) -> None:
    made = frames(4, 12)
    rows = believe_all(bundle, made)
    assert [r.digest for r in rows] == [r.digest for r in believe_all(bundle, made)]
    stored = decode_row(encode_row(rows[5]))
    resumed, _, _ = update(SPEC, bundle, stored, made[6])
    assert resumed.digest == rows[6].digest


@pytest.mark.parametrize("flag", [Flag.JOINED, Flag.RESET])
def test_joined_and_reset_entities_are_anchored_alone(bundle: Bundle, flag: Flag) -> None:
    made = frames(3, 4, missing=0.5)
    row = believe_all(bundle, made[:3])[-1]
    flags = np.array([0, flag, 0], np.uint8)
    plain, _, _ = update(SPEC, bundle, row, made[3])
    after, _, anchored = update(SPEC, bundle, row, replace(made[3], flags=flags))
    assert anchored.tolist() == [False, True, False]
    np.testing.assert_array_equal(after.hidden[[0, 2]], plain.hidden[[0, 2]])
    assert np.isnan(made[3].values[1]).any()
    assert not np.array_equal(after.hidden[1], plain.hidden[1])


def test_another_bundle_or_a_missed_tick_anchors_everyone(bundle: Bundle, tmp_path: Path) -> None:
    other = make_bundle(tmp_path, SPEC, double_integrator(), name="other")
    made = frames(3, 4)
    row = believe_all(bundle, made[:2])[-1]
    assert not update(SPEC, bundle, row, made[2])[2].any()
    assert update(SPEC, other, row, made[2])[2].all()
    assert update(SPEC, bundle, row, made[3])[2].all()


def test_a_belief_that_keeps_being_wrong_is_rebuilt(bundle: Bundle) -> None:
    """One reading beyond the band is borne; `STRIKES` in a row are not."""
    first, *later = frames(2, STRIKES + 2, missing=0.0)
    row, _, _ = update(SPEC, bundle, None, first)
    for number, frame in enumerate(later, start=1):
        far = frame.values.copy()
        far[1] += 100.0 * number  # each jump is far beyond the band of 4
        row, _, anchored = update(SPEC, bundle, row, replace(frame, values=far))
        assert anchored.tolist() == [False, number == STRIKES]
        assert row.strikes[0] == 0
        assert row.strikes[1] == (number % STRIKES)
        assert np.isnan(row.innovation[1]) == (number == STRIKES)


def test_a_belief_that_is_not_finite_is_rebuilt(bundle: Bundle) -> None:
    made = frames(2, 3, missing=0.0)
    row = believe_all(bundle, made[:2])[-1]
    broken = row.hidden.copy()
    broken[0, 0] = np.nan
    after, _, anchored = update(SPEC, bundle, replace(row, hidden=broken), made[2])
    assert anchored.tolist() == [True, False]
    assert np.isfinite(after.hidden).all()
