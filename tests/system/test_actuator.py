"""The actuator on a real broker: usable in ten lines, restarts, holds without a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import streams.actuator
from infra.broker import Broker
from infra.kafka import KafkaSetupError
from schemas.codes import Status
from schemas.messages import Action, Applied, Control, encode
from schemas.system import SystemSpec, load_spec
from schemas.topics import Kind, topic
from streams.actuator import Actuator, wall_us
from streams.topic_io import make_producer, send
from tests.streams.specs import action, small_spec
from tests.support import unique
from tests.system.loop import make_topics, messages

pytestmark = pytest.mark.broker
Kafka = dict[str, str]


@pytest.fixture
def spec(kafka: Kafka) -> SystemSpec:
    made = small_spec(unique())
    make_topics(made, kafka)
    return made


def now_tick(spec: SystemSpec) -> int:
    return (wall_us() - spec.epoch_us) // spec.period_us


def publish(spec: SystemSpec, kafka: Kafka, *sent: Action | Control) -> None:
    producer = make_producer(kafka["bootstrap.servers"], kafka)
    for message in sent:
        kind: Kind = "actions" if isinstance(message, Action) else "control"
        key = message.entity if isinstance(message, Action) else message.key
        send(producer, topic(spec, kind), encode(message), key)
    assert producer.flush(10) == 0


def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within 30 s")


def until_counted(actuator: Actuator, name: str, count: int) -> None:
    def counted() -> bool:
        actuator.poll()
        return actuator.state.counts[name] >= count

    until(counted, f"{name} {count}")


def test_the_ten_lines_of_the_docstring_are_an_actuator(
    broker: Broker, kafka: Kafka, tmp_path: Path
) -> None:
    spec = load_spec("autoscale")
    make_topics(spec, kafka)
    _, _, text = (streams.actuator.__doc__ or "").partition("\n\n    ")
    script = tmp_path / "service.py"
    script.write_text(textwrap.dedent("    " + text))
    assert len([line for line in script.read_text().splitlines() if line.strip()]) <= 10
    root = str(Path(streams.actuator.__file__).parents[1])
    service = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "KAFKA": broker.bootstrap, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    tick = now_tick(spec)
    first = "service-00 runs on 7.0 replicas from now on"

    def answered() -> bool:  # it hears only what is sent after its start: send until it answers
        nonlocal tick
        tick += 1
        publish(spec, kafka, action(spec, "service-00", tick, 7.0, valid_us=10**12))
        return any(a.tick <= tick for a in messages(spec, kafka, "applied", Applied))

    try:
        until(answered, "an applied action")
        service.send_signal(signal.SIGTERM)
        output, _ = service.communicate(timeout=30)
    finally:
        service.kill()
    assert service.returncode == 0
    assert set(output.splitlines()) == {first}
    applied = messages(spec, kafka, "applied", Applied)
    assert {(a.status, a.values["replicas"]) for a in applied} == {(Status.APPLIED, 7.0)}


def test_repeats_are_ignored_also_by_a_restarted_actuator(spec: SystemSpec, kafka: Kafka) -> None:
    bootstrap = kafka["bootstrap.servers"]
    tick = now_tick(spec)
    done: list[tuple[str, float]] = []

    def apply(entity: str, values: dict[str, float]) -> None:
        done.append((entity, values["valve"]))

    first = action(spec, "a", tick, 0.5, 2, valid_us=10**9)
    again = action(spec, "a", tick, 0.9, 3, valid_us=10**9)
    for sent in ((first, again), (again, again, again)):
        with Actuator(spec, bootstrap, apply, entities=["a"]) as actuator:
            publish(spec, kafka, *sent)
            until_counted(actuator, "repeated", 1 if first in sent else 3)
            assert actuator.state.values.tolist() == [[0.5, 2.0]]
    assert done == [("a", 0.5)]
    reports = [a for a in messages(spec, kafka, "applied", Applied) if a.status == Status.APPLIED]
    assert [(a.id, a.values) for a in reports] == [(first.id, {"valve": 0.5, "pumps": 2.0})]


def test_stopping_needs_no_worker(spec: SystemSpec, kafka: Kafka) -> None:
    bootstrap = kafka["bootstrap.servers"]
    with Actuator(spec, bootstrap, entities=["a", "b"]) as actuator:
        tick = now_tick(spec)
        sent = [action(spec, e, tick, 0.5, 2, valid_us=10**9) for e in ("a", "b")]
        publish(spec, kafka, *sent)
        until_counted(actuator, "applied", 2)
        publish(spec, kafka, Control("hold", 0, "a"))
        until(lambda: (actuator.poll(), actuator.state.held("a"))[1], "the hold")
        assert actuator.state.values.tolist() == [[0.25, 2.0], [0.5, 2.0]]
    with Actuator(spec, bootstrap, entities=["a", "b"]) as later:
        assert (later.state.held("a"), later.state.held("b")) == (True, False)


def test_an_operators_hold_counts_at_once_in_a_simulation_of_the_past(
    spec: SystemSpec, kafka: Kafka
) -> None:
    bootstrap, period = kafka["bootstrap.servers"], spec.period_us
    with Actuator(spec, bootstrap, entities=["a"], clock=lambda: 100 * period) as actuator:
        publish(spec, kafka, Control("hold", 10**18, "a"), Control("hold", wall_us()))
        until(lambda: (actuator.poll(), "*" in actuator.state.holds)[1], "the hold of all")
        assert actuator.state.holds == {"*"}, "the other one is for later"
    held = [a for a in messages(spec, kafka, "applied", Applied) if a.entity == "a"]
    assert [(a.tick, a.status) for a in held] == [(100, Status.LOCAL_FALLBACK)]


def test_silence_is_answered_by_the_local_fallback(spec: SystemSpec, kafka: Kafka) -> None:
    now = 100 * spec.period_us  # a clock that stands still until it is moved
    bootstrap = kafka["bootstrap.servers"]
    with Actuator(spec, bootstrap, entities=["a"], clock=lambda: now) as actuator:
        publish(spec, kafka, action(spec, "a", 100, 0.5, 2, valid_us=1_200_000))
        until_counted(actuator, "applied", 1)
        assert actuator.state.counts["local_fallback"] == 0
        now += 1_200_001
        until_counted(actuator, "local_fallback", 1)
        assert actuator.state.values.tolist() == [[0.25, 2.0]]
    last = messages(spec, kafka, "applied", Applied)[-1]
    assert (last.tick, last.status) == (101, Status.LOCAL_FALLBACK)
    assert last.values == {"valve": 0.25, "pumps": 2.0}


def test_unreadable_actions_are_counted_and_survived(spec: SystemSpec, kafka: Kafka) -> None:
    producer = make_producer(kafka["bootstrap.servers"], kafka)
    good = encode(action(spec, "a", now_tick(spec), 0.5, 2, valid_us=10**9))
    deep = b'{"id":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    wrong = [
        b"",
        b"{",
        b"[]",
        b'{"id": 3}',
        b"\xff\xfe",
        b'{"id": "\xff"}',
        deep,
        good.replace(b'"tick":', b'"tock":'),
    ]
    with Actuator(spec, kafka["bootstrap.servers"], entities=["a"]) as actuator:
        for value in (*wrong, good):
            send(producer, topic(spec, "actions"), value, "a")
        producer.flush(10)
        until_counted(actuator, "applied", 1)
        assert actuator.state.counts["malformed"] == len(wrong) - 1  # an empty one is a tombstone
    for value in wrong:
        send(producer, topic(spec, "applied"), value, "a")
    producer.flush(10)
    with Actuator(spec, kafka["bootstrap.servers"], entities=["a"]) as restored:
        assert restored.state.values.tolist() == [[0.5, 2.0]]


def test_missing_topics_are_named_with_the_remedy(kafka: Kafka) -> None:
    with pytest.raises(KafkaSetupError, match=r"actions.*rehearse topics create"):
        Actuator(small_spec(unique()), kafka["bootstrap.servers"])
