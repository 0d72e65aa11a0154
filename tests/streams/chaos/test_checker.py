"""The checker finds nothing in a sound run, and each broken build and forged log by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from schemas.frames import decode_frame, encode_frame
from schemas.messages import Action, Applied, DeadLetter, encode
from schemas.topics import Kind, topic
from schemas.trajectories import decode_trajectory, encode_trajectory
from streams.chaos.log import Entry, Log
from tests.streams.chaos.world import ROBOTS, TICKS, Build, Lab, Run


def test_a_sound_run_keeps_every_promise(lab: Lab) -> None:
    verdict = lab.verdict(lab.sound)
    assert (verdict.violations, verdict.examples) == (0, ())
    figures = verdict.figures
    assert verdict.outcome == "held"
    goals = ROBOTS + (TICKS - 1) * ROBOTS // 2  # with the first tick, then every second one
    assert figures["readings"] == TICKS * ROBOTS * 2 + goals
    assert figures["readings_refused"] == 0
    assert figures["applied"] == figures["counted"] == TICKS * ROBOTS
    assert figures["attempts"] > figures["frames"] == TICKS * lab.spec.cohorts
    assert set(verdict.gaps_ms.values()) == {100}
    assert verdict.reasons == {"malformed": TICKS}


# forged logs


def encoded(said: Any) -> bytes:
    return msgspec.json.encode(said)


def edited(log: Log, kind: Kind, change: Callable[[list[Entry]], Sequence[Entry]]) -> Log:
    """A copy of a log with other records on the topics of a kind."""
    topics = dict(log.topics)
    for name in {entry.topic for entry in log.of(kind)}:
        topics[name] = list(change(list(topics[name])))
    return replace(log, topics=topics)


def at_tick(kind: type[Action] | type[Applied], entry: Entry, tick: int) -> Any:
    """The message of an entry where it is of a tick, else None."""
    said = msgspec.json.decode(entry.value or b"", type=kind)
    return said if said.tick == tick else None


def without(tick: int, kind: type[Action] | type[Applied]) -> Callable[[list[Entry]], list[Entry]]:
    return lambda entries: [e for e in entries if at_tick(kind, e, tick) is None]


def rewritten(tick: int, **fields: Any) -> Callable[[list[Entry]], list[Entry]]:
    """Reports of a tick say something else."""

    def change(entries: list[Entry]) -> list[Entry]:
        made = []
        for entry in entries:
            said = at_tick(Applied, entry, tick)
            if said is not None:
                value = encode(msgspec.structs.replace(said, **fields))
                entry = replace(entry, value=value)
            made.append(entry)
        return made

    return change


def doubled(tick: int) -> Callable[[list[Entry]], list[Entry]]:
    def change(entries: list[Entry]) -> list[Entry]:
        again = [e for e in entries if at_tick(Applied, e, tick) is not None]
        return [*entries, *again]

    return change


def reversed_all(entries: list[Entry]) -> list[Entry]:
    return entries[::-1]


def test_forged_reports_are_caught(lab: Lab) -> None:
    forged = {
        "once": doubled(20),
        "order": reversed_all,
        "first": rewritten(20, values={"acceleration[0]": 0.123, "acceleration[1]": 0.0}),
        "stale": rewritten(20, time=2**60),
    }
    for name, change in forged.items():
        assert name in lab.verdict(edited(lab.sound, "applied", change)).counts
    assert "first" in lab.verdict(edited(lab.sound, "applied", rewritten(20, id="0" * 16))).counts
    assert "first" in lab.verdict(edited(lab.sound, "actions", without(20, Action))).counts


def test_what_is_missing_from_the_topics_is_found(lab: Lab) -> None:
    odd = edited(lab.sound, "trajectories", lambda entries: entries[:-2])
    assert set(lab.verdict(odd).counts) == {"trajectory", "stored"}
    short = edited(lab.sound, "frames", lambda entries: entries[:20] + entries[22:])
    assert {"frames", "input", "belief"} <= set(lab.verdict(short).counts)
    silent = edited(lab.sound, "deadletter", lambda entries: entries[1:])
    assert lab.verdict(silent).counts == {"input": 1}


def test_readings_that_no_frame_shows_are_found(lab: Lab) -> None:
    name = lab.spec.sensors["mission"].topic

    def change(entries: list[Entry]) -> list[Entry]:
        at = next(i for i, entry in enumerate(entries) if entry.key)
        said = msgspec.json.decode(entries[at].value or b"")
        said["goal"][0] += 0.5
        return [*entries[:at], replace(entries[at], value=encoded(said)), *entries[at + 1 :]]

    forged = replace(lab.sound, topics={**lab.sound.topics, name: change(lab.sound.topics[name])})
    verdict = lab.verdict(forged)
    assert verdict.counts == {"input": 1}
    assert "which no reading says" in verdict.examples[0].detail


def test_garbage_on_the_frames_topic_needs_a_dead_letter(lab: Lab) -> None:
    name = topic(lab.spec, "frames")
    bad = Entry(name, 0, 10_000, b"0", b"no frame at all")
    verdict = lab.verdict(edited(lab.sound, "frames", lambda entries: [*entries, bad]))
    assert verdict.counts == {"input": 1}


def test_what_late_aligners_repeat_does_not_count(lab: Lab) -> None:
    """A frame of a tick that was there, and one of an older epoch, change nothing."""

    def change(entries: list[Entry]) -> list[Entry]:
        frame = decode_frame(lab.spec, entries[0].value or b"")
        old = replace(frame, header=replace(frame.header, tick=TICKS + 5, epoch=-1))
        again = replace(entries[0], value=encode_frame(lab.spec, old))
        return [*entries, entries[0], again]

    assert lab.verdict(edited(lab.sound, "frames", change)).violations == 0


def test_a_trajectory_that_says_another_action_than_was_sent_is_found(lab: Lab) -> None:
    def change(entries: list[Entry]) -> list[Entry]:
        found = decode_trajectory(lab.spec, entries[5].value or b"")
        other = replace(found.decisions, action=found.decisions.action * 0.5 + 0.01)
        value = encode_trajectory(lab.spec, found.frame, other)
        return [*entries[:5], replace(entries[5], value=value), *entries[6:]]

    assert "trajectory" in lab.verdict(edited(lab.sound, "trajectories", change)).counts


def test_rows_of_parquet_are_held_to_the_topics(lab: Lab) -> None:
    rows = lab.sound.rows
    assert set(lab.verdict(replace(lab.sound, rows=rows[1:])).counts) >= {"stored"}
    assert set(lab.verdict(replace(lab.sound, rows=[*rows, rows[0]])).counts) >= {"stored"}
    foreign = [{**rows[0], "offset": 99_999, "counted": False}]
    assert lab.verdict(replace(lab.sound, rows=[*rows, *foreign])).counts == {"stored": 1}


def test_what_a_twin_held_back_is_stored_and_does_not_count(lab: Lab) -> None:
    """It says the same as what was applied; where its row counts as well, that is found."""
    last = max(e.offset for e in lab.sound.of("trajectories") if e.partition == 0)

    def beside(entries: list[Entry]) -> list[Entry]:
        found = decode_trajectory(lab.spec, entries[0].value or b"")
        spent = {**found.decisions.spent, "worker": "twin-0", "held": True}
        value = encode_trajectory(lab.spec, found.frame, replace(found.decisions, spent=spent))
        return [*entries, replace(entries[0], offset=last + 1, value=value)]

    first = lab.sound.of("trajectories")[0]
    rows = [
        {**row, "offset": last + 1, "counted": False}
        for row in lab.sound.rows
        if (row["partition"], row["offset"]) == (first.partition, first.offset)
    ]
    held = edited(replace(lab.sound, rows=[*lab.sound.rows, *rows]), "trajectories", beside)
    assert (first.partition, lab.verdict(held).counts) == (0, {})
    wrong = [*lab.sound.rows, *({**row, "counted": True} for row in rows)]
    assert lab.verdict(replace(held, rows=wrong)).counts == {"counted": len(rows)}


def test_late_readings_without_a_letter_are_those_that_the_frames_count(lab: Lab) -> None:
    """An aligner that dies between a frame and its letters has counted what it refused."""
    name = lab.spec.sensors["odometry"].topic
    first = next(entry for entry in lab.sound.topics[name] if entry.key)
    said = msgspec.json.decode(first.value or b"")
    old = encoded({**said, "ts": said["ts"] - 10**9})
    late = replace(first, offset=50_000, value=old)

    def counted(entries: list[Entry]) -> list[Entry]:
        frame = decode_frame(lab.spec, entries[-1].value or b"")
        header = replace(frame.header, counters={"late": 1}, seen_us=2**60)
        value = encode_frame(lab.spec, replace(frame, header=header))
        return [*entries[:-1], replace(entries[-1], value=value)]

    topics = {**lab.sound.topics, name: [*lab.sound.topics[name], late]}
    lost = replace(lab.sound, topics=topics)
    assert lab.verdict(lost).counts == {"input": 1}
    assert lab.verdict(edited(lost, "frames", counted)).violations == 0


def test_a_frame_that_was_passed_over_and_is_decided_by_the_next_worker(lab: Lab) -> None:
    """The one before died before it could say that it had read it; both beliefs are right."""
    again = lab.of_build(Build(passes=(23,)))  # the last one: nothing was decided without it
    assert again.counts == {}
    log = Run(lab.spec, lab.bundle, Build()).go()
    name, frame = topic(lab.spec, "frames"), lab.sound.of("frames")[20]
    letter = DeadLetter(name, frame.partition, frame.offset, "shed", "", end=frame.offset + 1)
    entry = Entry(topic(lab.spec, "deadletter"), 0, 9_999, None, encode(letter))
    told = edited(replace(log, clock="wall"), "deadletter", lambda found: [*found, entry])
    assert lab.verdict(told).counts == {}
