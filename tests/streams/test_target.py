"""Nothing is written to a live system's topics unless both its name and a flag say so."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import streams
from schemas.system import load_spec
from schemas.topics import topics_of
from streams.target import TargetError, shift_to_now, target_of
from tests.streams.specs import small_spec

SPEC = small_spec()


def test_the_systems_own_topics_need_a_flag() -> None:
    with pytest.raises(TargetError, match="--live-topics"):
        target_of(SPEC, SPEC.system, live_topics=False)
    assert target_of(SPEC, SPEC.system, live_topics=True) == SPEC


def test_another_name_shares_no_raw_topic_and_has_the_same_interface() -> None:
    spec = load_spec(Path(streams.__file__).parent / "examples" / "sight.yaml")
    target = target_of(spec, "again", False)
    assert not {t.name for t in topics_of(spec)} & {t.name for t in topics_of(target)}
    assert target.interface_hash == spec.interface_hash


@pytest.mark.parametrize("live_topics", [False, True])
def test_another_name_shares_no_topic_even_where_sensors_name_their_own(live_topics: bool) -> None:
    sensors = {
        name: sensor.model_copy(update={"topic": "plant.floor.readings"})
        for name, sensor in SPEC.sensors.items()
    }
    spec = SPEC.model_copy(update={"sensors": sensors})
    target = target_of(spec, "again", live_topics)
    names = {topic.name for topic in topics_of(target)}
    assert all(name.startswith("again.") for name in names)
    assert not names & {topic.name for topic in topics_of(spec)}
    assert target.interface_hash == spec.interface_hash
    assert spec.sensors == sensors, "the recorded spec is left as it was"


def test_a_shift_is_of_whole_ticks_and_leads_to_now() -> None:
    spec = load_spec("nav2d")
    shift = shift_to_now(spec, 12_345_678)
    assert shift % spec.period_us == 0
    assert abs(12_345_678 + shift - time.time_ns() // 1_000) < 60_000_000
