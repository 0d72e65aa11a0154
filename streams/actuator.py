"""The client at the plant's side: actions in, what was really done out, safe when nobody speaks.

Usable alone, in any Python service; it needs no worker to stop or to fall back:

    import os
    from streams.actuator import Actuator

    def apply(service: str, values: dict[str, float]) -> None:
        print(service, "runs on", values["replicas"], "replicas from now on", flush=True)

    with Actuator("autoscale", os.environ["KAFKA"], apply) as actuator:
        actuator.run()  # until SIGINT, SIGTERM or actuator.stop()
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from confluent_kafka import Message, Producer

from infra.log import Log
from schemas.codes import Status
from schemas.messages import Action, Applied, Control, decode, encode
from schemas.system import SystemSpec, load_spec
from schemas.topics import topic
from streams.actuator_state import ActuatorState, Report
from streams.topic_io import TIMEOUT_S, ends, make_consumer, make_producer, raise_fatal, read_to_end
from streams.topic_io import send as send_one

Apply = Callable[[str, dict[str, float]], None]
Clock = Callable[[], int]
_BATCH: Final = 1_000
_RESTORED: Final = 2_000  # reports per partition that a restarted actuator reads back

_log = Log("actuator")


def wall_us() -> int:
    """Microseconds since 1970 UTC on this machine's clock."""
    return time.time_ns() // 1_000


class Actuator:
    """Applies the actions of a system's entities and reports to `S.applied` what it did.

    Args:
        spec: a spec, the path of one, or the name of a shipped one.
        bootstrap: Kafka's address; `extra` are further librdkafka settings (TLS, SASL).
        apply: called with entity and values (per action column) whenever values go into force.
        entities: those served here; None: all that actions name.
        clock: the run's clock in us; None: the machine's. Under another clock than the machine's
            nothing is restored from an earlier run.
        silence: whether the local fallback acts by itself when `valid_until` has run out; a plant
            in lockstep calls `give_up` instead.
        start_us: when actions are first expected, on the run's clock; now by default.
        producer: shares another's producer, so that reports and readings stay in order.

    Raises:
        KafkaSetupError: the topics are not there, or no broker answers.
    """

    def __init__(
        self,
        spec: SystemSpec | str | Path,
        bootstrap: str,
        apply: Apply | None = None,
        extra: Mapping[str, str] | None = None,
        *,
        entities: Iterable[str] | None = None,
        clock: Clock | None = None,
        silence: bool = True,
        start_us: int | None = None,
        producer: Producer | None = None,
    ) -> None:
        self.spec = spec if isinstance(spec, SystemSpec) else load_spec(spec)
        self.clock: Clock = clock or wall_us
        begin = self.clock() if start_us is None else start_us
        self.state = ActuatorState(self.spec, entities, start_us=begin)
        self._apply, self._silence = apply, silence
        self._stopping = threading.Event()
        self._actions = topic(self.spec, "actions")
        self._control = topic(self.spec, "control")
        self._applied = topic(self.spec, "applied")
        self._consumer = make_consumer(bootstrap, extra)
        self._own = make_producer(bootstrap, extra) if producer is None else None
        self._producer = producer or self._own
        try:
            self._start(bootstrap, extra, restore=clock is None)
        except BaseException:
            self.close()
            raise

    # the three verbs

    def poll(self, timeout: float = 0.1) -> list[Report]:
        """Waits up to `timeout` seconds for actions and does all that is due. Returns the reports.

        Returns as soon as something arrived: call it again.
        """
        now = self.clock()
        reports = self.state.due(now) if self._silence else self.state.obey(now)
        first = self._consumer.poll(0.0 if reports else max(timeout, 0.0))
        if first is not None:
            messages = [first, *self._consumer.consume(_BATCH, 0.0)]
            arrived_ns = time.time_ns()
            for message in messages:
                reports += self._take(message, arrived_ns)
        return self._publish(reports)

    def run(self) -> None:
        """Polls until `stop`, SIGINT or SIGTERM; the signals only in the main thread."""
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if main else ()
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in signals}
        try:
            while not self._stopping.is_set():
                self.poll(0.1)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def give_up(self, tick: int) -> list[Report]:
        """Local fallback for every entity without an answer for `tick`, which is then closed."""
        return self._publish(self.state.give_up(tick, self.clock()))

    def stop(self) -> None:
        """Ends `run` soon; from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Sends what is unsent (10 s at most) and leaves."""
        self._consumer.close()
        if self._own is not None:
            self._own.flush(TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # messages

    def _take(self, message: Message, arrived_ns: int = 0) -> list[Report]:
        if (error := message.error()) is not None:
            _log.warning("kafka", detail=raise_fatal(error))
            return []
        try:
            value = message.value() or b""
            if message.topic() == self._actions:
                action = decode(Action, value)
                report = self.state.offer(action, self.clock(), arrived_ns)
                return [] if report is None else [report]
            return self._obey(decode(Control, value))
        except msgspec.DecodeError as error:
            if value:  # an empty value is a tombstone of the compacted control topic
                self.state.counts["malformed"] += 1
                _log.warning("unreadable", topic=message.topic(), detail=str(error))
            return []

    def _obey(self, control: Control) -> list[Report]:
        """At once, when its time has come on the run's clock or on an operator's watch."""
        now = self.clock()
        if control.time <= wall_us():
            control = msgspec.structs.replace(control, time=min(control.time, now))
        return self.state.control(control, now)

    def _publish(self, reports: list[Report]) -> list[Report]:
        assert self._producer is not None
        for report in reports:
            applied = report.applied
            if self._apply is not None and (report.changed or applied.status == Status.APPLIED):
                self._apply(applied.entity, applied.values)
            send_one(self._producer, self._applied, encode(applied), applied.entity)
        self._producer.poll(0)
        return reports

    # the start

    def _start(self, bootstrap: str, extra: Mapping[str, str] | None, restore: bool) -> None:
        """Obeys what the control topic says, then listens from the end of the actions."""
        live = [*ends(self._consumer, self._actions), *ends(self._consumer, self._control)]
        if restore:
            for message in read_to_end(bootstrap, extra, self._applied, _RESTORED):
                self._take_over(message)
        reports = []
        for message in read_to_end(bootstrap, extra, self._control):
            reports += self._take(message)
        self._consumer.assign(live)
        self._publish(reports)

    def _take_over(self, message: Message) -> None:
        try:
            self.state.restore(decode(Applied, message.value() or b""))
        except msgspec.DecodeError:  # a watermark, or a report of another version
            return
