"""What a replay or an import sends arrives on the topics that were named, and on no others."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from infra.kafka import KafkaSetupError
from planner.session import Bundle
from schemas.frames import decode_frame
from schemas.messages import Action, decode
from schemas.topics import topic, topics_of
from schemas.trajectories import decode_trajectory
from streams.align import Aligner
from streams.align_feed import Feed
from streams.cli import app
from streams.imports.frames import Alignment
from streams.imports.gather import gather
from streams.imports.mapping import parse_mapping
from streams.imports.publish import publish
from streams.replay import replay
from streams.replay_publish import ReplayPublisher
from streams.target import target_of
from streams.topic_io import bounds, make_consumer, read_to_end
from tests.streams.imports import logs
from tests.streams.runs import RUN_SPEC, decide_all, run_bundle, run_frames, write_recording
from tests.support import unique

pytestmark = pytest.mark.broker
Kafka = dict[str, str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return run_bundle(tmp_path_factory.mktemp("bundles") / "b")


@pytest.fixture(scope="module")
def recording(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    logged = [i for cohort in (0, 1) for i in decide_all(bundle, run_frames(cohort, range(20)))]
    return write_recording(tmp_path_factory.mktemp("recording"), logged)


def values(kafka: Kafka, name: str) -> list[bytes]:
    found = read_to_end(kafka["bootstrap.servers"], kafka, name)
    return [message.value() or b"" for message in found]


def test_a_replay_arrives_under_another_name(recording: Path, bundle: Bundle, kafka: Kafka) -> None:
    target = target_of(RUN_SPEC, unique("again"), live_topics=False)
    sink = ReplayPublisher(target, kafka["bootstrap.servers"], kafka, "all", now=False)
    result = replay(recording, bundles=[bundle.path], sink=sink)
    sink.close()
    assert (result["differences"], result["sent"]) == (0, 40 + 40 + 120)
    frames = [decode_frame(target, value) for value in values(kafka, topic(target, "frames"))]
    assert sorted((f.tick, f.cohort) for f in frames) == [(t, c) for t in range(20) for c in (0, 1)]
    assert {(f.header.system, f.header.spec_hash) for f in frames} == {
        (target.system, target.spec_hash)
    }
    known = {(f.tick, f.cohort): f for c in (0, 1) for f in run_frames(c, range(20))}
    for frame in frames:
        np.testing.assert_array_equal(frame.values, known[frame.tick, frame.cohort].values)
        assert not frame.header.offsets, "no aligner may go to where the recorded topics were"
    made = [decode_trajectory(target, v) for v in values(kafka, topic(target, "trajectories"))]
    wanted = {(t.frame.tick, t.frame.entities): t.decisions.action for t in made}
    actions = [decode(Action, value) for value in values(kafka, topic(target, "actions"))]
    assert len(actions) == 120
    for action in actions:
        (key,) = [k for k in wanted if k[0] == action.tick and action.entity in k[1]]
        row = wanted[key][key[1].index(action.entity)]
        assert list(action.values.values()) == row.tolist()


def test_frames_of_now_are_what_a_worker_would_take(
    recording: Path, bundle: Bundle, kafka: Kafka
) -> None:
    target = target_of(RUN_SPEC, unique("again"), live_topics=False)
    sink = ReplayPublisher(target, kafka["bootstrap.servers"], kafka, "frames", now=True)
    begun = time.time_ns() // 1_000
    replay(recording, bundles=[bundle.path], sink=sink)
    sink.close()
    frames = [decode_frame(target, value) for value in values(kafka, topic(target, "frames"))]
    first = min(frame.header.time_us for frame in frames)
    assert abs(first - begun) < 60_000_000
    assert first == RUN_SPEC.epoch_us + min(f.tick for f in frames) * RUN_SPEC.period_us
    assert sorted({f.tick for f in frames})[-1] - min(f.tick for f in frames) == 19
    assert values(kafka, topic(target, "actions")) == []


def ends(kafka: Kafka, name: str) -> dict[int, tuple[int, int]]:
    """Where a topic ends; nowhere if it is not there."""
    consumer = make_consumer(kafka["bootstrap.servers"], kafka)
    try:
        return bounds(consumer, name)
    except KafkaSetupError:
        return {}
    finally:
        consumer.close()


def test_the_command_needs_a_flag_for_the_systems_own_topics(recording: Path, kafka: Kafka) -> None:
    before = ends(kafka, topic(RUN_SPEC, "frames"))
    arguments = ["replay", str(recording), "--to-topics", RUN_SPEC.system]
    place = ["--bootstrap-servers", kafka["bootstrap.servers"]]
    result = CliRunner().invoke(app, [*arguments, *place])
    assert result.exit_code == 2
    assert "--live-topics" in result.output
    assert ends(kafka, topic(RUN_SPEC, "frames")) == before
    alone = CliRunner().invoke(app, ["replay", str(recording), "--live-topics"])
    assert alone.exit_code == 2
    assert "--to-topics NAME" in alone.output


def test_readings_of_a_log_are_aligned_as_if_devices_had_sent_them(
    kafka: Kafka, tmp_path: Path
) -> None:
    log = logs.mcap_json(tmp_path)
    gathered = gather(parse_mapping(log.mapping, logs.SPEC), logs.SPEC, log.files)
    target = target_of(logs.SPEC, unique("rover"), live_topics=False)
    sent = publish(target, gathered, kafka["bootstrap.servers"], kafka)
    assert sent["sent"] == gathered.readings
    assert (sent["complete"], sent["shift_us"]) == (True, 0)
    names = [t.name for t in topics_of(target) if t.kind == "sensors"]
    partitions = {t.name: t.partitions for t in topics_of(target)}
    aligner = Aligner(target, "event", partitions=partitions)
    messages = [
        message
        for name in names
        for message in read_to_end(kafka["bootstrap.servers"], kafka, name)
    ]
    high: dict[tuple[str, int], int] = {}
    for message in messages:
        place = (message.topic() or "", message.partition() or 0)
        high[place] = max(high.get(place, 0), (message.offset() or 0) + 1)
    feed = Feed(target, aligner, lambda place: high.get(place, 0))
    feed.begin(high)
    feed.take(messages)
    assert not feed.letters
    live = {f.tick: f for f in aligner.close()}
    # Actions of a log are not sent, and how long a neighbour is waited for depends on arrival.
    for frame in Alignment(logs.SPEC, gathered._replace(actions=None)).frames():
        if frame.tick in live:
            made = live[frame.tick]
            assert made.entities == frame.entities
            np.testing.assert_array_equal(made.values[:, :2], frame.values[:, :2])
    assert len(live) > 50
    assert msgspec.json.decode(messages[0].value() or b"").keys() <= {
        "ts", "speed", "turning", "position", "watermark"
    }  # fmt: skip
