"""The life of a real broker: started, reused, killed, damaged, stopped. One home for the module."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from infra import broker
from infra.broker import Broker, BrokerError
from infra.home import home_folder
from infra.kafka import client_config, ensure_topics
from tests.support import unique
from tests.system.processes import until

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("a home, with a comma")
    yield folder
    broker.stop(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def running(home: Path) -> Broker:
    return broker.start(home)


def produce(to: Broker, topic: str, values: list[bytes]) -> None:
    producer = Producer({**client_config(to.bootstrap), "acks": "all"})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(20) == 0


def consume(source: Broker, topic: str, count: int) -> list[bytes | None]:
    settings = {"group.id": unique(), "auto.offset.reset": "earliest"}
    consumer = Consumer({**client_config(source.bootstrap), **settings})
    try:
        # A broker that has just started may not know its topics for a moment, and a consumer that
        # was told so looks again after minutes.
        until(lambda: consumer.list_topics(topic, 10).topics[topic].error is None, "the topic")
        consumer.subscribe([topic])
        return [message.value() for message in consumer.consume(count, timeout=20)]
    finally:
        consumer.close()


def holding(port: int) -> socket.socket:
    """A listener that holds a port."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", port))
    holder.listen()
    return holder


def test_a_home_without_a_broker(tmp_path: Path) -> None:
    assert broker.status(tmp_path) is None
    assert broker.stop(tmp_path) is False
    assert list(tmp_path.iterdir()) == []


def test_two_starts_at_once_give_the_same_broker(home: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(broker.start, [home, home])
    assert first == second == broker.status(home)
    assert os.getpgid(first.pid) == first.pid  # Ctrl-C in our terminal does not reach it
    assert broker.start(home) == first


def test_who_comes_through_a_proxy_is_told_the_proxys_address_after_a_restart_too(
    tmp_path: Path,
) -> None:
    home = tmp_path / "proxied"
    plain = broker.start(home)
    try:
        assert plain.proxy is None
        found = broker.start(home, proxied=True)
        assert found.pid != plain.pid
        assert broker.start(home, proxied=True) == found
        for running in (found, _restarted(home)):
            assert running.proxy is not None
            listens, leads = running.proxy
            assert told(f"127.0.0.1:{leads}") == f"127.0.0.1:{listens}"
            assert told(running.bootstrap) == running.bootstrap
    finally:
        broker.stop(home)


def _restarted(home: Path) -> Broker:
    broker.stop(home)
    return broker.start(home)


def told(bootstrap: str) -> str:
    """Where the one broker is, as whoever asks at `bootstrap` is told."""
    found = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).brokers
    (known,) = found.values()
    return f"{known.host}:{known.port}"


def test_what_is_produced_is_consumed(running: Broker) -> None:
    ensure_topics(client_config(running.bootstrap), [("life", 1, {})])
    produce(running, "life", [b"1", b"2", b"3"])
    assert consume(running, "life", 3) == [b"1", b"2", b"3"]


def test_a_missing_topic_is_not_made_by_accident(running: Broker) -> None:
    failed = []
    producer = Producer({**client_config(running.bootstrap), "message.timeout.ms": "2000"})
    producer.produce("nobody-made-this", b"", on_delivery=lambda error, _: failed.append(error))
    producer.flush(20)
    assert len(failed) == 1
    assert failed[0] is not None


@pytest.mark.parametrize(
    "content",
    ["", "not a number", str(os.getpid()), "999999999"],
    ids=["nothing", "no number", "a living process", "a dead one"],
)
def test_a_lost_or_foreign_pid_file_does_not_hide_the_broker(
    running: Broker, home: Path, content: str
) -> None:
    file = home / "broker" / "pid"
    file.write_text(content) if content else file.unlink()
    assert broker.status(home) == running
    assert broker.start(home) == running


def test_a_foreign_process_is_never_taken_for_the_broker(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "server.properties").write_text("listeners=PLAINTEXT://127.0.0.1:20000,X\n")
    assert broker.status(tmp_path) is None
    assert broker.stop(tmp_path) is False  # and we are still here


def test_after_sigkill_it_comes_back_with_its_port_and_data(running: Broker, home: Path) -> None:
    ensure_topics(client_config(running.bootstrap), [("kept", 1, {})])
    produce(running, "kept", [b"before"])
    os.kill(running.pid, signal.SIGKILL)
    again = broker.start(home)
    assert again.pid != running.pid
    assert again.bootstrap == running.bootstrap
    produce(again, "kept", [b"after"])
    assert consume(again, "kept", 2) == [b"before", b"after"]


def test_stop_ends_it_and_a_taken_port_is_avoided(running: Broker, home: Path) -> None:
    assert broker.stop(home) is True
    assert not psutil.pid_exists(running.pid)
    assert broker.status(home) is None
    assert broker.stop(home) is False
    port = int(running.bootstrap.rpartition(":")[2])
    with holding(port):
        elsewhere = broker.start(home)
    assert elsewhere.bootstrap != running.bootstrap
    assert consume(elsewhere, "kept", 2) == [b"before", b"after"]


def test_java_that_dies_at_start_is_explained(home: Path) -> None:
    broker.stop(home)
    identity = home / "broker" / "data" / "meta.properties"
    whole = identity.read_text()
    identity.write_text(whole.replace("node.id=1", "node.id=7"))
    with pytest.raises(BrokerError) as caught:
        broker.start(home)
    identity.write_text(whole)
    assert "Stored node id 7" in str(caught.value)  # from the broker's own log
    assert f"remove {home / 'broker' / 'data'}" in str(caught.value)
    assert broker.status(home) is None


def test_a_half_made_data_folder_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "broker" / "data.new").mkdir(parents=True)
    (tmp_path / "broker" / "data.new" / "meta.properties").write_text("node")
    (tmp_path / "broker" / "server.properties").write_text("listen")
    try:
        assert broker.start(tmp_path).home == tmp_path
    finally:
        assert broker.stop(tmp_path)


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError, match="REHEARSE_HOME"):
        broker.start(tmp_path / "file")


def test_the_home_is_chosen_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REHEARSE_HOME", raising=False)
    assert home_folder() == tmp_path / ".rehearse"
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path / "x"))
    assert home_folder() == tmp_path / "x"


def test_a_broker_that_hangs_is_ended_and_started_again(
    running: Broker, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setattr(broker, "STOP_TIMEOUT_S", 0.5)
    os.kill(running.pid, signal.SIGSTOP)
    lines: list[str] = []
    again = broker.start(home, progress=lines.append)
    assert "does not answer" in lines[0]
    assert again.pid != running.pid
    assert again.bootstrap == running.bootstrap
