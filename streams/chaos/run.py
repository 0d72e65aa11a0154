"""One run: a loop, faults while it runs, calm, and then the checker's verdict."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException

from infra import broker as embedded
from schemas.topics import topic
from streams.chaos.checker import check
from streams.chaos.facts import Findings, facts_of
from streams.chaos.faults import Injector
from streams.chaos.log import Log, LogError, read_log, read_partition
from streams.chaos.schedule import NETWORK, Schedule
from streams.chaos.settling import Settling
from streams.chaos.stage import Stage, wait_until
from streams.chaos.undisturbed import undisturbed
from streams.supervise import ProcessFailed

Say = Callable[[str], None]
READY_S: Final = 60.0
RECOVERED_S: Final = 60.0
OVERTIME_S: Final = 60.0  # of a plant on the wall clock, beyond its stream
NEWEST: Final = 60  # records of a partition that are looked at to see whether all is decided
_PATIENCE_S: Final = 0.1


def run_once(
    schedule: Schedule, home: Path, bundle: Path, say: Say = lambda _: None, keep: bool = False
) -> dict[str, Any]:
    """Runs `schedule` on the broker of `home`; gives the outcome as plain JSON values.

    Topics stay where something was violated, or `keep` says so; the run's folder always does.
    """
    broker = embedded.start(home, progress=say, proxied=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name, began = f"chaos-{schedule.seed}-{stamp}", time.monotonic()
    findings = Findings()
    disks = tuple(f.target for f in schedule.faults if f.kind == "full_disk")
    proxied = any(f.kind in NETWORK for f in schedule.faults)
    parts = (schedule.clock, schedule.seconds, schedule.seed, bundle, disks, schedule.twin, proxied)
    with Stage(broker, home / "runs" / name, name, *parts) as stage:
        injector = Injector(stage, schedule, say)
        _play(stage, injector, findings, say)
        say("checking")
        verdict = check(_log(stage, say), undisturbed(stage.spec, [bundle]), findings)
        restarts = {p.name: p.restarts for p in stage.supervisor.processes if p.restarts}
    if not verdict.violations and not keep:
        stage.forget()
    return {
        "seed": schedule.seed,
        "seconds": schedule.seconds,
        "clock": schedule.clock,
        "twin": schedule.twin,
        "outcome": verdict.outcome,
        "faults": [fault.as_dict() for fault in schedule.faults],
        "notes": injector.notes,
        "restarts": restarts,
        **verdict.as_dict(),
        "folder": str(stage.folder),
        "took_s": round(time.monotonic() - began, 1),
        "at": stamp,
    }


def _play(stage: Stage, injector: Injector, findings: Findings, say: Say) -> None:
    """The run up to the end of its processes; what does not recover is a finding."""
    try:
        stage.start_loop()
        if not wait_until(lambda: stage.ready((*stage.workers, "align")), READY_S, stage.watch):
            raise ProcessFailed(f"the loop is not ready after {READY_S:g} s: see {stage.folder}")
        plant = stage.start_plant()
        wait_until(lambda: stage.ends("sensors") > 0, READY_S, stage.watch)
        say("the stream runs")
        # In lockstep every outage makes the stream longer: it ends by the clock, not by its ticks.
        more = OVERTIME_S if stage.clock == "wall" else 0.0
        limit = time.monotonic() + stage.seconds + more
        injector.run(time.monotonic(), lambda: plant.poll() is None)
        while plant.poll() is None and time.monotonic() < limit:
            stage.watch()
            threading.Event().wait(_PATIENCE_S)
        stage.supervisor.stop("plant")
        if plant.poll() != 0:
            findings.add("recovery", f"the plant's exit status is {plant.poll()}")
        settling = Settling()
        if not wait_until(lambda: _is_settled(stage, settling), RECOVERED_S, stage.watch):
            findings.add("recovery", f"the last frames are undecided after {RECOVERED_S:g} s")
        _stop(stage, findings)
    except ProcessFailed as error:
        lines = str(error).splitlines()  # the end of a log stands in it
        findings.add("recovery", " … ".join(dict.fromkeys((lines[0], lines[-1]))))
        say(str(error))
        stage.stop_all()


def _is_settled(stage: Stage, settling: Settling) -> bool:
    """Whether the newest frame of each cohort has a trajectory, and no more frames are to come."""
    log = Log(stage.spec, stage.clock)
    try:
        for kind in ("frames", "trajectories"):
            name = topic(stage.spec, kind)
            log.topics[name] = [
                entry
                for partition in range(stage.spec.cohorts)
                for entry in read_partition(stage.kafka, name, partition, 5.0, NEWEST)
            ]
        facts = facts_of(log)
        decided = {(t.frame.cohort, t.frame.tick) for _, t in facts.trajectories}
        newest = {cohort: frame for (cohort, _), frame in facts.frames.items()}
        last = {(cohort, frame.tick) for cohort, frame in newest.items()}
        if len(newest) < stage.spec.cohorts or not last <= decided:
            return False
        if stage.clock == "event":  # in lockstep the plant has waited for the last actions
            return True
        said = {**stage.ends_of("frames"), **stage.ends_of("deadletter")}
        return settling.look(newest, stage.ends_of("sensors"), said)
    except (KafkaException, LogError):
        settling.interrupted()
        return False


def _stop(stage: Stage, findings: Findings) -> None:
    """Ends the loop in the order of its data, so that all that was begun is stored."""
    for name in ("align", *stage.workers, "sink"):
        process = stage.process(name)
        if process.poll() is not None:
            findings.add("recovery", f"{name} is not there; its exit status is {process.poll()}")
        stage.supervisor.stop(name)
        if process.poll() != 0:
            findings.add("recovery", f"{name} was asked to end: exit status {process.poll()}")


def _log(stage: Stage, say: Say) -> Log:
    """Reads all once the broker answers: a run that failed may have left it asleep."""
    for last in (False, True):
        try:
            return read_log(stage.spec, stage.clock, stage.kafka, stage.out)
        except (LogError, KafkaException):
            if last:
                raise
            stage.broker = embedded.start(stage.broker.home, progress=say)
    raise AssertionError("the last attempt returns or raises")
