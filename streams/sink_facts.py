"""What a file of the sink says of the frames in it, and in which parts they are put there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from schemas.system import SystemSpec
from streams.intervals import Intervals
from streams.sink_files import FileInfo
from streams.sink_table import LoggedFrame


def info_of(
    spec: SystemSpec,
    topic_id: str,
    day: str,
    layout: str,
    frames: Sequence[LoggedFrame],
    rows: int,
    rejected: Mapping[int, Intervals],
) -> FileInfo:
    """The facts of a file that is about to be written; it has no path yet.

    Args:
        spec, topic_id, day, layout: of all the frames.
        frames: what is in it, one or more, in `rows` rows.
        rejected: partition → offsets of unreadable records, which count as stored with it.
    """
    ranges, ticks = dict[int, Intervals](), dict[int, Intervals]()
    for frame in frames:
        ranges.setdefault(frame.partition, Intervals()).add(frame.offset)
        ticks.setdefault(frame.cohort, Intervals()).add(frame.tick)
    for partition, offsets in rejected.items():
        for start, end in offsets:
            ranges.setdefault(partition, Intervals()).add(start, end)
    facts = {
        "spec_hash": frames[0].spec_hash,
        "interface_hash": spec.interface_hash,
        "objective_hash": spec.objective_hash,
        "bundles": sorted({frame.bundle for frame in frames} - {""}),
    }
    return FileInfo(
        path=Path(),
        system=spec.system,
        day=day,
        layout=layout,
        topic_id=topic_id,
        rows=rows,
        ranges={key: list(found) for key, found in sorted(ranges.items())},
        ticks={key: list(found) for key, found in sorted(ticks.items())},
        facts=facts,
        last_ms=max(frame.stamp_ms for frame in frames),
    )


def few_at_a_time(frames: Sequence[LoggedFrame], rows: int) -> Iterator[list[LoggedFrame]]:
    """`frames` in order, in parts of about so many rows."""
    few: list[LoggedFrame] = []
    taken = 0
    for frame in frames:
        few.append(frame)
        taken += frame.batch.num_rows
        if taken >= rows:
            yield few
            few, taken = [], 0
    if few:
        yield few
