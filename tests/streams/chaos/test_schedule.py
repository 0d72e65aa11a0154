"""Schedules: the same for the same seed, in time, and never too much for the loop to get over."""

from collections import Counter
from itertools import pairwise

import pytest

from schemas.messages import WATERMARK_HEADER
from schemas.system import load_spec
from schemas.topics import Kind, topics_of
from streams.chaos.poison import doses
from streams.chaos.schedule import CALM_S, KILLS, NETWORK, START_S, Fault, Schedule, make_schedule

SEEDS = range(300)


def test_equal_seeds_give_equal_schedules_and_others_do_not() -> None:
    assert make_schedule(7) == make_schedule(7)
    assert len({make_schedule(seed).faults for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("seconds", [60.0, 120.0])
def test_faults_are_many_enough_apart_and_leave_the_end_calm(seconds: float) -> None:
    for seed in SEEDS:
        faults = make_schedule(seed, seconds).faults
        assert 3 <= len(faults) <= 6 * seconds / 60
        begins = [fault.at_s for fault in faults]
        assert begins == sorted(begins)
        assert begins[0] >= START_S
        assert max(fault.ends_s for fault in faults) <= seconds - CALM_S
        assert all(b - a >= 0.99 for a, b in pairwise(begins))


def test_every_kind_of_fault_comes_and_recoveries_overlap() -> None:
    schedules = [make_schedule(seed) for seed in SEEDS]
    kinds = Counter(fault.kind for schedule in schedules for fault in schedule.faults)
    assert set(kinds) == {
        "kill", "pause", "rebalance", "zombie", "twice", "broker_restart", "broker_kill",
        "broker_pause", "poison", "store", "clock_jump", "full_disk",
        "broker_slow", "broker_refuses",
    }  # fmt: skip
    assert {schedule.clock for schedule in schedules} == {"wall", "event"}
    overlapping = [s for s in schedules if any(b.at_s < a.ends_s for a, b in pairwise(s.faults))]
    assert overlapping


def test_nobody_is_killed_more_often_than_a_supervisor_bears() -> None:
    for seed in SEEDS:
        schedule = make_schedule(seed)
        deadly = ("kill", "store", "full_disk")
        ends = Counter(fault.target for fault in schedule.faults if fault.kind in deadly)
        assert max(ends.values(), default=0) <= KILLS
        assert all(fault.jump_us <= 0 or schedule.clock == "wall" for fault in schedule.faults)


def test_a_run_too_short_for_its_faults_is_refused_with_the_length_that_would_do() -> None:
    with pytest.raises(ValueError, match="3 faults take at least 23 s"):
        make_schedule(1, 20.0, 3)
    with pytest.raises(ValueError, match="do not fit"):
        make_schedule(1, 25.0, 3, ["zombie"])
    assert len(make_schedule(1, 25.0, 3, ["kill", "pause", "poison"]).faults) == 3


def test_a_fault_names_what_applies_to_it_alone() -> None:
    (fault,) = make_schedule(3, 30.0, 1, ["kill"]).faults
    assert set(fault.as_dict()) == {"kind", "target", "at_s", "seed"}


@pytest.mark.parametrize("kind", ["sensors", "frames", "control", "actions", "outcomes"])
def test_poison_is_seeded_and_goes_to_the_topics_of_its_kind(kind: Kind) -> None:
    spec = load_spec("nav2d")
    names = {t.name for t in topics_of(spec) if t.kind == kind}
    made = list(doses(spec, kind, "robot-1", 5))
    assert made == list(doses(spec, kind, "robot-1", 5))
    assert {dose.topic for dose in made} <= names
    values = {dose.value for seed in range(20) for dose in doses(spec, kind, "robot-1", seed)}
    assert len(values) > 50
    assert None in values


def test_poison_with_the_mark_of_a_watermark_promises_nothing() -> None:
    """Else it would be a promise: of a time that never comes, and everything would be late."""
    spec = load_spec("nav2d")
    marked = [
        dose
        for seed in SEEDS
        for dose in doses(spec, "sensors", "robot-1", seed)
        if dose.headers and dose.key is None
    ]
    assert {header[0] for dose in marked for header in dose.headers} == {WATERMARK_HEADER}
    assert not any(b"watermark" in (dose.value or b"") for dose in marked)


def test_a_twin_is_struck_as_well_and_changes_nothing_where_there_is_none() -> None:
    struck = {f.target for seed in range(20) for f in make_schedule(seed, twin=True).faults}
    assert {"worker", "twin", "align", "sink"} <= struck
    alone = [make_schedule(seed) for seed in range(20)]
    assert not any(s.twin or "twin" in {f.target for f in s.faults} for s in alone)


def test_faults_of_the_network_take_the_place_of_others_and_leave_the_rest_as_it_was() -> None:
    """What a seed did before there were any, it still does: in its other faults, and without."""
    ways = Counter(
        (fault.kind, fault.how)
        for seed in SEEDS
        for fault in make_schedule(seed).faults
        if fault.kind in NETWORK
    )
    assert set(ways) == {
        ("broker_slow", "late"), ("broker_slow", "narrow"), ("broker_refuses", "cut"),
        ("broker_refuses", "held"), ("broker_refuses", "half-open"),
    }  # fmt: skip
    assert min(ways.values()) > 5
    struck = [s for seed in SEEDS if _networks(s := make_schedule(seed))]
    assert 0.3 < len(struck) / len(SEEDS) < 0.7
    assert all(len({f.kind for f in _networks(s)}) == len(_networks(s)) for s in struck)
    assert _told(make_schedule(2)) == [
        "rebalance 12.27 worker", "broker_pause 29.99 broker", "poison 39.56 applied",
    ]  # fmt: skip
    assert _told(make_schedule(12)) == [
        "clock_jump 7.53 device", "broker_slow 11.25 broker", "broker_kill 20.04 broker",
        "twice 32.67 worker",
    ]  # fmt: skip


def test_the_network_alone_can_be_struck() -> None:
    (fault,) = make_schedule(3, 30.0, 1, NETWORK).faults
    assert fault.kind in NETWORK


def _networks(schedule: Schedule) -> list[Fault]:
    return [fault for fault in schedule.faults if fault.kind in NETWORK]


def _told(schedule: Schedule) -> list[str]:
    return [f"{fault.kind} {fault.at_s:g} {fault.target}" for fault in schedule.faults]
