"""An operator at a running system, with the commands of the terminal: hold, resume, override."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.codes import Mode, Status
from schemas.messages import Action, Applied
from streams.cli import app
from streams.supervise import Supervisor
from tests.system.loop import make_topics, messages
from tests.system.processes import Loop, until

pytestmark = [pytest.mark.broker, pytest.mark.system]
Kafka = dict[str, str]
ROBOTS = ["robot-00", "robot-01", "robot-02"]
FAR = ("-o", "robots=3", "-o", "nearest=10", "-o", "ticks=100000")  # nobody arrives soon
OBEYED = 5  # ticks in a row, after which it is believed


class Site:
    """A live loop with its plant under the wall clock, and what its topics say."""

    def __init__(self, loop: Loop, kafka: Kafka) -> None:
        self.loop, self.kafka = loop, kafka

    def said(self, *words: str) -> tuple[int, dict[str, Any], str]:
        """Exit status, result, and what is told beside it, of one command to this system."""
        command, *rest = words
        arguments = [command, str(self.loop.spec_file), *rest, *self.loop.broker, "--json"]
        result = CliRunner().invoke(app, arguments)
        # Logs go to standard error in a process of its own, and to the same place here.
        return result.exit_code, json.loads(result.stdout.splitlines()[-1]), result.stderr

    def modes(self, robot: str) -> list[Mode]:
        """Of the robot's newest actions."""
        found = messages(self.loop.spec, self.kafka, "actions", Action)
        return [Mode(a.mode) for a in found if a.entity == robot][-OBEYED:]

    def applied(self, robot: str) -> list[Applied]:
        """The robot's newest reports."""
        found = messages(self.loop.spec, self.kafka, "applied", Applied)
        return [a for a in found if a.entity == robot][-OBEYED:]

    def still(self, robot: str) -> bool:
        """Held by the worker, and at rest at the actuator."""
        rest = all(set(a.values.values()) == {0.0} for a in self.applied(robot))
        return rest and self.modes(robot) == [Mode.HOLD] * OBEYED

    def moved(self, robot: str) -> bool:
        """Driven, not held, and the actuator does as it is told."""
        reports, modes = self.applied(robot), self.modes(robot)
        driven = all(a.status == Status.APPLIED and any(a.values.values()) for a in reports)
        return len(reports) == OBEYED and driven and not {Mode.HOLD, Mode.OVERRIDE} & set(modes)


@pytest.fixture
def site(kafka: Kafka, tmp_path: Path) -> Iterator[Site]:
    loop = Loop(tmp_path, kafka["bootstrap.servers"], "wall")
    make_topics(loop.spec, kafka)
    with Supervisor(tmp_path / "run") as supervisor:
        loop.start(supervisor)
        supervisor.start("plant", "plant", str(loop.spec_file), *FAR, *loop.broker)
        found = Site(loop, kafka)
        until(lambda: all(map(found.moved, ROBOTS)), "the first applied actions")
        yield found


@pytest.mark.timeout(240)
def test_hold_resume_and_override_reach_the_actuators(site: Site) -> None:
    status, result, _ = site.said("hold")
    assert (status, result["held"]) == (0, ["*"])
    until(lambda: all(map(site.still, ROBOTS)), "the hold of all")

    status, _, told = site.said("resume", "robot-01")
    assert status == 1
    assert "every robot is held" in told
    assert site.still("robot-01")
    status, result, _ = site.said("resume")
    assert (status, result["held"]) == (0, [])
    until(lambda: all(map(site.moved, ROBOTS)), "the end of the hold")

    status, result, _ = site.said("hold", "robot-01")
    assert (status, result["held"]) == (0, ["robot-01"])
    until(lambda: site.still("robot-01"), "the hold of one")
    until(lambda: site.moved("robot-00") and site.moved("robot-02"), "that the others go on")
    site.said("resume")
    until(lambda: site.moved("robot-01"), "that a resume of all lifts the hold of one")

    status, result, _ = site.said("override", "acceleration[0]=0.25", "acceleration[1]=-0.5")
    assert (status, result["overridden"]) == (0, ["*"])
    wanted = {"acceleration[0]": 0.25, "acceleration[1]": -0.5}

    def overridden() -> bool:
        values = [a.values for robot in ROBOTS for a in site.applied(robot)]
        return all(v == wanted for v in values)

    until(overridden, "the override of all")
    status, result, _ = site.said("override", "none")
    assert (status, result["overridden"]) == (0, [])
    until(lambda: all(map(site.moved, ROBOTS)), "the end of the override")


def test_what_no_actuator_reports_is_told(kafka: Kafka, tmp_path: Path) -> None:
    site = Site(Loop(tmp_path, kafka["bootstrap.servers"], "wall"), kafka)
    make_topics(site.loop.spec, kafka)
    status, result, told = site.said("hold", "robot-00")
    assert (status, result["held"], result["silent"]) == (1, ["robot-00"], ["robot-00"])
    assert "no actuator reported of robot-00 within" in told.replace("\n", " ")
    later = str(10**18)
    assert site.said("hold", "--at", later)[0] == 0, "nobody has to report before its time"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("acceleration[0]=1.5", "outside its range, -1 to 1 m/s"),
        ("acceleration[0]=nan", "outside its range"),
        ("acceleration[0]=fast", "write it as acceleration[0]=NUMBER"),
    ],
)
def test_a_value_that_the_gate_would_not_emit_is_refused(value: str, why: str) -> None:
    refused = CliRunner().invoke(app, ["override", "nav2d", value])
    assert refused.exit_code == 2
    assert why in refused.stderr.replace("\n", " ")


def test_half_a_replica_is_refused() -> None:
    refused = CliRunner().invoke(app, ["override", "autoscale", "replicas=2.5"])
    assert refused.exit_code == 2
    assert "whole numbers alone fit (replicas)" in refused.stderr.replace("\n", " ")


@pytest.mark.timeout(240)
def test_a_slip_of_the_pen_is_told(site: Site) -> None:
    status, result, told = site.said("hold", "robot-9")
    assert status == 1
    assert result["unknown"] == ["robot-9"]
    assert "in none of the newest frames" in told
    assert site.said("resume")[:2] == (
        0,
        {"said": "resume", "system": site.loop.spec.system, "entities": ["*", "robot-9"],
         "held": [], "overridden": []},
    )  # fmt: skip
    refused = CliRunner().invoke(app, ["override", str(site.loop.spec_file), "aceleration=1"])
    assert refused.exit_code == 2
    assert "has acceleration[0], acceleration[1]" in refused.stderr.replace("\n", " ")
