"""The operator's word on `S.control`: hold, resume, override, rearm, release; and what stands."""

import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from confluent_kafka import Producer

from infra.kafka import KafkaSetupError, client_config
from schemas.frames import FrameError, decode_frame
from schemas.messages import Control, decode, encode
from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, topic
from streams.topic_io import read_to_end

TIMEOUT_S = 10.0
Extra = Mapping[str, str]


def say(
    spec: SystemSpec, controls: Control | Sequence[Control], bootstrap: str, extra: Extra
) -> None:
    """Write control records and wait until the broker has them. Raises `KafkaSetupError`."""
    producer = Producer({**client_config(bootstrap, extra), "enable.idempotence": True})
    problems: list[str] = []

    def report(error: object, _: object) -> None:
        if error is not None:
            problems.append(str(error))

    name = topic(spec, "control")
    for control in [controls] if isinstance(controls, Control) else controls:
        producer.produce(name, encode(control), control.key.encode(), on_delivery=report)
    if producer.flush(TIMEOUT_S) or problems:
        why = problems[0] if problems else f"no answer within {TIMEOUT_S:g} s"
        raise KafkaSetupError(f"{name}: {why}. Is the broker up, and was the topic created?")


def standing(spec: SystemSpec, bootstrap: str, extra: Extra) -> dict[str, Control]:
    """The last control record of each key. Raises `KafkaSetupError`."""
    found = {}
    for message in read_to_end(bootstrap, extra, topic(spec, "control")):
        try:
            control = decode(Control, message.value() or b"")
        except msgspec.MsgspecError:  # a tombstone, or somebody else's
            continue
        found[control.key] = control
    return found


def held(controls: Mapping[str, Control]) -> list[str]:
    """Entities that are held, or `*`, whatever the time from which that counts."""
    return sorted(control.entity for control in controls.values() if control.kind == "hold")


def overridden(controls: Mapping[str, Control]) -> list[str]:
    """Entities, or `*`, whose action an operator sets by hand."""
    return sorted(c.entity for c in controls.values() if c.kind == "override" and c.values)


def entities_seen(spec: SystemSpec, bootstrap: str, extra: Extra) -> set[str]:
    """The entities in the newest frame of each cohort; empty where there is none yet."""
    shared = -(-spec.cohorts // cohort_partitions(spec))
    seen: set[str] = set()
    for message in read_to_end(bootstrap, extra, topic(spec, "frames"), newest=shared):
        try:
            seen.update(decode_frame(spec, message.value() or b"").entities)
        except FrameError:  # of another spec
            continue
    return seen


def unknown(names: Iterable[str], seen: set[str]) -> list[str]:
    """Those of `names` that are in no frame, where there are frames at all."""
    return sorted(set(names) - seen) if seen else []


def now_us() -> int:
    """The wall clock in microseconds: a control record counts from now on."""
    return time.time_ns() // 1_000
