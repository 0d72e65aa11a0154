"""The operator's word on `S.control`: hold, resume, override, release, budget."""

import time
from collections.abc import Mapping

from confluent_kafka import Producer

from infra.kafka import KafkaSetupError, client_config
from schemas.messages import Control, encode
from schemas.system import SystemSpec
from schemas.topics import topic

TIMEOUT_S = 10.0


def say(spec: SystemSpec, control: Control, bootstrap: str, extra: Mapping[str, str]) -> None:
    """Write one control record and wait until the broker has it. Raises `KafkaSetupError`."""
    producer = Producer({**client_config(bootstrap, extra), "enable.idempotence": True})
    problems: list[str] = []

    def report(error: object, _: object) -> None:
        if error is not None:
            problems.append(str(error))

    name = topic(spec, "control")
    producer.produce(name, encode(control), control.key.encode(), on_delivery=report)
    if producer.flush(TIMEOUT_S) or problems:
        why = problems[0] if problems else f"no answer within {TIMEOUT_S:g} s"
        raise KafkaSetupError(f"{name}: {why}. Is the broker up, and was the topic created?")


def now_us() -> int:
    """The wall clock in microseconds: a control record counts from now on."""
    return time.time_ns() // 1_000
