"""The secured broker: who is let in, what each role may not do, and the whole loop on it."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from infra import broker as embedded
from infra.broker import Broker, BrokerError, secret_folder
from infra.kafka import KafkaSetupError, delete_topics, ensure_topics, wait_ready
from infra.rights import grant
from infra.secure import settings_file
from schemas.roles import RIGHTS, ROLES, Grant, Role
from schemas.system import SystemSpec, parse_spec
from schemas.topics import TABLE, topics_of, worker_group
from streams.make_topics import make_topics, remove_topics
from streams.supervise import Supervisor, environment
from tests.streams.specs import small_spec
from tests.support import unique
from tests.system.processes import Loop, until, until_decided

pytestmark = [pytest.mark.broker, pytest.mark.system]
ROBOTS, TICKS = 4, 12
REFUSED = KafkaError.TOPIC_AUTHORIZATION_FAILED
SIGHT = Path(__file__).parents[2] / "streams/examples/sight.yaml"
NARROW = [role for role in ROLES if role != "admin"]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that lets nobody in without TLS and a password."""
    home = tmp_path_factory.mktemp("a secured home")
    yield embedded.start(home, secured=True)
    embedded.stop(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def spec(secured: Broker) -> SystemSpec:
    """A system whose topics are there, with the rights of each role."""
    text = SIGHT.read_text().replace("system: sight", f"system: {unique()}")
    made = parse_spec(text, str(SIGHT))
    assert {t.kind for t in topics_of(made)} == set(TABLE)
    make_topics(made, secured.bootstrap, secured.settings())
    return made


def rehearse(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    command = [sys.executable, "-m", "streams.cli", *arguments]
    own = {} if home is None else {"REHEARSE_HOME": str(home)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment() | own, timeout=250, check=False
    )


def file_of(secured: Broker, role: Role) -> tuple[str, str]:
    """The options that are printed for a role."""
    return "-X", f"@{settings_file(secret_folder(secured.home), role)}"


def refused_writes(config: dict[str, str], topics: dict[str, str]) -> set[str]:
    """Those of `topics` (name → what it is called here) that cannot be written."""
    problems: dict[str, KafkaError | None] = {}

    def report(error: KafkaError | None, message: Message) -> None:
        problems[message.topic() or ""] = error

    producer = Producer({"log_level": "0", **config})
    for name in topics:
        producer.produce(name, b"?", b"key", partition=0, on_delivery=report)
    assert producer.flush(30) == 0
    refused = {name: error for name, error in problems.items() if error is not None}
    assert {error.code() for error in refused.values()} <= {REFUSED}
    return {topics[name] for name in refused}


def refused_reads(config: dict[str, str], topics: dict[str, str]) -> set[str]:
    """Those of `topics` that cannot be read."""
    settings = {"group.id": "rehearse", "log_level": "0", "enable.partition.eof": "true"}
    consumer = Consumer({**settings, "enable.auto.commit": "false", **config})
    heard: dict[str, bool] = {}
    try:
        for name in topics:  # who may not even look hears nothing more
            error = consumer.list_topics(name, 30).topics[name].error
            assert error is None or error.code() == REFUSED
            heard |= {name: True} if error else {}
        consumer.assign([TopicPartition(name, 0, 0) for name in topics if name not in heard])
        while len(heard) < len(topics):
            message = consumer.poll(30)
            assert message is not None, f"no answer about {topics.keys() - heard.keys()}"
            error = message.error()
            assert error is None or error.code() in (REFUSED, KafkaError._PARTITION_EOF)
            heard[message.topic() or ""] = error is not None and error.code() == REFUSED
    finally:
        consumer.close()
    return {topics[name] for name, is_refused in heard.items() if is_refused}


def kinds_of(spec: SystemSpec) -> dict[str, str]:
    """One topic of each kind."""
    return {t.name: t.kind for t in reversed(topics_of(spec))}


def every(spec: SystemSpec) -> set[str]:
    """All kinds of topics that a system has."""
    return set(kinds_of(spec).values())


# who is let in


def test_passwords_lie_in_files_that_only_their_user_reads(secured: Broker) -> None:
    folder = secret_folder(secured.home)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {f"{role}.properties" for role in ROLES}
    for path in [*files, folder.parent / "server.properties"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    passwords = {secured.settings(role)["sasl.password"] for role in ROLES}
    assert len(passwords) == len(ROLES)
    assert not any(word in secured.log.read_text() for word in passwords)


def test_the_commands_name_each_roles_file(secured: Broker) -> None:
    told = rehearse("broker", "start", "--json", home=secured.home)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert (found["bootstrap"], found["secured"]) == (secured.bootstrap, True)
    assert set(found["settings"]) == set(ROLES)
    assert all(Path(path).is_file() for path in found["settings"].values())
    with pytest.raises(BrokerError, match="is secured: stop it first"):
        embedded.start(secured.home, secured=False)


@pytest.mark.parametrize("command", [("topics", "create"), ("worker",)])
def test_a_wrong_password_is_said_at_once(
    secured: Broker, tmp_path: Path, command: tuple[str, ...]
) -> None:
    extra = {**secured.settings("worker"), "sasl.password": "wrong"}
    loop = Loop(tmp_path, secured.bootstrap, "event", extra)
    ended = rehearse(*command, str(loop.spec_file), *loop.broker)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "does not let us in" in ended.stderr
    assert "invalid credentials" in ended.stderr
    assert "-X" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_broker_that_no_trusted_authority_vouches_for_is_refused(
    secured: Broker, tmp_path: Path
) -> None:
    extra = {k: v for k, v in secured.settings("worker").items() if k != "ssl.ca.location"}
    loop = Loop(tmp_path, secured.bootstrap, "event", extra)
    ended = rehearse("worker", str(loop.spec_file), *loop.broker)
    assert ended.returncode == 2
    assert "certificate verify failed" in ended.stderr
    assert "ssl.ca.location" in ended.stderr


@pytest.mark.parametrize("after", [0, 1])
def test_nobody_gets_in_without_a_certificate_of_its_authority(secured: Broker, after: int) -> None:
    """Neither at the broker's door nor at its controller's, which has no passwords."""
    context = ssl.create_default_context(cafile=secured.settings()["ssl.ca.location"])
    port = int(secured.bootstrap.rpartition(":")[2]) + after
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        tls = context.wrap_socket(plain, server_hostname="127.0.0.1")
        with pytest.raises(ssl.SSLError, match="certificate"):
            tls.recv(1)  # the refusal comes behind the handshake


def test_both_clients_are_let_in(secured: Broker) -> None:
    told = rehearse("doctor", home=secured.home).stdout
    assert f"{secured.bootstrap}: 1 broker, answers" in told  # to librdkafka
    assert "Kafka 4.0 or later" in told  # to aiokafka


# what each role may not do


@pytest.mark.parametrize("role", NARROW)
def test_a_role_writes_and_reads_only_what_the_table_gives_it(
    secured: Broker, spec: SystemSpec, role: Role
) -> None:
    config, kinds = secured.config(role), kinds_of(spec)
    assert refused_writes(config, kinds) == every(spec) - set(RIGHTS[role].writes)
    assert refused_reads(config, kinds) == every(spec) - set(RIGHTS[role].reads)


def test_another_systems_topics_are_out_of_reach(secured: Broker) -> None:
    """A topic whose name begins with a system's name is not the system's."""
    ours = small_spec(system=unique())
    theirs = small_spec(system=f"{ours.system}-2")
    make_topics(ours, secured.bootstrap, secured.settings())
    config = secured.config()
    ensure_topics(config, [(t.name, t.partitions, {}) for t in topics_of(theirs)])
    assert refused_writes(secured.config("worker"), kinds_of(theirs)) == every(theirs)
    assert refused_writes(secured.config("plant"), kinds_of(theirs)) == every(theirs)


def test_rights_go_with_the_topics(secured: Broker) -> None:
    gone = small_spec(system=unique())
    make_topics(gone, secured.bootstrap, secured.settings())
    remove_topics(gone, secured.bootstrap, secured.settings())
    ensure_topics(secured.config(), [(t.name, t.partitions, {}) for t in topics_of(gone)])
    assert refused_writes(secured.config("worker"), kinds_of(gone)) == every(gone)
    assert refused_reads(secured.config("align"), kinds_of(gone)) == every(gone)


@pytest.mark.parametrize("role", ["plant", "replay"])
def test_only_workers_join_their_group(secured: Broker, spec: SystemSpec, role: Role) -> None:
    settings = {"group.id": worker_group(spec), "log_level": "0", **secured.config(role)}
    consumer = Consumer(settings)
    consumer.subscribe([f"{spec.system}.frames"])
    try:
        message = consumer.poll(30)
        assert message is not None
        error = message.error()
        assert error is not None
        assert error.code() in (KafkaError.GROUP_AUTHORIZATION_FAILED, REFUSED)
    finally:
        consumer.close()


def test_only_the_admin_gives_rights_and_removes_topics(secured: Broker, spec: SystemSpec) -> None:
    wanted = [Grant("plant", "write", "topic", f"{spec.system}.actions")]
    for role in NARROW:
        with pytest.raises(KafkaSetupError, match="AUTHORIZATION_FAILED"):
            grant(secured.config(role), wanted)
    with pytest.raises((KafkaSetupError, KafkaException), match=r"(?i)authoriz"):
        delete_topics(secured.config("worker"), [f"{spec.system}.frames"])
    assert not refused_writes(secured.config(), {f"{spec.system}.frames": "frames"})


def test_a_replay_writes_systems_of_its_own_and_no_live_ones(
    secured: Broker, spec: SystemSpec
) -> None:
    settings = secured.settings("replay")
    again = small_spec(system=f"replay-{unique()}")
    make_topics(again, secured.bootstrap, settings)
    make_topics(again, secured.bootstrap, settings)  # they are there
    assert refused_writes(secured.config("replay"), kinds_of(again)) == set()
    with pytest.raises(KafkaSetupError, match=r"Authorization failed.*'replay-'"):
        make_topics(small_spec(system=unique()), secured.bootstrap, settings)
    assert refused_writes(secured.config("replay"), kinds_of(spec)) == every(spec)


# the loop


@pytest.mark.timeout(300)
def test_the_loop_runs_on_it_each_process_in_its_role(secured: Broker, tmp_path: Path) -> None:
    loop = Loop(tmp_path, secured.bootstrap, "event")
    name = str(loop.spec_file)
    admin = (*loop.broker, *file_of(secured, "admin"))
    made = rehearse("topics", "create", name, *admin)
    assert made.returncode == 0, made.stderr
    with Supervisor(tmp_path / "run", secured.settings()) as supervisor:
        loop.start(supervisor)
        length = ("--lockstep", "--ticks", str(TICKS), "-o", f"robots={ROBOTS}")
        plant = supervisor.start("plant", "plant", name, *length, *loop.broker)
        every = (*loop.processes(), plant)
        until(lambda: any(process.poll() is not None for process in every), "the plant's end")
        assert [process.poll() for process in every] == [None, None, None, 0]
        frames = until_decided(loop.spec, secured.config(), TICKS)
        for part in ("align", "worker", "sink"):
            supervisor.stop(part)
        assert [process.poll() for process in every] == [0] * 4
    roles = {process.settings["sasl.username"] for process in every}
    assert roles == {"align", "worker", "sink", "plant"}
    summary, stored = plant.summary(), loop.sink.summary()
    assert (summary["ticks"], summary["missing"]) == (TICKS, 0)
    assert summary["statuses"] == {"applied": TICKS * ROBOTS}
    assert (stored["frames"], stored["frames_lost"]) == (frames, 0)
    assert (stored["counted"], stored["rejected"]) == (TICKS * ROBOTS, 0)
    passwords = [secured.settings(role)["sasl.password"] for role in ROLES]
    assert not any(word in p.log.read_text() for p in every for word in passwords)
    checked = rehearse("topics", "check", name, *admin)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    recorded = rehearse("record", name, "--out", str(tmp_path / "r"), home=secured.home)
    assert recorded.returncode == 0, recorded.stderr  # in its role, without a word
    held = rehearse("hold", name, "--json", home=secured.home)
    assert held.returncode == 1, "its plant has ended"
    assert "no actuator reported" in held.stderr.replace("\n", " ")


def test_it_stays_secured_and_a_removed_password_is_replaced(secured: Broker) -> None:
    """The last one: it starts the broker again."""
    old = secured.config("plant")
    settings_file(secret_folder(secured.home), "plant").unlink()
    assert embedded.stop(secured.home)
    again = embedded.start(secured.home)
    assert (again.bootstrap, again.secured) == (secured.bootstrap, True)
    assert again.settings("plant")["sasl.password"] != old["sasl.password"]
    ensure_topics(again.config("admin"), [("after", 1, {})])
    assert refused_reads(again.config("plant"), {"after": "after"}) == {"after"}
    with pytest.raises(KafkaSetupError, match="does not let us in"):
        wait_ready(old, 30)
