"""The JSON messages of a system's topics, validated as they are decoded (msgspec)."""

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeVar

import msgspec

from schemas.codes import Mode, Status

Values = dict[str, float]
ALL: str = "*"  # stands for every entity in holds


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A JSON message of a topic."""


class Action(Message, frozen=True, omit_defaults=False):
    """What one entity shall do from `time` on: one value per flat action column, in its unit."""

    id: str
    system: str
    entity: str
    tick: int
    time: int  # tick time, us
    values: Values
    valid_until: int  # us; after it the actuator applies its local fallback
    mode: int  # schemas.codes.Mode
    reasons: int  # schemas.codes.Reason
    worker: str = ""
    attempt: int = 0
    tier: str = ""
    iterations: int = 0
    bundle: str = ""
    decided: int = 0  # us, wall clock, for latency only; never read by the loop

    @property
    def mode_name(self) -> str:
        """Who decided, in words."""
        return Mode(self.mode).name.lower()


class Applied(Message, frozen=True, omit_defaults=False):
    """What an actuator did about an action: which value is in force since `time`, and why."""

    id: str
    entity: str
    tick: int
    values: Values
    status: int  # schemas.codes.Status
    time: int  # us

    @property
    def status_name(self) -> str:
        """What became of the action, in words."""
        return Status(self.status).name.lower()


class Outcome(Message, frozen=True):
    """A label from the plant or a person: reward, cost, failure, near miss, intervention, end."""

    entity: str
    tick: int
    time: int  # us
    values: Values
    kind: str = "tick"


class DeadLetter(Message, frozen=True):
    """What could not be used: its bytes (base64), where it came from, and why.

    `end`: of a letter that stands for several records, the offset after the last one of them.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    key: str | None = None
    value: str | None = None  # base64
    time: int = 0
    end: int | None = None

    @classmethod
    def of(
        cls,
        source: tuple[str, int, int],
        reason: str,
        detail: str,
        key: bytes | None,
        value: bytes | None,
        time: int = 0,
    ) -> "DeadLetter":
        """A dead letter of the record at `source` = (topic, partition, offset)."""
        packed = None if value is None else base64.b64encode(value[:65_536]).decode()
        name = None if key is None else key[:1_024].decode(errors="replace")
        return cls(*source, reason, detail, name, packed, time)


ControlKind = Literal["release", "hold", "resume", "override", "rearm", "budget", "align"]


class Control(Message, frozen=True):
    """An operator's word, kept by key (`control_key`): the last record of a key is in force.

    hold / resume: entity or "*"; override: entity and `values`; rearm: entity or "*", and when it
    was `said`, which is later than the last time; release: `bundle` digest; budget: `tier` name,
    the deepest one allowed. `time` is the event time from which it counts; 0: from the next tick
    on, whatever the clock.

    align: an aligner's word to the others. From here on `by` makes the frames, with this `epoch`,
    of the cohorts that `entity` names: "*", or "K/N" for the share K of N.
    """

    kind: ControlKind
    time: int  # us
    entity: str = ALL
    values: Values | None = None
    bundle: str | None = None
    tier: str | None = None
    by: str = ""
    epoch: int | None = None
    said: int = 0  # us, wall clock: it tells one word from the next, and is no time of the system

    @property
    def key(self) -> str:
        """The compaction key: a hold and its resume share one, so that the last one counts."""
        kind = "hold" if self.kind == "resume" else self.kind
        return f"{kind}/{self.entity}"


class Watermark(Message, frozen=True):
    """A producer's promise: nothing earlier than `watermark` (us) follows on this topic."""

    watermark: int


WATERMARK_HEADER = "rehearse-watermark"
MOST_BYTES = 4 << 20  # of a message; a dead letter holds another one in base64
EPOCH_HEADER = "rehearse-epoch"

M = TypeVar("M", bound=Message)
_encoder = msgspec.json.Encoder()


def encode(message: Message) -> bytes:
    """The JSON bytes of a message."""
    return _encoder.encode(message)


def encode_list(values: Sequence[float] | Sequence[str]) -> bytes:
    """The JSON array of plain values, each as it stands in a message: NaN is null."""
    return _encoder.encode(values)


def decode(kind: type[M], data: bytes) -> M:
    """The message in `data`; `msgspec.DecodeError` says what is wrong, or which field is."""
    if len(data) > MOST_BYTES:
        raise msgspec.DecodeError(f"{len(data)} bytes, where {MOST_BYTES} are allowed")
    try:
        found: M = _decoder(kind).decode(data)
    except (UnicodeDecodeError, RecursionError) as error:  # bad UTF-8 inside; nested deeply
        raise msgspec.DecodeError(str(error)) from error
    return found


@lru_cache(maxsize=16)
def _decoder(kind: type[M]) -> msgspec.json.Decoder[M]:
    return msgspec.json.Decoder(kind)


def action_id(system: str, entity: str, tick: int) -> str:
    """The id under which exactly one action of an entity at a tick is applied (16 hex digits)."""
    return id_at(id_of(system, entity), tick)


def id_of(system: str, entity: str) -> hashlib.blake2b:
    """What the ids of an entity's actions begin with, for `id_at`; it stays as it is."""
    return hashlib.blake2b(f"{system}\0{entity}\0".encode(), digest_size=8)


def id_at(begun: hashlib.blake2b, tick: int) -> str:
    """`action_id` at `tick` of the entity in `begun`."""
    digest = begun.copy()
    digest.update(b"%d" % tick)
    return digest.hexdigest()


def cloudevents_headers(system: str, kind: str, identity: str) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 attributes in Kafka's binary content mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", identity.encode()),
        ("ce_source", f"/rehearse/{system}".encode()),
        ("ce_type", f"rehearse.{kind}".encode()),
        ("content-type", b"application/json"),
    ]
