"""A frame's actions as records, most of which is made before anybody waits for it."""

from typing import NamedTuple

from schemas.codes import Mode
from schemas.frames import Frame
from schemas.messages import Action, action_id, cloudevents_headers, encode_all
from schemas.system import SystemSpec
from schemas.topics import cohort_of, topic, topics_of
from schemas.trajectories import Decisions
from streams.publish import Headers, Record

VALID_TICKS = 2  # one lost frame does not send an actuator to its local fallback


class _Envelope(NamedTuple):
    """What is known of an action as soon as its entity and tick are."""

    id: str
    entity: str
    key: bytes
    partition: int
    headers: Headers


class ActionRecords:
    """Makes the records of `S.actions`.

    Ids are digests and headers are lists: half of the work. `expect` does it for the next tick when
    the answers of this one are out.

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
        self._expected: dict[int, tuple[int, tuple[str, ...], list[_Envelope]]] = {}

    def expect(self, cohort: int, tick: int, entities: tuple[str, ...]) -> None:
        """Prepares for the actions of a cohort at `tick`, should its `entities` be these then."""
        self._expected[cohort] = (tick, entities, [self._envelope(e, tick) for e in entities])

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
        actions, envelopes = [], []
        names, bundle = self._spec.action_columns, decisions.bundle
        time_us, until = frame.header.time_us, frame.header.time_us + self._valid_us
        tiers = ("", *self._spec.budget.tiers)
        rows = zip(
            self._envelopes(frame),
            decisions.action.tolist(),
            decisions.mode.tolist(),
            decisions.reasons.tolist(),
            decisions.iterations.tolist(),
            decisions.tier.tolist(),
            strict=True,
        )
        for envelope, values, mode, reasons, iterations, tier in rows:
            if mode == Mode.REFUSED or (only is not None and envelope.entity not in only):
                continue
            envelopes.append(envelope)
            actions.append(
                Action(
                    envelope.id,
                    self._spec.system,
                    envelope.entity,
                    frame.tick,
                    time_us,
                    dict(zip(names, values, strict=True)),
                    until,
                    mode,
                    reasons,
                    self._worker,
                    self._attempt,
                    tiers[tier + 1],
                    iterations,
                    bundle,
                    decided_us,
                )
            )
        name = self._topic
        return [
            Record(name, envelope.partition, value, envelope.key, envelope.headers)
            for envelope, value in zip(envelopes, encode_all(actions), strict=True)
        ]

    def _envelopes(self, frame: Frame) -> list[_Envelope]:
        tick, entities, made = self._expected.get(frame.cohort, (None, (), []))
        if tick == frame.tick and entities == frame.entities:
            return made
        return [self._envelope(entity, frame.tick) for entity in frame.entities]

    def _envelope(self, entity: str, tick: int) -> _Envelope:
        identity = action_id(self._spec.system, entity, tick)
        partition = cohort_of(entity, self._partitions)  # as every client's murmur2 partitioner
        headers: Headers = [*self._common, ("ce_id", identity.encode())]
        return _Envelope(identity, entity, entity.encode(), partition, headers)
