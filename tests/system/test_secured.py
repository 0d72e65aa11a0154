"""The whole loop through mutual TLS and a password: every process by its command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.kafka import client_config
from streams.supervise import Supervisor, environment
from tests.system.processes import Loop, until, until_decided
from tests.system.secured import PASSWORD, Secured, secured_kafka

pytestmark = [pytest.mark.broker, pytest.mark.system]
ROBOTS, TICKS = 4, 12


@pytest.fixture(scope="module")
def kafka_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A cluster that lets nobody in without TLS and a password."""
    with secured_kafka(tmp_path_factory.mktemp("secured")) as running:
        yield running


def rehearse(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    command = [sys.executable, "-m", "streams.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=250, check=False
    )


@pytest.mark.timeout(300)
def test_the_loop_runs_on_a_secured_cluster(kafka_of_its_own: Secured, tmp_path: Path) -> None:
    loop = Loop(tmp_path, kafka_of_its_own.bootstrap, "event")
    spec = str(loop.spec_file)
    file = tmp_path / "client.properties"
    file.write_text("".join(f"{k}={v}\n" for k, v in kafka_of_its_own.extra.items()))
    known = (*loop.broker, "-X", f"@{file}")
    made = rehearse("topics", "create", spec, *known)
    assert made.returncode == 0, made.stderr
    with Supervisor(tmp_path / "run", kafka_of_its_own.extra) as supervisor:
        loop.start(supervisor)
        length = ("--lockstep", "--ticks", str(TICKS), "-o", f"robots={ROBOTS}")
        plant = supervisor.start("plant", "plant", spec, *length, *loop.broker)
        every = (*loop.processes(), plant)
        until(lambda: any(process.poll() is not None for process in every), "the plant's end")
        assert [process.poll() for process in every] == [None, None, None, 0]
        settings = client_config(kafka_of_its_own.bootstrap, kafka_of_its_own.extra)
        frames = until_decided(loop.spec, settings, TICKS)
        for name in ("align", "worker", "sink"):
            supervisor.stop(name)
        assert [process.poll() for process in every] == [0] * 4
    summary, stored = plant.summary(), loop.sink.summary()
    assert (summary["ticks"], summary["missing"]) == (TICKS, 0)
    assert summary["statuses"] == {"applied": TICKS * ROBOTS}
    assert (stored["frames"], stored["frames_lost"]) == (frames, 0)
    assert (stored["counted"], stored["rejected"]) == (TICKS * ROBOTS, 0)
    assert not any(PASSWORD in process.log.read_text() for process in every)
    checked = rehearse("topics", "check", spec, *known)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    held = rehearse("hold", spec, "--json", *known)
    assert held.returncode == 1, "its plant has ended"
    assert "no actuator reported" in held.stderr.replace("\n", " ")


def test_scram_lets_in_as_well(kafka_of_its_own: Secured, tmp_path: Path) -> None:
    extra = {**kafka_of_its_own.extra, "sasl.mechanism": "SCRAM-SHA-512"}
    loop = Loop(tmp_path, kafka_of_its_own.bootstrap, "event", extra)
    said = rehearse("doctor", *loop.broker).stdout
    assert f"{kafka_of_its_own.bootstrap}: 1 broker, answers" in said
    assert "Kafka 4.0 or later" in said


@pytest.mark.parametrize("command", [("topics", "create"), ("worker",)])
def test_a_wrong_password_is_said_at_once(
    kafka_of_its_own: Secured, tmp_path: Path, command: tuple[str, ...]
) -> None:
    extra = {**kafka_of_its_own.extra, "sasl.password": "wrong"}
    loop = Loop(tmp_path, kafka_of_its_own.bootstrap, "event", extra)
    ended = rehearse(*command, str(loop.spec_file), *loop.broker)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "does not let us in" in ended.stderr
    assert "Invalid username or password" in ended.stderr
    assert "-X" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_broker_that_no_trusted_authority_vouches_for_is_refused(
    kafka_of_its_own: Secured, tmp_path: Path
) -> None:
    extra = {key: text for key, text in kafka_of_its_own.extra.items() if key != "ssl.ca.location"}
    loop = Loop(tmp_path, kafka_of_its_own.bootstrap, "event", extra)
    ended = rehearse("worker", str(loop.spec_file), *loop.broker)
    assert ended.returncode == 2
    assert "certificate verify failed" in ended.stderr
    assert "ssl.ca.location" in ended.stderr
