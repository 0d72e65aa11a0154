"""Copies a stretch of a system's frames and trajectories into a folder that can be replayed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Message, TopicPartition
from rich.console import Console
from rich.progress import Progress

from infra.log import Log
from schemas.arrow_io import HEADER_KEY, FrameError, write_batch
from schemas.clock import tick_of
from schemas.frames import encode_frame
from schemas.system import SystemSpec
from schemas.topics import topic
from schemas.trajectories import KEY_FRAME_EVERY, ROW_KEY, decode_trajectory
from streams import sink_files
from streams.intervals import Intervals
from streams.plant import Stop
from streams.recording import (
    KINDS,
    MANIFEST,
    SPEC,
    ChunkWriter,
    Kind,
    RawRecord,
    RecordingError,
    spec_text,
)
from streams.recording_maker import finish, raw_record
from streams.topic_io import bounds, make_consumer, raise_fatal, topic_id

_BATCH: Final = 500
_APART: Final = 2  # ticks by which cohorts of one partition may be apart
_QUIET_S: Final = 20.0  # without a record before the end, the broker has a problem
OnProgress = Callable[[int, int], None]
_log = Log("record")


def record(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str] | None,
    out_dir: Path,
    from_us: int | None = None,
    to_us: int | None = None,
    stop: Stop | None = None,
    *,
    source: Path | None = None,
    follow: bool = False,
    catalog_url: str | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Records the ticks of event times `from_us` … `to_us` (both included; None: open).

    The recording begins earlier, with the last key frame before `from_us`, whose belief row is
    what a replay starts from. A recording that was cut off goes on where it was when it is made
    again into the same folder.

    Args:
        source: a sink's folder to record from, instead of Kafka.
        follow: goes on behind the present end of the topics until `stop`, or until `to_us` passed.
        catalog_url: a catalog that shall know the recording.
        on_progress: called with records done and in all; None: a bar, where there is a terminal.

    Returns a summary: `recording` (the folder), `frames`, `trajectories`, `cohorts`, `from_tick`,
    `to_tick`, `bundles` (digests), `bytes`, `complete` (whether it was not stopped early),
    `missing` (what its source does not hold, in words).

    Raises:
        RecordingError: nothing to record, or the folder holds another recording.
        KafkaSetupError: the topics are not there, or no broker answers.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    text = spec_text(spec)
    known = out_dir / SPEC
    if known.is_file() and known.read_text() != text:
        raise RecordingError(f"{out_dir} holds a recording of another spec: choose a new folder")
    known.write_text(text)
    (out_dir / MANIFEST).unlink(missing_ok=True)  # until it is finished again
    span = Span.of(spec, from_us, to_us)
    with _progress(on_progress) as shown:
        if source is None:
            copy = _KafkaCopy(spec, bootstrap, extra, out_dir, span)
            complete, missing = copy.run(stop, follow, shown), copy.gone
        else:
            complete, missing = _copy_sink(spec, source, out_dir, span, stop, shown)
    return finish(spec, out_dir, text, span.first, complete, catalog_url, missing)


@dataclass(frozen=True)
class Span:
    """The ticks asked for, first and last (None: open), and the key frame before the first."""

    first: int | None
    last: int | None

    @classmethod
    def of(cls, spec: SystemSpec, from_us: int | None, to_us: int | None) -> Span:
        """The ticks whose times lie in [from_us, to_us]."""
        first = None if from_us is None else tick_of(from_us, spec.epoch_us, spec.period_us)
        last = None if to_us is None else (to_us - spec.epoch_us) // spec.period_us
        return cls(first, last)

    @property
    def lead(self) -> int | None:
        """The tick of the last key frame before the first tick."""
        if self.first is None:
            return None
        return (self.first - 1) // KEY_FRAME_EVERY * KEY_FRAME_EVERY

    def holds(self, tick: int) -> bool:
        """Whether a record of this tick belongs to the recording."""
        return (self.lead is None or tick >= self.lead) and not self.passed(tick)

    def passed(self, tick: int) -> bool:
        """Whether this tick lies behind the last one asked for."""
        return self.last is not None and tick > self.last


@contextmanager
def _progress(given: OnProgress | None) -> Iterator[OnProgress]:
    if given is not None:
        yield given
        return
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("recording", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _KafkaCopy:
    """Both topics of a system, read side by side to where they end."""

    def __init__(
        self,
        spec: SystemSpec,
        bootstrap: str,
        extra: Mapping[str, str] | None,
        folder: Path,
        span: Span,
    ) -> None:
        self._span = span
        self._kinds: dict[str, Kind] = {topic(spec, kind): kind for kind in KINDS}
        self._writers = {
            name: ChunkWriter(folder, kind, topic_id(bootstrap, extra, name))
            for name, kind in self._kinds.items()
        }
        self._consumer = make_consumer(bootstrap, extra)
        self._goals: dict[tuple[str, int], int] = {}  # where each partition ends
        self._open: set[tuple[str, int]] = set()  # not read to there yet
        self.done = self.total = 0
        self.gone: list[str] = []  # what the topics do not hold any more, in words

    def run(self, stop: Stop | None, follow: bool, shown: OnProgress) -> bool:
        """Copies until the end, or until told to stop; returns whether it came to the end."""
        try:
            self._assign()
            heard = time.monotonic()
            while self._open and not (stop and stop.is_set()):
                messages = self._consumer.consume(_BATCH, 0.2)
                for message in messages:
                    self._take(message, follow)
                shown(self.done, self.total)
                if messages or follow:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _QUIET_S:
                    raise RecordingError(
                        f"no record for {_QUIET_S:g} s before the end of the topics: check the "
                        "broker, then record again into the same folder; it goes on"
                    )
            return follow or not self._open
        finally:
            for writer in self._writers.values():
                writer.flush()
            self._consumer.close()

    def _assign(self) -> None:
        places = []
        for name, writer in self._writers.items():
            for number, (low, high) in bounds(self._consumer, name).items():
                known = writer.seen.get(number)
                first = known.next_after(low) if known else low
                if low > 0 and self._span.lead is None and not known:
                    self.gone.append(
                        f"{name}, partition {number}: its first {low:,} records have gone "
                        "(its retention); the recording begins behind them"
                    )
                if first < high:
                    self._open.add((name, number))
                self._goals[name, number] = high
                self.total += max(0, high - first)
                places.append(TopicPartition(name, number, first))
        self._consumer.assign(places)

    def _take(self, message: Message, follow: bool) -> None:
        if (error := message.error()) is not None:
            _log.warning("kafka", detail=raise_fatal(error))
            return
        name, number = message.topic() or "", message.partition() or 0
        offset, place = message.offset() or 0, (name, number)
        if offset >= self._goals[place] and not follow:
            return
        writer = self._writers[name]
        self.done += 1
        passed = offset + 1 >= self._goals[place] and not follow
        try:
            read = raw_record(name, number, offset, message.timestamp()[1], message.value() or b"")
        except FrameError as problem:
            _log.warning("unreadable", topic=name, offset=offset, detail=str(problem))
            writer.skip(number, offset)
        else:
            if self._span.holds(read.tick):
                writer.add(read)
            else:
                writer.skip(number, offset)
            passed |= follow and self._span.passed(read.tick - _APART)
        if passed:
            self._open.discard(place)


def _copy_sink(
    spec: SystemSpec, source: Path, folder: Path, span: Span, stop: Stop | None, shown: OnProgress
) -> tuple[bool, list[str]]:
    """Makes the records again from the rows of a sink's files; and says which are in none."""
    files = _sink_files(spec, source)
    writers = {kind: ChunkWriter(folder, kind, files[0].topic_id) for kind in KINDS}
    while True:
        try:
            for done, info in enumerate(files):
                if stop and stop.is_set():
                    return False, []
                _copy_file(spec, info.path, span, writers)
                shown(done + 1, len(files))
            return True, _not_stored(source, files, span)
        except FileNotFoundError:
            # It was merged into another one meanwhile. What was copied is not copied again.
            before, files = files, _sink_files(spec, source)
            if files == before:
                raise


