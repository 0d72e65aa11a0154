"""A mapping that does not fit is told with file, line, field and remedy, all problems at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.imports.mapping import (
    MappingError,
    factors,
    format_of,
    load_mapping,
    parse_mapping,
    pattern,
)
from tests.streams.imports.logs import FLAT_MAP, SPEC, TABLE_MAP

GOOD = """entity: ada
sensors:
  motion:
    topic: /motion
    channels:
      speed: {field: a, unit: km/h}
"""


def problem_of(text: str) -> str:
    with pytest.raises(MappingError) as caught:
        parse_mapping(text, SPEC, "rover.map.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (
            "motion:",
            "emotion:",
            "rover.map.yaml:3: sensors.emotion: the spec has no such sensor; it",
        ),
        (
            "speed:",
            "pace:",
            "map.yaml:6: sensors.motion.channels.pace: the spec has no such channel",
        ),
        ("topic: /motion", "tpoic: /motion", ":4: sensors.motion.tpoic: there is no such field"),
        ("km/h", "kg", ":6: sensors.motion.channels.speed.unit: 'kg' does not convert to the spec"),
        ("km/h", "parsnips", ":6: sensors.motion.channels.speed.unit: 'parsnips' does not convert"),
        ("unit: km/h", "unit: km/h, scale: 2", ":6: sensors.motion.channels.speed: 'unit' and"),
        ("field: a", "fields: [a, b]", ":6: sensors.motion.channels.speed: 2 fields for 1 comp"),
        ("field: a, ", "", ":6: sensors.motion.channels.speed: name one 'field', or 'fields'"),
        ("entity: ada\n", "", ":2: sensors.motion: whose readings are these? Add 'entity: NAME'"),
        ("entity: ada", "entity: [ada]", ":1: entity: write a name, or {field: NAME}"),
        ("sensors:", "sensoren:", "mapping.yaml: "),
    ],
)
def test_each_mistake_has_its_line_and_remedy(old: str, new: str, wanted: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    if wanted == "mapping.yaml: ":
        assert ":1: sensors: this field is required" in problem_of(text)
        return
    assert wanted in problem_of(text)


def test_all_mistakes_are_told_at_once() -> None:
    text = GOOD.replace("km/h", "kg") + "      spin: {field: b}\n"
    lines = problem_of(text).splitlines()
    assert [line.split(":")[1] for line in lines] == ["6", "7"]


def test_a_mapping_that_is_not_there_or_no_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="--map FILE"):
        load_mapping(tmp_path / "none.yaml", SPEC)
    assert "m.yaml:1:" in problem_of("sensors: [").replace("rover.map", "m")
    assert "a mapping is YAML with 'sensors:'" in problem_of("7")


def test_an_action_that_the_spec_lacks_is_told() -> None:
    text = FLAT_MAP.replace("drive: {field", "fly: {field")
    assert "actions.values.fly: the spec has no such action; it has drive" in problem_of(text)


def test_names_in_topics_and_files() -> None:
    found = pattern("/{entity}/motion").fullmatch("/ada/motion")
    assert found is not None
    assert found["entity"] == "ada"
    assert pattern("/{entity}/motion").fullmatch("/a/b/motion") is None
    assert pattern("log.*").fullmatch("log.csv")
    assert pattern("log.csv").fullmatch("logxcsv") is None


def test_units_and_formats() -> None:
    located = parse_mapping(GOOD, SPEC)
    speed = located.mapping.sensors["motion"].channels["speed"]
    assert factors(speed, "m/s") == pytest.approx((1 / 3.6, 0.0))
    assert format_of(Path("a.BAG")) == "rosbag"
    with pytest.raises(MappingError, match="write 'format:' into the mapping"):
        format_of(Path("a.log"))
    told = parse_mapping(GOOD.replace("entity", "format: mcap\nentity"), SPEC).mapping
    assert format_of(Path("a.log"), told) == "mcap"
    assert parse_mapping(TABLE_MAP, SPEC).mapping.actions is not None
