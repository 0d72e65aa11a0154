"""Raw messages: what is read of them, and what is refused before it costs anything."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from infra.plants.views import jpeg
from schemas.spec_parts import SensorSpec
from schemas.topics import MAX_RAW_BYTES
from streams.codecs.base import REASONS, Refused
from streams.raw_inputs import Raw, RawReader

HEADERS = {"ts": b"12"}


def reader(time: dict[str, str] | None = None, **perceive: Any) -> RawReader:
    sensor = SensorSpec.model_validate(
        {
            "every": "1 s",
            "max_age": "1 s",
            "time": {"field": "ts", "unit": "us", **(time or {})},
            "channels": {"a": {"unit": "m", "range": [0, 1]}},
            "perceive": {"encoder": "none.onnx", "sha256": "0" * 64, **perceive},
        }
    )
    assert sensor.perceive is not None
    return RawReader(sensor, sensor.perceive)


CAMERA = reader(kind="jpeg", size=[16, 24])
CLOUD = reader(kind="points", size=[4], fields={"x": "<f4", "y": "<f4", "z": "<f8", "rest": "V4"})
WAVE = reader(kind="tensor", size=[2, 3], type="<i2")
PICTURE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def refusal(read: RawReader, value: bytes | None, **changes: Any) -> str:
    message: dict[str, Any] = {"key": b"ant", "headers": HEADERS, **changes}
    with pytest.raises(Refused) as found:
        read.read(message["key"], value, message["headers"])
    assert found.value.reason in REASONS
    return f"{found.value.reason}: {found.value.detail}"


def encoded(image: Image.Image, kind: str = "JPEG", progressive: bool = False) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, progressive=progressive)
    return file.getvalue()


def test_a_picture_is_what_pillow_makes_of_it() -> None:
    data = jpeg(PICTURE, quality=95)
    raw = CAMERA.read(b"ant", data, HEADERS)
    assert raw.key == b"ant"
    assert (raw.time, type(raw.time)) == (12, int)
    assert np.array_equal(raw.row, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_pictures_of_other_kinds_and_sizes_are_scaled(mode: str) -> None:
    image = Image.new(mode, (480, 320), 77 if mode == "L" else "red")
    for progressive in (False, True):
        row = CAMERA.read(b"ant", encoded(image, progressive=progressive), HEADERS).row
        assert (row.shape, row.dtype.name) == ((16, 24, 3), "uint8")
        wanted = np.asarray(image.convert("RGB"))[0, 0]
        assert np.abs(row.astype(int) - wanted).max() < 8


def test_pictures_that_would_cost_too_much_are_refused_unread() -> None:
    good = jpeg(PICTURE)
    header = b"\x08\x00\x10\x00\x18\x03"  # bits, height, width, components
    assert good.count(header) == 1
    bomb = good.replace(header, b"\x08\xff\xf0\xff\xf0\x03")
    assert refusal(CAMERA, bomb).startswith("oversized: ")
    large = good.replace(header, b"\x08\x10\x01\x10\x00\x03")  # just beyond what is allowed
    assert "4096 × 4097 pixels" in refusal(CAMERA, large)
    assert refusal(CAMERA, b"\0" * (MAX_RAW_BYTES + 1)).startswith("oversized")
    assert refusal(CAMERA, good + b"\xff\xda" * 70).startswith("oversized: more than")


def test_what_is_no_picture_is_refused() -> None:
    good = jpeg(PICTURE)
    for value in (b"", b"GIF89a", good[:9], good[: len(good) // 2]):
        assert refusal(CAMERA, value).startswith("malformed")
    assert refusal(CAMERA, encoded(Image.fromarray(PICTURE), "PNG")).startswith("malformed")
    assert refusal(CAMERA, None).startswith("tombstone")


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_pictures_are_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(jpeg(PICTURE))
    places = st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[place] = byte
    try:
        row = CAMERA.read(b"ant", bytes(content), HEADERS).row
    except Refused:
        return
    assert row.shape == (16, 24, 3)


def packed(*points: tuple[float, float, float]) -> bytes:
    kind = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f8"), ("rest", "V4")])
    found = np.zeros(len(points), kind)
    for name, column in zip("xyz", np.array(points).T, strict=True):
        found[name] = column
    return found.tobytes()


def test_points_are_repeated_thinned_and_cleaned() -> None:
    nan = float("nan")
    for points, wanted in (
        ([(1, 2, 3), (4, 5, 6)], [1, 4, 1, 4]),
        ([(1, 2, 3), (nan, 5, 6), (7, 8, 9), (1, 1, 1e60)], [1, 7, 1, 7]),
        ([(i, 0, 0) for i in range(4)], [0, 1, 2, 3]),
        ([(i, 0, 0) for i in range(10)], [0, 2, 5, 7]),
    ):
        row = CLOUD.read(b"ant", packed(*points), HEADERS).row
        assert (row.shape, row.dtype.name) == ((4, 3), "float32")
        assert row[:, 0].tolist() == wanted


def test_clouds_without_points_and_of_other_sizes_are_refused() -> None:
    assert refusal(CLOUD, b"").startswith("malformed: there is no finite")
    assert refusal(CLOUD, packed((1, float("inf"), 0))).startswith("malformed: there is no finite")
    assert refusal(CLOUD, packed((1, 2, 3))[:-1]).startswith("malformed: 19 bytes")


GRID = reader(kind="voxels", size=[4, 2, 2], low=[-2, 0, 0], high=[2, 2, 1])


def cloud(*points: tuple[float, float, float]) -> bytes:
    return np.array(points, "<f4").tobytes()


def test_points_become_cells_of_a_grid() -> None:
    row = GRID.read(b"ant", cloud((-2, 0, 0), (1.5, 1.2, 0.6), (1.9, 1.9, 0.9)), HEADERS).row
    assert (row.shape, row.dtype.name) == ((4, 2, 2), "uint8")
    assert np.argwhere(row).tolist() == [[0, 0, 0], [3, 1, 1]]
    assert row.max() == 1
    outside = cloud((2, 0, 0), (-2.01, 0, 0), (0, 2, 0), (0, 0, 1), (1e30, 0, 0))
    assert not GRID.read(b"ant", outside, HEADERS).row.any()
    assert refusal(GRID, cloud((float("nan"), 0, 0))).startswith("malformed: there is no finite")


@given(st.integers(0, 2**31), st.integers(1, 30))
def test_a_grid_knows_no_order_and_no_count(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-3, 3, (count, 3)).astype("<f4")
    again = np.concatenate([points, points])[rng.permutation(2 * count)]
    one, two = (GRID.read(b"ant", part.tobytes(), HEADERS).row for part in (points, again))
    assert one.tobytes() == two.tobytes()
    low, side = np.array([-2, 0, 0]), np.array([1.0, 1.0, 0.5])
    for cell in np.argwhere(one):
        within = (points >= low + cell * side - 1e-6) & (points <= low + (cell + 1) * side + 1e-6)
        assert within.all(1).any()


CROWD = reader(kind="entities", size=[3], fields={"x": "<f4", "seen": "V2", "v": "<i2"})
ONE = np.dtype([("x", "<f4"), ("seen", "V2"), ("v", "<i2")])


def entities(*pairs: tuple[float, int]) -> bytes:
    found = np.zeros(len(pairs), ONE)
    found["x"], found["v"] = zip(*pairs, strict=True) if pairs else ((), ())
    return found.tobytes()


def test_any_number_of_entities_is_seen_and_none_too() -> None:
    nan = float("nan")
    for pairs, wanted in (
        ((), [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),
        (((1.5, -2),), [[1.5, -2, 1], [0, 0, 0], [0, 0, 0]]),
        (((nan, 7), (2, 3)), [[2, 3, 1], [0, 0, 0], [0, 0, 0]]),
        (((1, 1), (2, 2), (3, 3), (4, 4)), [[1, 1, 1], [2, 2, 1], [3, 3, 1]]),
    ):
        row = CROWD.read(b"ant", entities(*pairs), HEADERS).row
        assert (row.tolist(), row.dtype.name) == (wanted, "float32")
    assert refusal(CROWD, entities((1, 1))[:-1]).startswith("malformed: 7 bytes")
    assert refusal(CROWD, None).startswith("tombstone")


def test_a_tensor_has_its_shape() -> None:
    row = WAVE.read(b"ant", np.arange(6, dtype="<i2").tobytes(), HEADERS).row
    assert (row.tolist(), row.dtype.name) == ([[0, 1, 2], [3, 4, 5]], "float32")
    assert refusal(WAVE, b"\0" * 11).startswith("wrong_length")


def test_keys_and_times_that_are_none_are_refused() -> None:
    good = b"\0" * 12
    for key, reason in ((None, "no_key"), (b"", "empty_key"), (b"\xff", "bad_key")):
        assert refusal(WAVE, good, key=key).startswith(reason)
    assert refusal(WAVE, good, key=b"k" * 2_000).startswith("long_key")
    assert refusal(WAVE, good, headers={}).startswith("missing_field")
    for text in (b"noon", b"", b"1.5", b"9" * 30, b"9" * 40, b"\xff"):
        assert refusal(WAVE, good, headers={"ts": text}).startswith("wrong_type"), text


def read_in(unit: str, text: bytes) -> Raw:
    seconds = reader({"unit": unit}, kind="tensor", size=[1])
    return seconds.read(b"ant", b"\0" * 4, {"ts": text})


def test_times_stand_as_they_were_written() -> None:
    assert read_in("s", b"1732600000.123456").time == 1732600000.123456
    assert read_in("ns", b"1732600000123456789").time == 1732600000123456789
    for text in (b"nan", b"inf", b"1e400"):
        with pytest.raises(Refused, match="wrong_type"):
            read_in("s", text)


def test_the_time_may_stand_in_front_of_what_is_encoded() -> None:
    head = reader(kind="tensor", size=[2], head={"seq": "V4", "ts": "<i8"})
    content = np.array([3, 4], "<f4").tobytes()
    raw = head.read(b"ant", b"????" + (77).to_bytes(8, "little") + content, {})
    assert (raw.time, raw.row.tolist()) == (77, [3, 4])
    assert refusal(head, b"???", headers={}).startswith("truncated")
