"""Batches of Kafka messages into the aligner's core: readings, reports, watermarks, control."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from confluent_kafka import Message

from schemas.frames import Offsets
from schemas.messages import WATERMARK_HEADER, Control, DeadLetter, Outcome, Watermark, decode
from schemas.system import SystemSpec
from schemas.topics import cohort_of, topic
from streams.align import Aligner
from streams.align_discipline import Discipline
from streams.align_share import WHOLE, Share
from streams.align_state import Ints
from streams.codecs.base import Bad
from streams.codecs.schemas import Schemas
from streams.decode import KeyRows, ReportDecoder, Rows, SensorDecoder, bad_keys

Place = tuple[str, int]
"""Topic and partition."""
Origins = tuple[Ints, Ints, Ints, Ints]
"""Partition, offset, event time and place in the batch of readings that the core was given."""
_COUNTED: Final = ("late", "future", "out_of_range")  # the core counts these itself


@dataclass(frozen=True)
class Batch:
    """Records of one topic in the order of arrival; a null key leaves no entity."""

    topic: str
    messages: Sequence[Message]
    keys: list[bytes | None]
    values: list[bytes | None]
    partition: Ints
    offset: Ints

    @classmethod
    def of(cls, name: str, messages: Sequence[Message]) -> "Batch":
        """The columns of `messages`, which are all of topic `name`."""
        count = len(messages)
        return cls(
            name,
            messages,
            list(map(Message.key, messages)),
            list(map(Message.value, messages)),
            np.fromiter(map(Message.partition, messages), np.int64, count),
            np.fromiter(map(Message.offset, messages), np.int64, count),
        )

    def ends(self) -> dict[int, int]:
        """Partition → the offset after its last record here."""
        newest = np.full(int(self.partition.max(initial=-1)) + 1, -1)
        newest[self.partition] = self.offset  # the last one of each, as they come in order
        found = np.flatnonzero(newest >= 0)
        return dict(zip(found.tolist(), (newest[found] + 1).tolist(), strict=True))


class Feed:
    """Gives records to an aligner, topic by topic, and keeps what could not be used.

    While a batch holds records of several partitions, or a partition is known to have more, no tick
    closes that one of them has not reached: which of them is read first changes nothing.

    Args:
        spec, aligner: what it feeds.
        high: the offset after the last record that a partition is known to have.
        known: records before these offsets were counted, and reported where bad, before a restart.
        schemas: where codecs find the schemas that messages name.
        clocks: of the devices, by which readings' times are corrected; None: they are right.
        on_claim: is told what aligners say to each other.
        share: whose entities are taken; others are misplaced.
    """

    def __init__(
        self,
        spec: SystemSpec,
        aligner: Aligner,
        high: Callable[[Place], int],
        known: Offsets | None = None,
        schemas: Schemas | None = None,
        clocks: Discipline | None = None,
        on_claim: Callable[[Control], None] = lambda _: None,
        share: Share = WHOLE,
    ) -> None:
        self.aligner, self._clocks, self._on_claim = aligner, clocks, on_claim
        self.read: dict[Place, int] = {}  # the offset up to which each partition was read
        self.letters: list[DeadLetter] = []
        self.reasons: Counter[str] = Counter()
        self.reports: Final = (topic(spec, "applied"), topic(spec, "actions"))
        self._high, self._known = high, known or {}
        # Of entities that other aligners take, there are none where topics are as they should be.
        mine = lambda name: share.holds(cohort_of(name, spec.cohorts))  # noqa: E731
        self._keys = KeyRows(aligner.intern, mine if share.of > 1 else None)
        self._sensors: dict[str, list[tuple[str, SensorDecoder]]] = {}
        for name, sensor in spec.sensors.items():
            decoder = SensorDecoder(sensor, schemas)
            self._sensors.setdefault(sensor.topic, []).append((name, decoder))
        self._applied = ReportDecoder(spec, "tick", "status")
        self._issued = ReportDecoder(spec, "tick")
        # In this order: what a tick should know is there before what closes it.
        steps = {topic(spec, "control"): self._control, topic(spec, "outcomes"): self._outcomes}
        self._steps = {name: steps.get(name, self._timed) for name in topics_read(spec)}
        # Topics whose records carry event times: ticks wait for what they are known to have.
        self.timed: Final = frozenset((*self.reports, *self._sensors))
        self._behind: set[Place] = set()

    # batches

    def begin(self, behind: Iterable[Place]) -> None:
        """Says which partitions have records that are to be read first."""
        self._behind = {place for place in behind if place[0] in self.timed}
        self.aligner.lagging(dict.fromkeys(self._behind, True))

    def awaits(self, name: str, values: Sequence[bytes | None]) -> int | None:
        """The first of a topic's records whose schema is on its way; None: all can be taken."""
        found = (decoder.awaits(values) for _, decoder in self._sensors.get(name, ()))
        return min((place for place in found if place is not None), default=None)

    def hold(self, places: Iterable[Place]) -> None:
        """Says that records of these partitions are held back, and are to be read first."""
        held = {place for place in places if place[0] in self.timed}
        self._behind |= held
        self.aligner.lagging(dict.fromkeys(held, True))

    def shed(self, places: Mapping[Place, int]) -> int:
        """Passes over what lies before these offsets, unread; gives how many records that are.

        For each partition there is one dead letter, which says from where to where.
        """
        total = 0
        for place, end in places.items():
            begin = self.read.get(place, end)
            if begin >= end:
                continue
            total += end - begin
            text = f"{end - begin} records, up to offset {end - 1}: there was no time to read them"
            self.letters.append(DeadLetter(*place, begin, "shed", text, end=end))
            self._consumed(*place, end)
        self.reasons["shed"] += total
        self.aligner.count("shed", total)
        self.hold(places)  # what comes now is not late for ticks that it is of
        return total

    def take(self, messages: Sequence[Message], ends: Sequence[Message] = ()) -> None:
        """Takes a batch of records, and the ends of partitions that were reached (EOF events)."""
        batches = [Batch.of(name, group) for name, group in self._by_topic(messages)]
        reached = {
            (batch.topic, partition): end
            for batch in batches
            for partition, end in batch.ends().items()
        }
        timed = [place for place in reached if place[0] in self.timed]
        waiting = self._waiting(reached)
        self._behind.update(waiting)
        if len(timed) > 1 or self._behind:
            self.aligner.lagging(dict.fromkeys([*timed, *waiting], True))
        for batch in batches:
            self._steps[batch.topic](batch)
        for (name, partition), end in reached.items():
            self._consumed(name, partition, end)
        lags = {place: reached[place] < self._high(place) for place in timed}
        for event in ends:
            # After the last record there may be offsets without one: marks of transactions. And
            # what was the end when this was said need not be it any more.
            place = (event.topic() or "", event.partition() or 0)
            self._consumed(*place, event.offset() or 0)
            if place[0] in self.timed:
                lags[place] = self.read[place] < self._high(place)
        self._behind = (self._behind - lags.keys()) | {place for place, lag in lags.items() if lag}
        self.aligner.lagging(lags)

    def _waiting(self, reached: Mapping[Place, int]) -> list[Place]:
        """Partitions with records that came meanwhile, and are not among those just read."""
        return [
            place
            for place, at in self.read.items()
            if place not in reached and place[0] in self.timed and at < self._high(place)
        ]

    def _consumed(self, name: str, partition: int, end: int) -> None:
        self.aligner.consumed(name, partition, end)
        self.read[name, partition] = max(self.read.get((name, partition), 0), end)

    def _by_topic(self, messages: Sequence[Message]) -> list[tuple[str, Sequence[Message]]]:
        names = list(map(Message.topic, messages))
        if names and names.count(names[0]) == len(names):
            return [(names[0] or "", messages)]
        groups: dict[str, list[Message]] = {}
        for name, message in zip(names, messages, strict=True):
            groups.setdefault(name or "", []).append(message)
        return [(name, groups[name]) for name in self._steps if name in groups]

    # records with event times

    def _timed(self, batch: Batch) -> None:
        """Readings or reports, cut where a watermark stands among them."""
        begin = 0
        if None in batch.keys:
            for place, key in enumerate(batch.keys):
                if key is None and _is_watermark(batch.messages[place]):
                    self._run(batch, begin, place)
                    self._watermark(batch, place)
                    begin = place + 1
        self._run(batch, begin, len(batch.keys))

    def _run(self, batch: Batch, begin: int, end: int) -> None:
        if begin == end:
            return
        rows = self._keys.rows(batch.keys[begin:end])
        values = batch.values[begin:end]
        places = np.arange(begin, end)
        if rows.min() < 0:
            self._reject(batch, begin, bad_keys(rows))
            named = np.flatnonzero(rows >= 0)
            values = [values[i] for i in named.tolist()]
            rows, places = rows[named], places[named]
        if batch.topic in self._sensors:
            self._readings(batch, places, rows, values)
        else:
            self._reports(batch, places, rows, values)

    def _readings(self, batch: Batch, places: Ints, rows: Ints, values: list[bytes | None]) -> None:
        sensors = self._sensors[batch.topic]
        found = [(name, decoder.decode(rows, values)) for name, decoder in sensors]
        origins: list[Origins] = []
        for name, taken in found:
            if len(found) > 1:  # a record of another sensor that shares the topic
                taken = taken.seeing()
            where = places[taken.places]
            time_us = self._times(batch, name, taken, where)
            partition, offset = batch.partition[where], _offsets(batch.offset[where], where)
            origins.append((partition, offset, time_us, where))
            self.aligner.readings(name, taken.entity, time_us, taken.values, partition, offset)
        # What one of the sensors understands is no dead letter.
        unused = set.intersection(*({bad.place for bad in taken.bad} for _, taken in found))
        bad = [bad for bad in found[0][1].bad if bad.place in unused]
        self._reject(batch, 0, (b._replace(place=int(places[b.place])) for b in bad))
        self._reject_late(batch, origins)

    def _times(self, batch: Batch, sensor: str, taken: Rows, where: Ints) -> Ints:
        """[n] the readings' times, where a device's clock is off, by the broker's."""
        if self._clocks is None:
            return taken.time_us
        return self._clocks.times(
            sensor,
            taken.entity,
            taken.time_us,
            batch.messages,
            where,
            lambda: self._live(batch),
        )

    def _live(self, batch: Batch) -> bool:
        """Whether a batch was read when it came: nothing is known to stand behind it."""
        ends = {(batch.topic, partition): end for partition, end in batch.ends().items()}
        return not ends.keys() & self._behind and all(
            end >= self._high(place) for place, end in ends.items()
        )

    def _reports(self, batch: Batch, places: Ints, rows: Ints, values: list[bytes | None]) -> None:
        applied = batch.topic == self.reports[0]
        taken: Rows = (self._applied if applied else self._issued).decode(rows, values)
        where = places[taken.places]
        origin = (taken.time_us, batch.partition[where], batch.offset[where])
        tick = taken.rest[:, 0]
        if applied:
            self.aligner.applied(taken.entity, tick, taken.values, taken.rest[:, 1], *origin)
        else:
            self.aligner.issued(taken.entity, tick, taken.values, *origin)
        self._reject(batch, 0, (b._replace(place=int(places[b.place])) for b in taken.bad))

    def _watermark(self, batch: Batch, place: int) -> None:
        try:
            mark = decode(Watermark, batch.values[place] or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._reject(batch, 0, [Bad(place, "bad_watermark", str(error))])
            return
        partition, offset = int(batch.partition[place]), int(batch.offset[place])
        self.aligner.watermark(batch.topic, mark.watermark, partition, offset)

    # control and outcomes

    def _control(self, batch: Batch) -> None:
        for place, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            try:
                if value is not None:
                    self._obey(decode(Control, value))
                elif key:
                    self.aligner.remove_control(key.decode())
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self._reject(batch, 0, [Bad(place, "bad_control", str(error))])

    def _obey(self, record: Control) -> None:
        if record.kind == "align":
            self._on_claim(record)
        else:
            self.aligner.control(record)

    def _outcomes(self, batch: Batch) -> None:
        """Ends of episodes: what an entity shows from the next tick on is another one."""
        for place, value in enumerate(batch.values):
            if value is None or b'"end"' not in value:
                continue
            try:
                outcome = decode(Outcome, value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self._reject(batch, 0, [Bad(place, "bad_outcome", str(error))])
                continue
            if outcome.kind == "end":
                self.aligner.reset(self.aligner.intern([outcome.entity]), outcome.time + 1)

    # dead letters

    def _reject(self, batch: Batch, begin: int, found: Iterable[Bad]) -> None:
        for bad in found:
            self._letter(batch, begin + bad.place, bad.reason, bad.detail, 0)

    def _reject_late(self, batch: Batch, origins: Sequence[Origins]) -> None:
        """What the core refused of the readings that it was just given: one letter per record."""
        rejected = self.aligner.dead_letters()
        if not rejected:
            return
        places: dict[tuple[int, int, int], int] = {}
        for columns in origins:
            partition, offset, time_us, where = (column.tolist() for column in columns)
            places.update(zip(zip(partition, offset, time_us, strict=True), where, strict=True))
        found: dict[tuple[int, str, str], list[int]] = {}
        for letter in rejected:
            place = places[letter.partition, letter.offset, letter.time_us]
            found.setdefault((place, letter.reason, letter.detail), []).append(letter.time_us)
        for (place, reason, detail), times in found.items():
            text = detail if len(times) == 1 else f"{detail} ({len(times)} readings of it)"
            self._letter(batch, place, reason, text, times[0])

    def _letter(self, batch: Batch, place: int, reason: str, detail: str, time_us: int) -> None:
        partition, offset = int(batch.partition[place]), int(batch.offset[place])
        if offset < self._known.get(batch.topic, {}).get(partition, 0):
            return
        if reason not in _COUNTED:
            self.aligner.count(reason, 1)
        self.reasons[reason] += 1
        key, value = batch.keys[place], batch.values[place]
        source = (batch.topic, partition, offset)
        self.letters.append(DeadLetter.of(source, reason, detail, key, value, time_us))


def topics_read(spec: SystemSpec) -> list[str]:
    """What an aligner reads."""
    own = [topic(spec, kind) for kind in ("control", "outcomes", "applied", "actions")]
    return [*own, *dict.fromkeys(sensor.topic for sensor in spec.sensors.values())]


def _offsets(offset: Ints, place: Ints) -> Ints:
    """The offsets of readings, for the core; a record with several is read with its last one.

    The others stand one before it: where a tick closes between them, going on is to read all again.
    """
    if len(place) < 2 or (place[1:] != place[:-1]).all():
        return offset
    earlier: Ints = offset - np.append(place[1:] == place[:-1], False)
    return earlier


def _is_watermark(message: Message) -> bool:
    return any(header[0] == WATERMARK_HEADER for header in message.headers() or ())
