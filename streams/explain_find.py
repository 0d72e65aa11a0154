"""Which decision is asked about: by the id of its action, or by entity and time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from schemas.clock import tick_time
from schemas.frames import decode_frame
from schemas.messages import id_at, id_of
from schemas.system import SystemSpec
from schemas.topics import topic
from streams.action_records import VALID_TICKS
from streams.recording import Recording, RecordingError
from streams.replay_control import tick_at
from streams.replay_deck import ReplayError

_ID: Final = re.compile("[0-9a-f]{16}")
_SPARSE: Final = 64  # every so many frames are looked into first: entities seldom come and go


class Asked(NamedTuple):
    """One decision: of an entity, in a cohort, at a tick."""

    entity: str
    cohort: int
    tick: int


def find(
    recordings: Sequence[Path], action: str | None, entity: str | None, at: str | None
) -> tuple[Recording, Asked]:
    """The decision asked about, and the first of `recordings` that holds it.

    Raises:
        ReplayError: none holds it; of one recording: why.
        RecordingError: the only recording is not whole.
    """
    why: Exception | None = None
    for folder in recordings:
        try:
            source = Recording.open(folder)
            if action is not None:
                return source, find_action(source, action)
            if entity is not None and at is not None:
                return source, find_entity(source, entity, at)
            raise ReplayError("say which decision: its ACTION_ID, or --entity and --at")
        except (ReplayError, RecordingError) as error:
            why = error
    if why is None:
        raise ReplayError(
            "there is no recording in the catalog: make one with `rehearse record`, or name its "
            "folder with --recording"
        )
    if len(recordings) == 1:
        raise why
    raise ReplayError(
        f"none of the {len(recordings)} recordings in the catalog holds it: name its folder with "
        f"--recording. The oldest says: {why}"
    )


def find_action(source: Recording, action: str) -> Asked:
    """The decision whose action has the id `action`.

    An id is a digest of system, entity and tick, so those of the recording are tried out.

    Raises:
        ReplayError: it is no id, or none of this recording.
    """
    spec = source.spec
    if not _ID.fullmatch(action):
        raise ReplayError(
            f"{action!r} is no action id: these are 16 hex digits, the field `id` of what stands "
            f"on {topic(spec, 'actions')}; or ask by --entity and --at"
        )
    places = source.index("frames")
    ticks: dict[int, list[int]] = defaultdict(list)
    for tick, cohort, *_ in places:
        ticks[cohort].append(tick)
    known: set[tuple[int, str]] = set()
    for _, cohort, _, path, row in [*places[::_SPARSE], *places]:
        for entity in decode_frame(spec, source.value(path, row)).entities:
            if (cohort, entity) in known:
                continue
            known.add((cohort, entity))
            begun = id_of(spec.system, entity)
            for tick in ticks[cohort]:
                if id_at(begun, tick) == action:
                    return Asked(entity, cohort, tick)
    entities = {entity for _, entity in known}
    raise ReplayError(
        f"no action {action} in {source.folder}: it holds those of {len(entities)} entities of "
        f"system {spec.system}, {span_text(source)}. Ids of another system, or of another time, "
        "are in its recording: name that one with --recording"
    )


def find_entity(source: Recording, entity: str, at: str) -> Asked:
    """The decision about `entity` that was in force `at` a time: that of the tick at or before it.

    Args:
        source: the recording.
        entity: its name.
        at: event time in us, as `rehearse replay --from`; or a date, or '90 s' from the beginning.

    Raises:
        ReplayError: the time is not in the recording, or the entity not in it then.
    """
    spec, places = source.spec, source.index("frames")
    ticks = sorted({tick for tick, *_ in places})
    if not ticks:
        raise ReplayError(f"{source.folder}: there are no frames in it: record again")
    wanted = tick_asked(at, ticks[0], spec)
    if not ticks[0] <= wanted <= ticks[-1]:
        raise ReplayError(
            f"--at {at} is tick {wanted}, not in {source.folder}: {span_text(source)}"
        )
    here: set[str] = set()
    for tick, cohort, _, path, row in reversed(places):
        # An action is valid no longer: before that, another one was in force.
        if wanted - VALID_TICKS < tick <= wanted:
            found = decode_frame(spec, source.value(path, row)).entities
            if entity in found:
                return Asked(entity, cohort, tick)
            here.update(found)
    raise ReplayError(
        f"--entity {entity}: nothing was decided about it at tick {wanted}; in the frames there "
        f"are {', '.join(sorted(here)[:9]) or 'none'}{', …' if len(here) > 9 else ''}"
    )


def tick_asked(at: str, first: int, spec: SystemSpec) -> int:
    """The last tick at or before `at`: us, a date, or a duration from the tick `first`."""
    if at.strip().lstrip("-").isdecimal():
        return (int(at) - spec.epoch_us) // spec.period_us
    try:
        return tick_at(at, first, spec.epoch_us, spec.period_us, last=True)
    except ValueError as error:
        raise ReplayError(
            f"--at {at}: give an event time in us, a date like 2026-05-01T12:00, or '90 s' from "
            "the beginning"
        ) from error


def span_text(source: Recording) -> str:
    """From when to when a recording goes, in ticks and in both forms of time."""
    ticks = [tick for tick, *_ in source.index("frames")]
    return f"from {moment(source.spec, min(ticks))} to {moment(source.spec, max(ticks))}"


def moment(spec: SystemSpec, tick: int) -> str:
    """A tick, with its event time as a date and in us."""
    time_us = tick_time(tick, spec.epoch_us, spec.period_us)
    return f"tick {tick} ({date_text(time_us)}, {time_us} us)"


def date_text(time_us: int) -> str:
    """An event time as a date, to the millisecond, UTC."""
    date = datetime.fromtimestamp(time_us / 1e6, UTC)
    return date.isoformat(sep=" ", timespec="milliseconds")[:23]
