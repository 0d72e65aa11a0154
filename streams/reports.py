"""Whether actuators heard an operator: their reports on `S.applied` from a moment on."""

import time
from collections.abc import Mapping

import msgspec

from schemas.messages import Applied, decode
from schemas.system import SystemSpec
from schemas.topics import topic
from streams.topic_io import ends, make_consumer

LEAST_S, MOST_S = 3.0, 60.0


def patience_s(spec: SystemSpec) -> float:
    """Seconds after which a running plant has reported: two ticks and a little more."""
    return min(MOST_S, LEAST_S + 2e-6 * spec.period_us)


class Reports:
    """The reports that come after this was made. Raises `KafkaSetupError` as `ends` does."""

    def __init__(
        self, spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None = None
    ) -> None:
        self._consumer = make_consumer(bootstrap, extra)
        self._consumer.assign(ends(self._consumer, topic(spec, "applied")))

    def silent(self, entities: set[str], seconds: float) -> set[str]:
        """Those of `entities` that nobody reports within `seconds`; `*` is whoever reports."""
        left, limit = set(entities), time.monotonic() + seconds
        try:
            while left and time.monotonic() < limit:
                for message in self._consumer.consume(1_000, 0.1):
                    if message.error() is None:
                        left -= _who(message.value() or b"")
        finally:
            self._consumer.close()
        return left


def _who(value: bytes) -> set[str]:
    try:
        return {decode(Applied, value).entity, "*"}
    except msgspec.MsgspecError:  # a watermark
        return set()
