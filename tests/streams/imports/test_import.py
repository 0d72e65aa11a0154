"""Whatever format a log has, its readings give the frames that the aligner makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from schemas.codes import Status
from schemas.frames import Frame, decode_frame
from schemas.system import SystemSpec, spec_path
from streams.imports.frames import Alignment
from streams.imports.gather import READERS, contents, gather
from streams.imports.log import LogError, microseconds, scaled_times
from streams.imports.mapping import parse_mapping
from streams.imports.run import make_recording
from streams.imports.units import LibraryError, conversion
from streams.recording import Recording, RecordingError
from streams.replay import ReplayError, replay
from tests.streams.imports import logs
from tests.streams.imports.logs import BEGIN_NS, DRIVE, MOTION, PLACE, ROBOTS, SPEC, Log

FORMATS: dict[str, Callable[[Path], Log]] = {
    "csv": logs.csv,
    "csv with dates": partial(logs.csv, dates=True),
    "parquet": logs.parquet,
    "parquet with dates": partial(logs.parquet, dates=True),
    "rosbag": logs.rosbag,
    "rosbag2": logs.rosbag2,
    "mcap ros1": partial(logs.mcap_ros, version=1),
    "mcap ros2": partial(logs.mcap_ros, version=2),
    "mcap json": logs.mcap_json,
    "mcap protobuf": logs.mcap_protobuf,
    "ulog": logs.ulog,
}


def frames_of(log: Log, spec: SystemSpec = SPEC) -> list[Frame]:
    located = parse_mapping(log.mapping, spec)
    return list(Alignment(spec, gather(located, spec, log.files)).frames())


def column(frames: list[Frame], robot: str, number: int) -> dict[int, float]:
    found = {}
    for frame in frames:
        if robot in frame.entities:
            value = float(frame.values[frame.entities.index(robot), number])
            if not np.isnan(value):
                found[frame.tick] = value
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_readings_give_the_frames_of_a_plain_offline_reference(
    name: str, tmp_path: Path
) -> None:
    frames = frames_of(FORMATS[name](tmp_path))
    assert [frame.tick for frame in frames] == list(range(frames[0].tick, frames[-1].tick + 1))
    last = max(row.time_ns for row in MOTION + PLACE) // 1_000
    assert frames[-1].tick == -(-last // SPEC.period_us)
    for robot in ROBOTS[: 1 if name == "ulog" else 2]:
        wanted = logs.expected(robot)
        for number, key in enumerate(("speed", "turning", "x", "y")):
            made = column(frames, robot, number)
            assert set(wanted[key]) <= set(made)
            assert len(wanted[key]) >= 55
            for tick, value in wanted[key].items():
                assert made[tick] == pytest.approx(value, abs=1e-9), (key, tick)


def test_actions_of_a_log_are_in_force_until_the_next_one(tmp_path: Path) -> None:
    frames = frames_of(logs.parquet(tmp_path))
    checked = 0
    for frame in frames:
        before = (frame.tick - 1) * SPEC.period_us
        for place, robot in enumerate(frame.entities):
            given = sorted((r.time_ns, r.numbers[0]) for r in DRIVE if r.robot == robot)
            known = [value for time, value in given if time // 1_000 <= before]
            if known:
                assert frame.applied[place, 0] == known[-1]
                assert frame.status[place] == Status.APPLIED
                checked += 1
            else:
                assert np.isnan(frame.applied[place, 0])
    assert checked > 100


def test_how_many_ticks_are_read_at_once_changes_nothing_where_none_looks_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = spec_text_without_linear()
    log = logs.csv(tmp_path)
    whole = frames_of(log, text)
    monkeypatch.setattr("streams.imports.frames._TICKS", 1)
    single = frames_of(log, text)
    assert len(whole) == len(single) > 50
    for a, b in zip(whole, single, strict=True):
        assert (a.tick, a.entities) == (b.tick, b.entities)
        for name in ("values", "ages", "applied", "status", "flags"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def spec_text_without_linear() -> SystemSpec:
    sensor = SPEC.sensors["place"]
    channels = {n: c.model_copy(update={"align": "latest"}) for n, c in sensor.channels.items()}
    sensors = {**SPEC.sensors, "place": sensor.model_copy(update={"channels": channels})}
    return SPEC.model_copy(update={"sensors": sensors})


def test_units_of_the_log_become_those_of_the_spec(tmp_path: Path) -> None:
    log = logs.csv(tmp_path)
    text = log.mapping.replace("speed: {field: a}", "speed: {field: a, unit: km/h}")
    text = text.replace("turning: {field: b}", "turning: {field: b, scale: 0.5, offset: 1}")
    plain, made = frames_of(log), frames_of(log._replace(mapping=text))
    for a, b in zip(plain, made, strict=True):
        np.testing.assert_allclose(b.values[:, 0], a.values[:, 0] / 3.6, rtol=1e-12)
        np.testing.assert_allclose(b.values[:, 1], a.values[:, 1] / 2 + 1, rtol=1e-12)
    assert conversion("degC", "K") == (1.0, 273.15)


def test_a_recording_of_an_import_is_whole_and_decided_on_anew(tmp_path: Path) -> None:
    log, out = logs.rosbag(tmp_path), tmp_path / "out"
    located = parse_mapping(log.mapping, SPEC)
    gathered = gather(located, SPEC, log.files)
    shown: list[tuple[int, int]] = []
    summary = make_recording(
        SPEC, gathered, out, log.files, on_progress=lambda d, n: shown.append((d, n))
    )
    assert summary["readings"] == len(MOTION) + len(PLACE)
    assert (summary["entities"], summary["complete"]) == (2, True)
    assert shown[-1] == (summary["readings"], summary["readings"])
    recording = Recording.open(out)
    assert recording.manifest["origin"] == "import"
    assert recording.manifest["files"].keys() >= {"spec.yaml", "frames-00000.parquet"}
    kept = [decode_frame(SPEC, value) for _, _, value in recording.records("frames")]
    fresh = list(Alignment(SPEC, gathered).frames())
    for a, b in zip(kept, fresh, strict=True):
        assert replace(a.header, counters={}) == replace(b.header, counters={})
        np.testing.assert_array_equal(a.values, b.values)
    result = replay(out, "reinfer")
    assert (result["frames"], result["modes"]) == (len(fresh), {"fallback": result["decisions"]})
    assert result["uncompared"] == len(fresh)
    with pytest.raises(ReplayError, match="reinfer"):
        replay(out)
    with pytest.raises(RecordingError, match="choose a new folder"):
        make_recording(SPEC, gathered, out, log.files)


@pytest.mark.parametrize("name", ["csv", "rosbag", "mcap json", "mcap ros1", "ulog"])
def test_what_a_log_lacks_is_told_with_line_field_and_what_there_is(
    name: str, tmp_path: Path
) -> None:
    log = FORMATS[name](tmp_path)
    wrong = log.mapping
    for field in ("a}, turning", "twist.linear.x}, turning", '"v[0]"}, turning'):
        wrong = wrong.replace(f"field: {field}", "field: nowhere}, turning")
    assert wrong != log.mapping
    with pytest.raises(LogError, match=r"<mapping>:\d+: sensors.motion: .*no field .*nowhere"):
        frames_of(log._replace(mapping=wrong))


@pytest.mark.parametrize("name", ["rosbag", "mcap json", "ulog"])
def test_a_topic_that_is_not_there_is_told_with_those_that_are(name: str, tmp_path: Path) -> None:
    log = FORMATS[name](tmp_path)
    wrong = log.mapping.replace("/place", "/palace").replace("topic: place", "topic: palace")
    with pytest.raises(LogError, match=r"sensors.place.topic: .* no topic .*palace.*motion"):
        frames_of(log._replace(mapping=wrong))


@pytest.mark.parametrize("ending", ["mcap", "bag", "ulg", "parquet"])
def test_a_file_that_is_none_is_told(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"log.{ending}"
    path.write_bytes(b"not what it says" * 9)
    with pytest.raises(LogError, match=r"log\.\w+: not a .* file that can be read"):
        contents(path)


def test_wrong_cells_of_a_table_are_told_with_their_row(tmp_path: Path) -> None:
    log = logs.csv(tmp_path)
    motion = tmp_path / "motion.csv"
    lines = motion.read_text().splitlines()
    lines[3] = lines[3].rsplit(",", 1)[0] + ",fast"
    motion.write_text("\n".join(lines))
    with pytest.raises(LogError, match=r"motion.csv, row 3: b holds 'fast', which is no number"):
        frames_of(log)
    lines[3] = lines[3].rsplit(",", 1)[0] + ","  # empty: missing
    motion.write_text("\n".join(lines))
    assert frames_of(log)


@pytest.mark.parametrize("name", ["csv", "rosbag", "mcap protobuf", "ulog"])
def test_what_is_in_a_log_can_be_listed(name: str, tmp_path: Path) -> None:
    log = FORMATS[name](tmp_path)
    found = {item.topic: item for item in contents(log.files[0])}
    motion = found.get("/ada/motion") or found.get("motion") or found["motion.csv"]
    share = 1 if name == "csv" else 2
    assert motion.readings == len(MOTION) // share
    assert motion.fields


def test_times_of_all_kinds() -> None:
    us = BEGIN_NS // 1_000
    assert microseconds(BEGIN_NS + 499, "ns") == us
    assert microseconds(BEGIN_NS + 1_999_999_500, "ns") == us + 2_000_000
    assert microseconds(1.5, "s") == 1_500_000
    assert microseconds({"sec": 7, "nsec": 1_500}, "s") == 7_000_002
    assert microseconds("2023-11-14T22:13:20Z", "s") == us
    assert microseconds("2023-11-14 22:13:20.25", "s") == us + 250_000
    with pytest.raises(ValueError, match="no time"):
        microseconds([1], "s")


@pytest.mark.parametrize("odd", [np.nan, np.inf, -1e300, 2**62])
def test_a_time_that_is_none_is_told_with_its_row(odd: float) -> None:
    with pytest.raises(LogError, match=r"row 2: .* is no time in s"):
        scaled_times(np.array([1, odd, 3]), "s")


def test_a_library_that_is_not_installed_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = logs.mcap_json(tmp_path).files[0]
    monkeypatch.setitem(__import__("sys").modules, "mcap.reader", None)
    with pytest.raises(LibraryError, match=r"rehearse\[import\]"):
        contents(path)


EXAMPLES = Path(spec_path("nav2d")).parents[2] / "streams/imports/examples"


@pytest.mark.parametrize("name", ["husky", "px4", "comma"])
def test_shipped_examples_fit_their_specs(name: str) -> None:
    from schemas.system import load_spec
    from streams.imports.mapping import load_mapping

    spec = load_spec(EXAMPLES / f"{name}.yaml")
    located = load_mapping(EXAMPLES / f"{name}.map.yaml", spec)
    assert set(located.mapping.sensors) == set(spec.sensors)
    assert set(READERS) == {"mcap", "rosbag", "ulog", "csv", "parquet"}
    assert json.dumps(located.mapping.model_dump())
