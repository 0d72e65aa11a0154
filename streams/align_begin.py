"""Where an aligner begins to read: after the last frames, or, without any, where the clock says."""

import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from confluent_kafka import Consumer, TopicPartition

from infra.kafka import KafkaSetupError
from infra.log import Log
from schemas.frames import Frame, FrameError, Offsets, decode_frame
from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, topic
from streams.align_feed import Place
from streams.topic_io import TIMEOUT_S, read_to_end

_OLD_US: Final = 10_000_000  # a first start under the wall clock reads at least so much of the past
_log = Log("align")


def offsets_to_begin(
    spec: SystemSpec,
    clock: Literal["event", "wall"],
    consumer: Consumer,
    bounds: Mapping[Place, tuple[int, int]],
    seek: Offsets,
) -> dict[Place, int]:
    """The offset to start from, of each partition in `bounds`; `seek` says so where frames are.

    Raises:
        KafkaSetupError: a topic ends before what the frames were made of.
    """
    begin = {place: low for place, (low, _) in bounds.items()}
    control = topic(spec, "control")  # it begins with what is in force
    if seek:
        for (name, number), ends in bounds.items():
            if name != control and number in seek.get(name, {}):
                begin[name, number] = _checked(spec, (name, number), ends, seek[name][number])
    elif clock == "wall":
        begin |= _recent(
            spec, consumer, {p: high for p, (_, high) in bounds.items() if p[0] != control}
        )
    return begin


def _checked(spec: SystemSpec, place: Place, ends: tuple[int, int], offset: int) -> int:
    low, high = ends
    if offset > high:
        raise KafkaSetupError(
            f"{place[0]}, partition {place[1]}, ends at offset {high}, but the last frames "
            f"were made of records up to {offset}: it is another topic than then. Delete "
            f"{topic(spec, 'frames')} as well, or give the system another name."
        )
    return max(offset, low)


def _recent(spec: SystemSpec, consumer: Consumer, highs: Mapping[Place, int]) -> dict[Place, int]:
    """Offsets of what can still be in a frame under the wall clock."""
    old = max(_OLD_US, spec.lateness_us, *(s.max_age_us for s in spec.sensors.values()))
    since_ms = time.time_ns() // 1_000_000 - old // 1_000
    asked = [TopicPartition(*place, since_ms) for place in highs]
    found = consumer.offsets_for_times(asked, timeout=TIMEOUT_S)
    places = {(part.topic, part.partition): part.offset for part in found}
    return {p: highs[p] if first < 0 else first for p, first in places.items()}


def last_frames(spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None) -> list[Frame]:
    """The newest frames on `S.frames`: the last of every cohort among them.

    What is no frame is passed over, and as many are looked for before it.

    Raises:
        KafkaSetupError: there are records, but none of them is a frame of this spec.
    """
    # Cohorts of a partition move together but for what lateness lets one fall behind.
    shared = -(-spec.cohorts // cohort_partitions(spec))
    wanted = newest = shared * (2 + spec.lateness_us // spec.period_us)
    name, read = topic(spec, "frames"), -1
    while True:
        frames: dict[int, list[Frame]] = {}
        errors: dict[int, FrameError] = {}
        before, read = read, 0
        for message in read_to_end(bootstrap, extra, name, newest=newest):
            read += 1
            place = message.partition() or 0
            try:
                frames.setdefault(place, []).append(decode_frame(spec, message.value() or b""))
            except FrameError as error:
                errors[place] = error
        if all(len(frames.get(place, ())) >= wanted for place in errors) or read == before:
            break
        newest *= 8
    found = [frame for some in frames.values() for frame in some]
    for place, problem in errors.items():
        if not found:
            raise KafkaSetupError(
                f"{name} does not say where to go on: {problem}. Give the system another name, or "
                "delete its topics."
            )
        _log.warning("no frame; passed over", topic=name, partition=place, detail=str(problem))
    return found


def as_read_here(frame: Frame, places: Container[Place]) -> Frame:
    """A frame as if its aligner had read `places` alone: there may have been fewer, or more."""
    header = frame.header
    offsets, positions = (
        {
            name: {number: at for number, at in parts.items() if (name, number) in places}
            for name, parts in found.items()
        }
        for found in (header.offsets, header.positions)
    )
    return replace(frame, header=replace(header, offsets=offsets, positions=positions))


def positions_of(frames: Sequence[Frame]) -> Offsets:
    """How far everything had been read when the newest of `frames` closed."""
    if not frames:
        return {}
    return max(frames, key=lambda frame: frame.header.seen_us).header.positions
