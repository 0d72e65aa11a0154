"""Every attempt of every decision, durable in Parquet exactly once, and indexed in the catalog."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import KafkaException, Message, TopicPartition
from sqlalchemy.exc import OperationalError

from infra.kafka import BrokerAwayError, is_away
from infra.log import Log
from schemas.arrow_io import FrameError
from schemas.messages import Applied, decode
from schemas.system import SystemSpec
from schemas.topics import topic
from streams import sink_files
from streams.intervals import Intervals
from streams.metrics import Values, exposed
from streams.plant import Stop
from streams.sink_facts import few_at_a_time, info_of
from streams.sink_files import FileInfo, pieces
from streams.sink_index import SinkIndex
from streams.sink_merge import Merger
from streams.sink_room import ROOM_S, is_full, look_for_room
from streams.sink_table import KEPT_TICKS, LoggedFrame, Reports, read_frame, table_of
from streams.topic_io import TIMEOUT_S, bounds, make_consumer, raise_fatal, topic_id

FLUSH_ROWS: Final = 50_000
FLUSH_S: Final = 5.0
DRAIN_S: Final = 8.0  # at the end
REPORTS_BEFORE_MS: Final = 60_000  # how far before its frames a restart looks for reports
PIECE_ROWS: Final = 2_000  # are made into a table, or written, at a time: 5 to 10 ms
REST_S: Final = 0.5  # after which a loop that is silent is taken for one at rest
PIECE_S: Final = 0.004  # after which no more is begun, while less waits than a file is to hold
_DONE: Final = object()
_BATCH: Final = 2_000

_log = Log("sink")


def run_sink(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str] | None,
    stop: Stop,
    out_dir: Path,
    catalog_url: str | None = None,
    *,
    flush_s: float = FLUSH_S,
    flush_rows: int = FLUSH_ROWS,
) -> dict[str, Any]:
    """Stores `S.trajectories` under `out_dir` until `stop`; then what is left.

    Begins where the files in `out_dir` end, at the beginning of the topic without any. A sink that
    was killed neither loses nor doubles a row. A file comes every `flush_rows` rows or `flush_s`
    seconds, once the actuators have reported on its actions (or were silent for long); small files
    are merged into large ones meanwhile, and at the end.

    Summary: `frames` (distinct), `attempts` (further ones of the same tick), `rows`, `counted`
    (rows whose action was applied), `beliefs_unlike` (attempts whose belief is not that of an
    earlier attempt at the same tick: a worker and its twin disagree), `frames_lost` (ticks missing
    between a cohort's first and last), `cohorts` (frames of each), `rejected` (unreadable
    records), `files`, `seconds`.

    Raises:
        KafkaSetupError: the topics are not there, or no broker answers.
        CatalogError: the catalog cannot be opened.
    """
    sink = Sink(spec, bootstrap, extra, out_dir, catalog_url)
    sink.flush_s, sink.flush_rows = flush_s, flush_rows
    begun = time.monotonic()
    try:
        with exposed(spec.system, sink.metrics):
            while not stop.is_set():
                sink.poll(0.1)
            sink.drain()
        return {**sink.summary(), "seconds": time.monotonic() - begun}
    finally:
        sink.close()


class Sink:
    """The process around `sink_table` and `sink_files`: reads, awaits reports, writes, merges."""

    flush_s = FLUSH_S
    flush_rows = FLUSH_ROWS

    def __init__(
        self,
        spec: SystemSpec,
        bootstrap: str,
        extra: Mapping[str, str] | None,
        out_dir: Path,
        catalog_url: str | None,
    ) -> None:
        self.spec, self.root = spec, out_dir.absolute()
        self.root.mkdir(parents=True, exist_ok=True)
        self._trajectories, self._applied = topic(spec, "trajectories"), topic(spec, "applied")
        self._index = SinkIndex(spec, self.root, catalog_url)
        # Nobody waits for the sink: it takes much at a time and leaves the broker to the loop.
        slow = {"fetch_min_bytes": "200000", "fetch_wait_max_ms": "300"}
        self._connect = partial(make_consumer, bootstrap, extra, **slow)
        self._consumer = self._connect()
        self._topic_id = topic_id(bootstrap, extra, self._trajectories)
        self.counts: Counter[str] = Counter()
        self.cohorts: Counter[int] = Counter()
        # Of what is not stored yet: place → what it was counted as, and its cohort.
        self._unstored: dict[tuple[int, int], tuple[str, int]] = {}
        self._rejected: dict[int, Intervals] = {}  # partition → offsets of unreadable records
        self._room_at = 0.0  # when to look again whether there is room
        self._start()

    # the start

    def _start(self) -> None:
        """Begins where the files end: at first, and again after there was no room for one."""
        for kind, cohort in self._unstored.values():  # they are read again
            self.counts[kind] -= 1
            self.cohorts[cohort] -= kind == "frames"
        self.counts["rejected"] -= sum(map(len, self._rejected.values()))
        self._unstored.clear()
        self._rejected.clear()
        self._reports = Reports()
        self._waiting: list[tuple[float, LoggedFrame]] = []  # in the order of arrival
        self._waiting_rows = self._left_rows = 0  # all, and of them those that could not be stored
        self._flushed = self._rested = time.monotonic()
        self._storing: Iterator[None] = iter(())  # what is left of the last flush
        self._ticks: dict[int, Intervals] = {}
        self.files = sink_files.recover(self.root, self.spec.system)
        self._index.match(self.files)
        self._merger = Merger(self.root, self._index, self.files)
        mine = [info for info in self.files if info.topic_id == self._topic_id]
        self._done = sink_files.covered(mine, self._topic_id)
        for info in mine:
            for cohort, pairs in info.ticks.items():
                known = self._ticks.setdefault(cohort, Intervals())
                for start, end in pairs:
                    known.add(start, end)
        self._recall(mine)
        places = []
        for number, (low, _) in bounds(self._consumer, self._trajectories).items():
            first = self._done.setdefault(number, Intervals()).next_after(low)
            places.append(TopicPartition(self._trajectories, number, first))
        last_ms = max((info.last_ms for info in mine), default=0)
        self._consumer.assign([*places, *self._reports_from(last_ms - REPORTS_BEFORE_MS)])

    def _reports_from(self, stamp_ms: int) -> list[TopicPartition]:
        found = bounds(self._consumer, self._applied)
        if stamp_ms <= 0:
            return [TopicPartition(self._applied, n, low) for n, (low, _) in found.items()]
        asked = [TopicPartition(self._applied, number, stamp_ms) for number in found]
        places: list[TopicPartition] = self._consumer.offsets_for_times(asked, timeout=TIMEOUT_S)
        for place in places:
            if place.offset < 0:  # nothing that late: at the end
                place.offset = found[place.partition][1]
        return places

    def _recall(self, files: Sequence[FileInfo]) -> None:
        """Which attempts counted lately, so that a later attempt of the same tick does not."""
        newest = max((end for ticks in self._ticks.values() for _, end in ticks), default=0)
        for info in files:
            if max(end for pairs in info.ticks.values() for _, end in pairs) <= newest - KEPT_TICKS:
                continue
            names = ["cohort", "tick", "entity", "counted"]
            columns = pq.read_table(info.path, columns=names, partitioning=None).to_pydict()
            for cohort, tick, entity, counted in zip(*columns.values(), strict=True):
                if counted:
                    self._reports.remember(cohort, tick, [entity])

    # reading

    def poll(self, timeout: float) -> int:
        """Reads what there is, and stores what is settled. Returns the number of records.

        Files are made in pieces: when records have just come, the loop that made them is at rest.
        Where the disk is full, it waits for room: the topics keep what is not stored, and nobody
        else of the loop needs the files.
        """
        try:
            if self._room_at:
                return self._await_room(timeout)
            return self._poll(timeout)
        except (OSError, OperationalError) as error:
            if not is_full(error):
                raise
            if not self._room_at:
                _log.error("no room", folder=str(self.root), detail=str(error))
                self.counts["no_room"] += 1
            self._room_at = time.monotonic() + ROOM_S
            self._merger.abandon()
            return 0

    def _await_room(self, timeout: float) -> int:
        if time.monotonic() < self._room_at:
            time.sleep(min(timeout, ROOM_S))
            return 0
        look_for_room(self.root)
        try:
            self._start()
        except (KafkaException, BrokerAwayError) as error:
            if not is_away(error):
                raise
            # There is, but no broker. A client that asks one which is back, and names none yet, not
            # even itself, may never ask again (librdkafka 2.16, its issue 5301).
            self._consumer.close()
            self._consumer = self._connect()
            self._room_at = time.monotonic() + ROOM_S
            return 0
        self._room_at = 0.0
        _log.info("there is room again", folder=str(self.root))
        return 0

    def _poll(self, timeout: float) -> int:
        messages = self._consumer.consume(_BATCH, timeout)
        frames = [self._take(message) for message in messages]
        now = time.monotonic()
        full = self._waiting_rows - self._left_rows >= self.flush_rows
        if any(frames):
            self._rested = now
        elif now < self._rested + REST_S and not full:
            return len(messages)  # reports: the loop is in the middle of a tick
        while (busy := next(self._storing, _DONE) is not _DONE) and (
            full or time.monotonic() < now + PIECE_S
        ):
            pass
        if not busy and not full:
            self._merger.step()
        if not busy and (full or now - self._flushed >= self.flush_s):
            self._begin(now)
        return len(messages)

    def _take(self, message: Message) -> bool:
        """Takes a record; whether it was a frame."""
        if (error := message.error()) is not None:
            _log.warning("kafka", detail=raise_fatal(error))
        elif message.topic() == self._applied:
            self._take_report(message)
        else:
            self._take_frame(message)
            return True
        return False

    def _take_report(self, message: Message) -> None:
        try:
            self._reports.add(decode(Applied, message.value() or b""), message.timestamp()[1])
        except msgspec.DecodeError:  # a watermark
            self.counts["other"] += 1

    def _take_frame(self, message: Message) -> None:
        partition, offset = message.partition() or 0, message.offset() or 0
        if offset in self._done[partition]:
            return
        try:
            stamp_ms = message.timestamp()[1]
            frame = read_frame(partition, offset, stamp_ms, message.value() or b"")
        except FrameError as error:
            self.counts["rejected"] += 1
            self._rejected.setdefault(partition, Intervals()).add(offset)
            _log.warning("unreadable", partition=partition, offset=offset, detail=str(error))
            return
        new = self._ticks.setdefault(frame.cohort, Intervals()).add(frame.tick)
        kind = "frames" if new else "attempts"
        self.counts[kind] += 1
        self.counts["beliefs_unlike"] += self._reports.unlike(frame)
        self.cohorts[frame.cohort] += new
        self._unstored[partition, offset] = (kind, frame.cohort)
        self._waiting.append((time.monotonic(), frame))
        self._waiting_rows += frame.batch.num_rows

    # writing

    def flush(self, now: float) -> None:
        """Stores all frames, settled or not, one file per day and layout."""
        for _ in self._storing:
            pass
        self._begin(now, everything=True)
        for _ in self._storing:
            pass

    def _begin(self, now: float, everything: bool = False) -> None:
        """Takes up the frames that are settled, to be stored one piece after the other."""
        self._flushed = now
        ready: list[tuple[float, LoggedFrame]] = []
        waiting: list[tuple[float, LoggedFrame]] = []
        for came, frame in self._waiting:
            settled = everything or self._reports.settled(frame, now - came)
            (ready if settled else waiting).append((came, frame))
        self._waiting = waiting
        self._waiting_rows = self._left_rows = sum(frame.batch.num_rows for _, frame in waiting)
        ready.sort(key=lambda one: one[1].place)  # so that row groups hold few ticks each
        groups: dict[tuple[str, str], list[LoggedFrame]] = {}
        for _, frame in ready:
            key = (sink_files.day_of(frame.time_us), frame.layout)
            groups.setdefault(key, []).append(frame)
        oldest = min((f.tick for _, f in (*ready, *waiting)), default=0)
        self._storing = self._store_all(groups, oldest)

    def _store_all(
        self, groups: Mapping[tuple[str, str], list[LoggedFrame]], oldest: int
    ) -> Iterator[None]:
        for (day, layout), frames in sorted(groups.items()):
            yield from self._store(day, layout, frames)
        if groups:
            self._reports.forget(oldest - KEPT_TICKS)
        # Arrow's allocator keeps what was freed: without a word, 1 MB grew to 40 in some hours.
        pa.default_memory_pool().release_unused()

    def _store(self, day: str, layout: str, frames: list[LoggedFrame]) -> Iterator[None]:
        parts = []
        for few in few_at_a_time(frames, PIECE_ROWS):
            parts.append(table_of(self.spec, few, self._reports))
            yield
        table = pa.concat_tables(parts)
        info = self._info(day, layout, frames, table.num_rows)
        info = yield from sink_files.writing(self.root, pieces(table, PIECE_ROWS), info)
        self.files.append(info)
        self.counts["rows"] += table.num_rows
        self.counts["counted"] += int(np.count_nonzero(table.column("counted")))
        for frame in frames:
            self._done[frame.partition].add(frame.offset)
            del self._unstored[frame.partition, frame.offset]
        yield from self._index.adding(info, table)

    def _info(self, day: str, layout: str, frames: list[LoggedFrame], rows: int) -> FileInfo:
        info = info_of(self.spec, self._topic_id, day, layout, frames, rows, self._rejected)
        self._rejected.clear()  # they stand in the file, so that they are not read again
        return info

    # the end

    def drain(self) -> None:
        """Reads both topics to where they end now, stores everything, and merges small files."""
        until = time.monotonic() + DRAIN_S
        if self._room_at:  # what there was no room for is read again, and has it now, or fails
            self._start()
            self._room_at = 0.0
        goals = {
            (name, number): high
            for name in (self._trajectories, self._applied)
            for number, (_, high) in bounds(self._consumer, name).items()
        }
        while time.monotonic() < until and not self._reached(goals):
            self.poll(0.1)
        self.flush(time.monotonic())
        self._merger.finish()

    def _reached(self, goals: Mapping[tuple[str, int], int]) -> bool:
        asked = [TopicPartition(*place) for place in goals]
        # A position is unknown (negative) until the first record was read: at the start, then.
        at = {(p.topic, p.partition): p.offset for p in self._consumer.position(asked)}
        begun = {(p.topic, p.partition): p.offset for p in self._consumer.assignment()}
        return all(
            (at[place] if at[place] >= 0 else begun.get(place, 0)) >= goal
            for place, goal in goals.items()
        )

    def close(self) -> None:
        """Leaves; what was not stored is read again by the next sink."""
        self._consumer.close()
        self._index.close()

    def metrics(self) -> Values:
        """What Prometheus is shown; called from another thread."""
        names = ("frames", "attempts", "rows", "rejected", "beliefs_unlike")
        lost = sum(ticks.missing for ticks in list(self._ticks.values()))
        return {
            **{f"rehearse_sink_{name}": self.counts[name] for name in names},
            "rehearse_sink_frames_lost": lost,
        }

    def summary(self) -> dict[str, Any]:
        """What was read and stored by this run, as plain JSON values."""
        return {
            "frames": self.counts["frames"],
            "attempts": self.counts["attempts"],
            "frames_lost": sum(ticks.missing for ticks in self._ticks.values()),
            "rows": self.counts["rows"],
            "counted": self.counts["counted"],
            "rejected": self.counts["rejected"],
            "beliefs_unlike": self.counts["beliefs_unlike"],
            "cohorts": {str(cohort): n for cohort, n in sorted(self.cohorts.items())},
            "files": [str(info.path) for info in self.files],
        }


__all__ = ["Sink", "run_sink"]