def _sink_files(spec: SystemSpec, source: Path) -> list[sink_files.FileInfo]:
    files = sink_files.newest_topic(sink_files.listed(source, spec.system))
    if not files:
        raise RecordingError(f"{source}: no file of {spec.system} that a sink wrote")
    return files


def _copy_file(
    spec: SystemSpec, path: Path, span: Span, writers: Mapping[Kind, ChunkWriter]
) -> None:
    for read in sink_records(spec, path):
        known = writers["trajectories"].seen.get(read.partition)
        if span.holds(read.tick) and not (known and read.offset in known):
            frame = encode_frame(spec, decode_trajectory(spec, read.value).frame)
            name = topic(spec, "frames")
            writers["frames"].add(
                RawRecord(**{**vars(read), "topic": name, "bundle": "", "value": frame})
            )
            writers["trajectories"].add(read)
    for kind in KINDS:
        writers[kind].flush()


def _not_stored(source: Path, files: Sequence[sink_files.FileInfo], span: Span) -> list[str]:
    """The offsets before the last that no file covers: gone before the sink came, or removed."""
    covered: dict[int, Intervals] = {}
    for info in files:
        for partition, pairs in info.ranges.items():
            for first, end in pairs:
                covered.setdefault(partition, Intervals()).add(first, end)
    found = []
    for partition, known in sorted(covered.items()):
        at = 0 if span.lead is None else min(first for first, _ in known)
        for first, end in known:
            if first > at:
                found.append(
                    f"{source}: no file holds offsets {at:,} to {first - 1:,} of partition "
                    f"{partition}: they had gone from the topic, or a file was removed"
                )
            at = end
    return found


def sink_records(spec: SystemSpec, path: Path) -> Iterator[RawRecord]:
    """The trajectory records that stand in a sink's file, made again from its rows."""
    with pq.ParquetFile(path) as file:
        held = file.schema_arrow.remove_metadata().empty_table()
        for number in range(file.num_row_groups):
            read = file.read_row_group(number).replace_schema_metadata(None)
            held = pa.concat_tables([held, read])
            starts = _starts(held)
            whole = starts[-1] if starts else 0  # the last record may go on in the next row group
            yield from _records(spec, held.slice(0, whole))
            held = held.slice(whole)
        yield from _records(spec, held)


def _starts(table: pa.Table) -> list[int]:
    """The first row of each record: that one alone has the header."""
    headers = table.column("header").to_pylist()
    return [i for i, header in enumerate(headers) if header is not None]


def _records(spec: SystemSpec, table: pa.Table) -> Iterator[RawRecord]:
    table = table.combine_chunks()
    names = table.column_names[: table.column_names.index("system")]
    schema = pa.schema([table.schema.field(name) for name in names])
    starts = _starts(table)
    for start, end in zip(starts, [*starts[1:], table.num_rows], strict=True):
        rows = table.slice(start, end - start)
        metadata = {HEADER_KEY: rows.column("header")[0].as_py().encode()}
        if (row := rows.column("row")[0].as_py()) is not None:
            metadata[ROW_KEY] = row
        arrays = [pa.concat_arrays(rows.column(name).chunks) for name in names]
        value = write_batch(schema, arrays, metadata)
        partition, offset = (rows.column(n)[0].as_py() for n in ("partition", "offset"))
        yield raw_record(topic(spec, "trajectories"), partition, offset, -1, value)
