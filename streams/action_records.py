"""A frame's actions as records, most of which is made before anybody waits for it."""

from collections.abc import Iterable
from functools import partial
from hashlib import blake2b
from itertools import compress, repeat
from typing import NamedTuple

from schemas.codes import Mode
from schemas.frames import Frame
from schemas.messages import Action, Values, cloudevents_headers, encode, encode_list, id_at, id_of
from schemas.system import SystemSpec
from schemas.topics import cohort_of, topic, topics_of
from schemas.trajectories import Decisions
from streams.publish import Headers, Record

VALID_TICKS = 2  # one lost frame does not send an actuator to its local fallback
_ID = b'{"id":"'
# `Record._make`, without asking how long each is.
_record = partial(tuple.__new__, Record)


class _Fleet(NamedTuple):
    """What does not change from tick to tick of a cohort's entities, in their order.

    digests: begun ids;  heads: the JSON of an action between its id and its tick.
    """

    entities: tuple[str, ...]
    keys: list[bytes]
    partitions: list[int]
    digests: list[blake2b]
    heads: list[bytes]


class _Envelopes(NamedTuple):
    """What is known of actions as soon as their tick is."""

    tick: int
    fleet: _Fleet
    begun: list[bytes]
    headers: list[Headers]


class ActionRecords:
    """Makes the records of `S.actions`.

    Their JSON is put together from parts that many actions share: it is what `encode` makes of an
    `Action`, byte for byte, in a third of the time. Ids are digests and headers are lists: half of
    the work. `expect` does it for the next tick when the answers of this one are out.

    Args:
        spec: the system.
        worker, attempt: who decides, written into every action.
    """

    def __init__(self, spec: SystemSpec, worker: str, attempt: int) -> None:
        self._spec, self._worker, self._attempt = spec, worker, attempt
        self._topic = topic(spec, "actions")
        self._partitions = next(t.partitions for t in topics_of(spec) if t.kind == "actions")
        headers = cloudevents_headers(spec.system, "action", "")
        self._common: Headers = [(name, value) for name, value in headers if name != "ce_id"]
        self._valid_us = VALID_TICKS * spec.period_us + spec.lateness_us + spec.deadline_us
        first, *more = (encode_list([name])[1:-1] + b":" for name in spec.action_columns)
        self._first, self._more = first, [b"," + name for name in more]
        self._expected: dict[int, _Envelopes] = {}

    def expect(self, cohort: int, tick: int, entities: tuple[str, ...]) -> None:
        """Prepares for the actions of a cohort at `tick`, should its `entities` be these then."""
        self._expected[cohort] = self._envelopes(cohort, tick, entities)

    def make(
        self,
        frame: Frame,
        decisions: Decisions,
        decided_us: int,
        only: frozenset[str] | None = None,
    ) -> list[Record]:
        """The records of `decisions`, but for entities whose action the gate refused.

        only: for these entities alone; None: for all.
        """
        if not frame.entities:
            return []
        made = self._envelopes(frame.cohort, frame.tick, frame.entities)
        fleet, count = made.fleet, len(self._spec.action_columns)
        texts = encode_list(decisions.action.ravel().tolist())[1:-1].split(b",")
        columns = [texts[i::count] for i in range(count)]
        times = b'"tick":%d,"time":%d,"values":{%b'
        begun, rows = times % (frame.tick, frame.header.time_us, self._first), len(made.begun)
        parts: list[Iterable[bytes]] = [made.begun, repeat(begun, rows), columns[0]]
        for name, column in zip(self._more, columns[1:], strict=True):
            parts += repeat(name, rows), column
        parts.append(self._tails(frame, decisions, decided_us))
        values = list(map(b"".join, zip(*parts, strict=True)))
        names = repeat(self._topic, rows)
        made_of = zip(names, fleet.partitions, values, fleet.keys, made.headers, strict=True)
        sent = [mode != Mode.REFUSED for mode in decisions.mode.tolist()]
        if only is not None:
            sent = [s and name in only for s, name in zip(sent, frame.entities, strict=True)]
        return list(map(_record, made_of if all(sent) else compress(made_of, sent)))

    def _tails(self, frame: Frame, decisions: Decisions, decided_us: int) -> list[bytes]:
        """The JSON of each action from the end of its values on: each of few kinds encoded once."""
        tiers = ("", *self._spec.budget.tiers)
        until = frame.header.time_us + self._valid_us
        made: dict[tuple[int, int, int, int], bytes] = {}
        tails = []
        rows = zip(
            decisions.mode.tolist(),
            decisions.reasons.tolist(),
            decisions.iterations.tolist(),
            decisions.tier.tolist(),
            strict=True,
        )
        for row in rows:
            tail = made.get(row)
            if tail is None:
                mode, reasons, iterations, tier = row
                action = Action(
                    "",
                    "",
                    "",
                    0,
                    0,
                    {},
                    until,
                    mode,
                    reasons,
                    self._worker,
                    self._attempt,
                    tiers[tier + 1],
                    iterations,
                    decisions.bundle,
                    decided_us,
                )
                tail = made[row] = b"}" + encode(action).partition(b'"values":{}')[2]
            tails.append(tail)
        return tails

    def _envelopes(self, cohort: int, tick: int, entities: tuple[str, ...]) -> _Envelopes:
        found = self._expected.get(cohort)
        same = found is not None and found.fleet.entities == entities
        if found is not None and same and found.tick == tick:
            return found
        fleet = found.fleet if found is not None and same else self._fleet(entities)
        ids = [id_at(digest, tick).encode() for digest in fleet.digests]
        common = self._common
        headers: list[Headers] = [[*common, ("ce_id", identity)] for identity in ids]
        begun = [_ID + identity + head for identity, head in zip(ids, fleet.heads, strict=True)]
        return _Envelopes(tick, fleet, begun, headers)

    def _fleet(self, entities: tuple[str, ...]) -> _Fleet:
        system, nothing = self._spec.system, Values()
        blank = [Action("", system, e, 0, 0, nothing, 0, 0, 0) for e in entities]
        return _Fleet(
            entities,
            [entity.encode() for entity in entities],
            # As every client's murmur2 partitioner.
            [cohort_of(entity, self._partitions) for entity in entities],
            [id_of(system, entity) for entity in entities],
            [encode(action).partition(b'"tick":')[0][len(_ID) :] for action in blank],
        )
