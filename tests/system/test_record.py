"""Recordings of real topics: whole, resumable, replayed without a difference, also from a sink."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from planner.session import Bundle
from schemas.catalog import Catalog
from schemas.frames import decode_frame, encode_frame
from schemas.system import SystemSpec, parse_spec
from schemas.topics import partition_of, topic
from schemas.trajectories import KEY_FRAME_EVERY, decode_trajectory, encode_trajectory
from streams.belief import encode_row
from streams.record import record
from streams.recording import Recording, RecordingError, spec_text
from streams.replay import replay
from streams.replay_compare import Comparison
from streams.sink import run_sink
from streams.topic_io import make_producer
from tests.streams.runs import RUN_SPEC, decide_all, run_bundle, run_frames
from tests.support import unique
from tests.system.loop import make_topics

pytestmark = pytest.mark.broker
Kafka = dict[str, str]
TICKS = range(90)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return run_bundle(tmp_path_factory.mktemp("bundles") / "b")


@pytest.fixture(scope="module")
def spec(bundle: Bundle, kafka: Kafka) -> SystemSpec:
    """A system whose topics hold 90 ticks of two cohorts."""
    name = unique()
    text = spec_text(RUN_SPEC).replace("system: nav2d", f"system: {name}")
    made = parse_spec(text.replace("nav2d.sensors", f"{name}.sensors"))
    make_topics(made, kafka)
    producer = make_producer(kafka["bootstrap.servers"], kafka)
    for cohort in (0, 1):
        for frame, decisions, row in decide_all(bundle, run_frames(cohort, TICKS)):
            header = {**vars(frame.header), "system": name, "spec_hash": made.spec_hash}
            of = type(frame)(**{**vars(frame), "header": type(frame.header)(**header)})
            key = encode_row(row) if frame.tick % KEY_FRAME_EVERY == 0 else None
            partition = partition_of(cohort, 2)
            for kind, value in (
                ("frames", encode_frame(made, of)),
                ("trajectories", encode_trajectory(made, of, decisions, key)),
            ):
                producer.produce(f"{name}.{kind}", value, str(cohort), partition)
    assert producer.flush(20) == 0
    return made


def take(spec: SystemSpec, kafka: Kafka, out: Path, **options: Any) -> dict[str, Any]:
    return record(spec, kafka["bootstrap.servers"], kafka, out, **options)


def test_what_was_recorded_replays_without_a_difference(
    spec: SystemSpec, bundle: Bundle, kafka: Kafka, tmp_path: Path
) -> None:
    shown: list[tuple[int, int]] = []
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    out = tmp_path / "r"
    summary = take(
        spec,
        kafka,
        out,
        catalog_url=url,
        on_progress=lambda done, total: shown.append((done, total)),
    )
    assert (summary["frames"], summary["trajectories"]) == (180, 180)
    assert (summary["from_tick"], summary["to_tick"], summary["complete"]) == (0, 89, True)
    assert summary["bundles"] == [bundle.digest]
    assert shown[-1] == (360, 360)
    result = replay(out, bundles=[bundle.path])
    assert (result["frames"], result["differences"]) == (180, 0)
    catalog = Catalog(url)
    (row,) = catalog.recordings(spec.system)
    assert (row.path, row.frames, row.from_us) == (str(out), 180, 0)
    assert parse_spec(row.spec) == spec
    assert row.ranges[topic(spec, "frames")] == {"0": [0, 90], "1": [0, 90]}
    catalog.close()


def test_a_stretch_brings_the_key_frame_that_it_starts_from(
    spec: SystemSpec, bundle: Bundle, kafka: Kafka, tmp_path: Path
) -> None:
    period = spec.period_us
    summary = take(spec, kafka, tmp_path, from_us=70 * period, to_us=80 * period)
    assert (summary["from_tick"], summary["to_tick"]) == (70, 80)
    assert summary["frames"] == 2 * (80 - 64 + 1)
    result = replay(tmp_path, bundles=[bundle.path], from_us=70 * period)
    assert (result["frames"], result["differences"]) == (2 * 11, 0)


class StopAfter:
    """Set once it was asked so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_recording_that_was_cut_off_goes_on(
    spec: SystemSpec, bundle: Bundle, kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.record._BATCH", 20)  # so that there is a middle to stop in
    begun = take(spec, kafka, tmp_path, stop=StopAfter(4))
    assert not begun["complete"]
    assert 0 < begun["frames"] + begun["trajectories"] < 360
    whole = take(spec, kafka, tmp_path)
    assert (whole["frames"], whole["trajectories"], whole["complete"]) == (180, 180, True)
    places = [place[:3] for place in Recording.open(tmp_path).index("trajectories")]
    assert len(set(places)) == len(places) == 180
    assert replay(tmp_path, bundles=[bundle.path])["differences"] == 0


def test_a_sinks_folder_can_be_recorded_from(
    spec: SystemSpec, bundle: Bundle, kafka: Kafka, tmp_path: Path
) -> None:
    stop = threading.Event()
    stop.set()
    run_sink(spec, kafka["bootstrap.servers"], kafka, stop, tmp_path / "sink")
    summary = record(spec, "", None, tmp_path / "r", source=tmp_path / "sink")
    assert (summary["frames"], summary["trajectories"]) == (180, 180)
    result = replay(tmp_path / "r", bundles=[bundle.path])
    assert (result["frames"], result["differences"]) == (180, 0)
    take(spec, kafka, tmp_path / "k")
    of_sink, of_kafka = (
        [decode_trajectory(spec, value) for _, _, value in found.records("trajectories")]
        for found in (Recording.open(tmp_path / name) for name in ("r", "k"))
    )
    comparison = Comparison(spec)
    for ours, theirs in zip(of_sink, of_kafka, strict=True):
        assert (ours.frame.header, ours.row) == (theirs.frame.header, theirs.row)
        assert comparison.add(ours.frame, theirs.decisions, ours.decisions)
    frames = [list(Recording(tmp_path / name, {}).records("frames")) for name in ("r", "k")]
    for (_, _, one), (_, _, two) in zip(*frames, strict=True):
        a, b = decode_frame(spec, one), decode_frame(spec, two)
        assert (a.header, a.entities) == (b.header, b.entities)
        for name in ("values", "ages", "applied", "status", "flags"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_what_cannot_be_recorded_is_said(spec: SystemSpec, kafka: Kafka, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="--from"):
        take(spec, kafka, tmp_path / "a", from_us=10**15)
    take(spec, kafka, tmp_path / "b")
    other = parse_spec(spec_text(spec).replace("tick: 100 ms", "tick: 200 ms"))
    with pytest.raises(RecordingError, match="another spec"):
        take(other, kafka, tmp_path / "b")
    with pytest.raises(RecordingError, match="no file"):
        record(spec, "", None, tmp_path / "c", source=tmp_path)


# The last one: it takes records away from the topics that all tests share.
def test_what_the_topics_hold_no_more_is_named(
    spec: SystemSpec, bundle: Bundle, kafka: Kafka, tmp_path: Path
) -> None:
    stop = threading.Event()
    stop.set()
    run_sink(spec, kafka["bootstrap.servers"], kafka, stop, tmp_path / "all")
    assert take(spec, kafka, tmp_path / "whole")["missing"] == []
    name = topic(spec, "trajectories")
    admin = AdminClient({**kafka})
    for future in admin.delete_records([TopicPartition(name, 0, 30)]).values():
        future.result(20)
    cut = take(spec, kafka, tmp_path / "cut")
    assert (cut["frames"], cut["trajectories"], cut["complete"]) == (180, 150, True)
    gone, undecided = cut["missing"]
    assert f"{name}, partition 0: its first 30 records have gone" in gone
    assert "30 of ticks 0 to 29" in undecided
    assert f"gone from {name}" in undecided
    run_sink(spec, kafka["bootstrap.servers"], kafka, stop, tmp_path / "late")
    late = record(spec, "", None, tmp_path / "l", source=tmp_path / "late")
    assert "no file holds offsets 0 to 29 of partition 0" in late["missing"][0]
    assert record(spec, "", None, tmp_path / "a", source=tmp_path / "all")["missing"] == []
    assert replay(tmp_path / "cut", bundles=[bundle.path])["differences"] == 0
