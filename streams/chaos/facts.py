"""A log read once: frames in the order in which they count, decisions, actions, reports, letters.

All by the checker's own rules, from the schemas alone.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from schemas.frames import Frame, FrameError, decode_frame
from schemas.messages import WATERMARK_HEADER, Action, Applied, DeadLetter, decode
from schemas.trajectories import Trajectory, decode_trajectory
from streams.chaos.log import Entry, Log

Place = tuple[str, int, int]
Key = tuple[str, int]
"""Entity and tick."""
M = TypeVar("M", Action, Applied, DeadLetter)
SHED: Final = "shed"  # the reason of a letter that stands for a range of records
SHOWN: Final = 5  # examples of each kind of violation


class Violation(NamedTuple):
    """One invariant that does not hold: its name, where, and what was seen instead."""

    invariant: str
    detail: str


class Seen(NamedTuple):
    """A message and the record that it came in."""

    entry: Entry
    said: Any


@dataclass
class Facts:
    """What a log says.

    frames        (cohort, tick) → the frame that counts; repeated ticks and lower epochs do not
    unreadable    records of `S.frames` that are no frames
    trajectories  every attempt at every frame, in log order
    actions       entity and tick → all its actions, first sent first
    applied       entity → its reports, first sent first
    letters       source → its dead letters
    shed          topic and partition → offsets that were passed over, as their letters say
    shed_letters  the letters that say so
    places        (cohort, tick) → the record of the frame that counts
    watermark_us  the newest promise of any plant, where there is one
    """

    log: Log
    frames: dict[tuple[int, int], Frame] = field(default_factory=dict)
    unreadable: list[Entry] = field(default_factory=list)
    trajectories: list[tuple[Entry, Trajectory]] = field(default_factory=list)
    actions: dict[Key, list[Action]] = field(default_factory=dict)
    applied: dict[str, list[tuple[Entry, Applied]]] = field(default_factory=dict)
    letters: dict[Place, list[DeadLetter]] = field(default_factory=dict)
    shed: dict[tuple[str, int], list[range]] = field(default_factory=dict)
    shed_letters: list[DeadLetter] = field(default_factory=list)
    places: dict[tuple[int, int], Place] = field(default_factory=dict)
    watermark_us: int | None = None

    def was_shed(self, place: Place) -> bool:
        """Whether a record was passed over, and this was told."""
        return any(place[2] in offsets for offsets in self.shed.get(place[:2], ()))

    def frame_of(self, cohort: int, tick: int) -> Frame | None:
        """The frame of a cohort at a tick; None where there is none."""
        return self.frames.get((cohort, tick))


class Findings:
    """Violations by invariant: all are counted, the first few are told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[Violation] = []

    def add(self, invariant: str, detail: str) -> None:
        """One more."""
        self.counts[invariant] += 1
        if self.counts[invariant] <= SHOWN:
            self.told.append(Violation(invariant, detail))


def facts_of(log: Log) -> Facts:
    """Reads all that is in a log; what is not what its topic holds is left out, or listed."""
    facts = Facts(log)
    _read_frames(facts)
    for entry in log.of("trajectories"):
        try:
            decoded = decode_trajectory(log.spec, entry.value or b"")
        except (FrameError, ValueError, KeyError, TypeError):
            continue  # nobody but the sink reads them, and it counts what is none
        facts.trajectories.append((entry, decoded))
    for seen in _messages(log.of("actions"), Action):
        facts.actions.setdefault((seen.said.entity, seen.said.tick), []).append(seen.said)
    for seen in _messages(log.of("applied"), Applied):
        facts.applied.setdefault(seen.said.entity, []).append((seen.entry, seen.said))
    for seen in _messages(log.of("deadletter"), DeadLetter):
        said = seen.said
        if said.reason == SHED:
            facts.shed_letters.append(said)
        else:
            facts.letters.setdefault((said.topic, said.partition, said.offset), []).append(said)
    marks = [mark for entry in log.of("sensors") if (mark := watermark_of(entry)) is not None]
    facts.watermark_us = max(marks, default=None)
    return facts


def _read_frames(facts: Facts) -> None:
    last: dict[int, Frame] = {}
    for entry in facts.log.of("frames"):
        try:
            frame = decode_frame(facts.log.spec, entry.value or b"")
        except (FrameError, ValueError, KeyError, TypeError):
            facts.unreadable.append(entry)
            continue
        before = last.get(frame.cohort)
        if before is None or (
            frame.tick > before.tick and frame.header.epoch >= before.header.epoch
        ):
            last[frame.cohort] = facts.frames[frame.cohort, frame.tick] = frame
            facts.places[frame.cohort, frame.tick] = entry.place


def _messages(entries: list[Entry], kind: type[M]) -> list[Seen]:
    found = []
    for entry in entries:
        try:
            found.append(Seen(entry, decode(kind, entry.value or b"")))
        except msgspec.DecodeError:
            continue  # a watermark, or garbage
    return found


def watermark_of(entry: Entry) -> int | None:
    """The time that a plant promises in a record without a key; None where it promises none."""
    if entry.key is not None or WATERMARK_HEADER not in entry.headers:
        return None
    try:
        said = json.loads(entry.value or b"")
        return int(said["watermark"])
    except (ValueError, KeyError, TypeError):
        return None
