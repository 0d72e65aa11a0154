"""No input is lost: each reading is in a frame, or a dead letter, or was counted as late.

Or passed over as there was no time for it, which a letter tells of a whole range.
"""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from schemas.frames import Frame
from schemas.spec_parts import ChannelSpec, SensorSpec
from schemas.system import SystemSpec
from schemas.topics import cohort_of
from streams.chaos.facts import SHED, Facts, Findings, watermark_of
from streams.chaos.log import Entry

GRACE_US: Final = 2_000_000  # under the wall clock, for the last readings to close their tick
AGE_US: Final = 8  # float32 seconds, of ages up to a minute


@dataclass(frozen=True)
class Reading:
    """One reading as a device sent it: the values of each channel that it names."""

    entry: Entry
    entity: str
    sensor: str
    time_us: int
    values: dict[str, tuple[float, ...]]
    refused: bool  # it has a dead letter

    def tick(self, spec: SystemSpec) -> int:
        """The tick that it belongs to."""
        return -((spec.epoch_us - self.time_us) // spec.period_us)


def check_inputs(facts: Facts, findings: Findings) -> dict[str, int]:
    """Looks for every record of the sensor topics; gives how many readings became what."""
    spec = facts.log.spec
    if other := [c.name for c in spec.channels if c.align != "latest"]:
        raise ValueError(f"{spec.system}: the checker knows `latest` alone, not {other}")
    _check_unreadable(facts, findings)
    readings: list[Reading] = []
    for sensor in spec.sensors.values():
        readings += _readings(facts, findings, sensor)
    end_us, lost = _end_us(facts), []
    by_tick: dict[tuple[str, str, int], list[Reading]] = defaultdict(list)
    for reading in readings:
        by_tick[reading.entity, reading.sensor, reading.tick(spec)].append(reading)
    counts = {"readings": len(readings), "readings_refused": sum(r.refused for r in readings)}
    counts["pending"] = 0
    for (entity, name, tick), found in by_tick.items():
        if spec.epoch_us + tick * spec.period_us > end_us:
            counts["pending"] += len(found)
            continue
        frame = facts.frame_of(cohort_of(entity, spec.cohorts), tick)
        lost += [
            (reading, why)
            for reading in found
            if not reading.refused
            and (why := _missing(spec, spec.sensors[name], reading, found, frame))
        ]
    over = [(reading, why) for reading, why in lost if facts.was_shed(reading.entry.place)]
    lost = [(reading, why) for reading, why in lost if not facts.was_shed(reading.entry.place)]
    # Who passes over a record counts it: of those in a range no more can be missing.
    counts["readings_shed"] = min(len(over), _counter(facts, SHED))
    lost += over[counts["readings_shed"] :]
    counts["counted_late"] = _excused(facts, len(lost))
    for reading, why in lost[counts["counted_late"] :]:
        findings.add("input", f"{reading.entry.place} of {reading.entity}: {why}")
    return counts


def _check_unreadable(facts: Facts, findings: Findings) -> None:
    """What came as a frame and is none has a dead letter of the worker."""
    for entry in facts.unreadable:
        if entry.place not in facts.letters and not facts.was_shed(entry.place):
            findings.add("input", f"{entry.place}: no frame, and no dead letter")


def _readings(facts: Facts, findings: Findings, sensor: SensorSpec) -> list[Reading]:
    found = []
    for entry in facts.log.topics.get(sensor.topic, []):
        refused = entry.place in facts.letters
        reading = reading_of(sensor, entry, refused)
        if reading is not None:
            found.append(reading)
        elif not refused and watermark_of(entry) is None and not facts.was_shed(entry.place):
            findings.add("input", f"{entry.place}: no reading, and no dead letter")
    return found


def reading_of(sensor: SensorSpec, entry: Entry, refused: bool = False) -> Reading | None:
    """What a JSON message says; None where it is no reading of the sensor."""
    try:
        entity, said = (entry.key or b"").decode(), json.loads(entry.value or b"")
        time_us = round(_number(said[sensor.time.field]) * sensor.time.microseconds)
        values = {
            channel.name: _values(channel, said[channel.field])
            for channel in sensor.channels.values()
            if said.get(channel.field) is not None
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return Reading(entry, entity, sensor.name, time_us, values, refused) if entity else None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return value


def _values(channel: ChannelSpec, said: Any) -> tuple[float, ...]:
    numbers = [float(_number(v)) for v in (said if channel.shape else [said])]
    if len(numbers) != channel.size:
        raise ValueError(f"{len(numbers)} values, not {channel.size}")
    return tuple(numbers)


def _missing(
    spec: SystemSpec,
    sensor: SensorSpec,
    reading: Reading,
    same: list[Reading],
    frame: Frame | None,
) -> str:
    """Why a reading is not in its frame; empty where it is, or a newer one took its place."""
    if frame is None:
        return "its tick has no frame"
    if reading.entity not in frame.entities:
        return f"it is not in the frame of tick {frame.tick}"
    row = frame.entities.index(reading.entity)
    for name, values in reading.values.items():
        number = [channel.name for channel in spec.channels].index(name)
        if not all(map(math.isfinite, values)):
            continue
        age_us = float(frame.ages[row, number]) * 1e6
        time_us = frame.header.time_us - age_us
        if not time_us >= reading.time_us - AGE_US:  # also NaN: never seen
            return f"{name} is {age_us:g} us old in the frame of tick {frame.tick}"
        columns = [spec.columns.index(column) for column in sensor.channels[name].columns]
        shown = tuple(frame.values[row, columns].tolist())
        if not any(_shows(other, name, time_us, shown) for other in same):
            return f"{name} in the frame of tick {frame.tick} is {shown}, which no reading says"
    return ""


def _shows(reading: Reading, name: str, time_us: float, shown: tuple[float, ...]) -> bool:
    return abs(reading.time_us - time_us) <= AGE_US and reading.values.get(name) == shown


def _end_us(facts: Facts) -> int:
    """Up to when every tick must have closed."""
    if facts.watermark_us is not None:
        return facts.watermark_us
    newest_ms = max((entry.stamp_ms for entry in facts.log.of("sensors")), default=0)
    return newest_ms * 1_000 - facts.log.spec.lateness_us - GRACE_US


def _excused(facts: Facts, lost: int) -> int:
    """How many of the `lost` the aligner counted as late without a letter: it died in between.

    Its counters stand in the frames, and a frame is there before the letters of its readings.
    """
    late = sum(letter.reason == "late" for found in facts.letters.values() for letter in found)
    return max(0, min(lost, _counter(facts, "late") - late))


def _counter(facts: Facts, name: str) -> int:
    """How many readings the aligner had counted under a name when it made its newest frame."""
    newest = max(facts.frames.values(), key=lambda f: f.header.seen_us, default=None)
    return 0 if newest is None else newest.header.counters.get(name, 0)


def check_frames(facts: Facts, findings: Findings) -> dict[str, int]:
    """No cohort misses a tick between its first frame and its last, while it has entities."""
    spec = facts.log.spec
    ticks: dict[int, list[int]] = defaultdict(list)
    for cohort, tick in facts.frames:
        ticks[cohort].append(tick)
    for cohort, found in ticks.items():
        for before, after in pairwise(found):
            if after != before + 1 and not _emptied(facts.frames[cohort, before], spec):
                findings.add("frames", f"cohort {cohort}: {before} is followed by {after}")
    return {"frames": len(facts.frames), "cohorts": len(ticks)}


def _emptied(frame: Frame, spec: SystemSpec) -> bool:
    """Whether all entities of a frame were about to be forgotten."""
    youngest = np.nanmin(frame.ages.astype(float), axis=1, initial=math.inf)
    return bool((youngest * 1e6 + spec.period_us > spec.forget_us).all())
