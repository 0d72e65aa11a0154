"""Sensors that are perceived: what a spec says of them, and what it is told where that is wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

import streams
from schemas.asyncapi import document
from schemas.formats import RawFormat
from schemas.system import SpecError, SystemSpec, load_spec, parse_spec
from schemas.topics import MAX_RAW_BYTES, topics_of
from streams.recording import spec_text

EXAMPLE = Path(streams.__file__).parent / "examples" / "sight.yaml"
TEXT = EXAMPLE.read_text()


def spec_of(*changes: tuple[str, str]) -> SystemSpec:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return parse_spec(text, str(EXAMPLE))


def test_an_encoder_gives_its_sensor_codec_topic_and_digest() -> None:
    spec = load_spec(EXAMPLE)
    (camera, raw), _ = spec.perceived
    assert raw.file == EXAMPLE.parent / "camera.onnx"
    assert raw.sha256 == hashlib.sha256(raw.file.read_bytes()).hexdigest()
    assert raw.topic == "sight.raw.camera"
    assert camera.codec == RawFormat(fields={"ts": "<i8", "offset": "(2,)<f4"})
    seconds = spec_of(("unit: us", "unit: s")).sensors["camera"].codec
    assert seconds == RawFormat(fields={"ts": "<f8", "offset": "(2,)<f4"})


def test_the_interface_changes_with_what_changes_embeddings(tmp_path: Path) -> None:
    spec = load_spec(EXAMPLE)
    for same in ("batch: 3", "wait: 1 ms", "topic: elsewhere"):
        changed = spec_of(("size: [64, 64]", f"size: [64, 64], {same}"))
        assert changed.interface_hash == spec.interface_hash
        assert changed.spec_hash != spec.spec_hash
    other = tmp_path / "other.onnx"
    other.write_bytes(b"another")
    for old, new in (
        ("[64, 64]", "[32, 64]"),
        ("camera.onnx", str(other)),
        ("size: [128]", "size: [128], fields: {x: <f4, z: <f4, y: <f4}"),
        ("perceive: {kind: jpeg, size: [64, 64], encoder: camera.onnx}", "codec: json"),
    ):
        assert spec_of((old, new)).interface_hash != spec.interface_hash


def test_a_recorded_spec_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    text = spec_text(spec)
    again = parse_spec(text, "elsewhere/spec.yaml")
    assert (again.spec_hash, again.interface_hash) == (spec.spec_hash, spec.interface_hash)
    (tmp_path / "camera.onnx").write_bytes(b"another")
    with pytest.raises(SpecError, match="is another file"):
        parse_spec(text, "spec.yaml")


def test_topics_are_made_for_raw_messages_and_described() -> None:
    spec = load_spec(EXAMPLE)
    found = {t.name: t for t in topics_of(spec)}
    raw, sensor = found["sight.raw.camera"], found["sight.sensors.camera"]
    assert raw.partitions == sensor.partitions
    assert raw.config["max.message.bytes"] == str(MAX_RAW_BYTES)
    content = document(spec)
    channel = content["channels"]["raw-camera"]
    assert channel["address"] == "sight.raw.camera"
    message = content["components"]["messages"]["Raw-camera"]
    assert message["contentType"] == "image/jpeg"
    described = content["components"]["schemas"]["Raw-camera"]["x-perceived"]
    assert described["sha256"] == spec.perceived[0][1].sha256
    assert set(channel["messages"]) == {"Raw-camera", "Watermark"}


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("[64, 64]", "[64]", "perceive: {kind: jpeg", "perceive"),
        (
            "[64, 64]",
            "[0, 64]",
            "perceive: {kind: jpeg",
            "perceive.size.0: Input should be greater than or equal to 1",
        ),
        ("kind: jpeg", "kind: gif", "perceive: {kind: jpeg", "'voxels', 'entities', 'tensor'"),
        (
            "camera.onnx",
            "gone.onnx",
            "perceive: {kind: jpeg",
            "gone.onnx cannot be read: No such file",
        ),
        ("camera.onnx", "camera.onnx, sha256: ab", "perceive: {kind: jpeg", "sha256"),
        ("camera.onnx", "camera.onnx, bath: 3", "perceive: {kind: jpeg", "there is no such field"),
        ("camera.onnx", "camera.onnx, wait: 5", "perceive: {kind: jpeg", "duration with its unit"),
        ("camera.onnx", "camera.onnx, batch: 0", "perceive: {kind: jpeg", "batch"),
        ("camera.onnx", "camera.onnx, head: {ts: V8}", "camera:", "is the time: one number"),
        (
            "camera.onnx",
            "camera.onnx, head: {ts: text}",
            "perceive: {kind: jpeg",
            "is no NumPy type",
        ),
        (
            "[128]",
            "[128], fields: {x: <f4, y: <f4}",
            "perceive: {kind: points",
            "a point needs 'z'",
        ),
        ("    every: 100 ms", "    codec: avro\n    every: 100 ms", "camera:", "leave out `codec`"),
        ("offset: {unit", "offset: {field: ts, unit", "camera:", "different fields"),
        (
            "    every: 100 ms",
            "    topic: sight.raw.lidar\n    every: 100 ms",
            "system:",
            "of its own",
        ),
        (
            "    every: 100 ms",
            "    topic: sight.sensors.lidar\n    every: 100 ms",
            "system:",
            "of its own",
        ),
    ],
)
def test_what_is_wrong_is_told_with_line_and_remedy(
    old: str, new: str, line: str, said: str
) -> None:
    with pytest.raises(SpecError) as found:
        spec_of((old, new))
    lines = TEXT.splitlines()
    number = next(i for i, text in enumerate(lines, 1) if text.strip().startswith(line))
    assert f"sight.yaml:{number}: " in str(found.value), found.value
    assert said in str(found.value), found.value


CROWD = EXAMPLE.with_name("crowd.yaml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("low: [-10.5", "low: [10.5", "perceive.high: [10.5, 10.5, 2.5] is not above low"),
        ("high: [10.5", "high: [.inf", "perceive.high.0: Input should be a finite number"),
        ("size: [32, 32, 4]", "size: [32, 32]", "perceive.size"),
        ("size: [32, 32, 4]", "size: [8192, 8192, 4]", "are more than"),
        ("size: [8]", "size: [8], fields: {x: '(2,)<f4'}", "one number each"),
        ("size: [8]", "size: [8], fields: {x: V4}", "one number each"),
        ("size: [8]", "size: [8], low: 1", "there is no such field"),
    ],
)
def test_grids_and_entities_are_checked(old: str, new: str, said: str) -> None:
    text = CROWD.read_text()
    assert old in text
    with pytest.raises(SpecError) as found:
        parse_spec(text.replace(old, new, 1), str(CROWD))
    assert "crowd.yaml:" in str(found.value)
    assert said in str(found.value), found.value


def test_what_grids_and_entities_are_made_of_is_the_interface() -> None:
    text, spec = CROWD.read_text(), load_spec(CROWD)
    (others, seen), (lidar, grid) = spec.perceived
    assert (others.name, seen.shape, lidar.name, grid.shape) == (
        "others",
        (8, 5),
        "lidar",
        (32, 32, 4),
    )
    for old, new in (
        ("low: [-10.5", "low: [-11.5"),
        ("high: [10.5", "high: [11.5"),
        ("size: [8]", "size: [9]"),
        ("size: [8]", "size: [8], fields: {vx: <f4, x: <f4, y: <f4, vy: <f4}"),
    ):
        changed = parse_spec(text.replace(old, new, 1), str(CROWD))
        assert changed.interface_hash != spec.interface_hash


def test_sizes_are_bounded() -> None:
    document = yaml.safe_load(TEXT)
    document["sensors"]["camera"]["perceive"] |= {"kind": "tensor", "size": [1 << 20, 1 << 20]}
    with pytest.raises(SpecError, match="are more than"):
        parse_spec(yaml.safe_dump(document), str(EXAMPLE))
