"""The whole loop on a real broker: a worker killed mid-stream loses and doubles nothing."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from infra.plants.base import make_plant
from schemas.codes import Status
from schemas.messages import Action, Applied
from schemas.system import load_spec
from schemas.trajectories import KEY_FRAME_EVERY
from streams.plant import run_plant
from streams.record import record
from streams.recording import spec_text
from streams.replay import replay
from streams.supervise import Process, Supervisor
from tests.planner.worlds import double_integrator, write_bundle
from tests.streams.runs import RUN_SPEC
from tests.support import unique
from tests.system.loop import make_topics, messages
from tests.system.processes import until_decided

pytestmark = [pytest.mark.broker, pytest.mark.system]
Kafka = dict[str, str]
TICKS = KEY_FRAME_EVERY + 26
KILL_AT = 40
ROBOTS = 6


def kill_and_restart(worker: Process) -> None:
    assert worker.child is not None
    worker.child.send_signal(signal.SIGKILL)
    assert worker.child.wait(10) == -signal.SIGKILL
    worker.start()


@pytest.mark.timeout(240)
def test_a_killed_worker_loses_doubles_and_changes_nothing(kafka: Kafka, tmp_path: Path) -> None:
    name, bootstrap = unique(), kafka["bootstrap.servers"]
    spec_file = tmp_path / "spec.yaml"
    text = spec_text(RUN_SPEC).replace("nav2d.sensors", f"{name}.sensors")
    spec_file.write_text(text.replace("system: nav2d", f"system: {name}"))
    spec = load_spec(spec_file)
    make_topics(spec, kafka)
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(spec.columns)}
    bundle = write_bundle(
        tmp_path / "bundle", spec, double_integrator(noise=0.05), calibration=calibration
    )
    broker = ("--bootstrap-servers", bootstrap)
    with Supervisor(tmp_path / "run") as loop:
        sink_out = ("--out", str(tmp_path / "out"), "--catalog", f"sqlite:///{tmp_path}/c.sqlite")
        sink = loop.start("sink", "sink", str(spec_file), *sink_out, *broker)
        data = ("--data-dir", str(tmp_path / "w0"), "--bundle", str(bundle))
        worker = loop.start("worker", "worker", str(spec_file), "--clock", "event", *data, *broker)
        loop.start("align", "align", str(spec_file), "--clock", "event", *broker)

        def on_tick(done: int, score: dict[str, float]) -> None:
            if done == KILL_AT:
                kill_and_restart(worker)

        plant = make_plant(spec, robots=ROBOTS)
        summary = run_plant(
            spec, plant, bootstrap, kafka, threading.Event(),
            ticks=TICKS, patience_s=90, first_patience_s=90, on_tick=on_tick,
        )  # fmt: skip
        frames = until_decided(spec, kafka, TICKS)
        loop.stop("align")
        loop.stop("worker")
        loop.stop("sink")
    stored = sink.summary()
    assert (summary["ticks"], summary["missing"]) == (TICKS, 0)
    assert (stored["frames"], stored["frames_lost"]) == (frames, 0)
    # Actions leave before their log does: of the tick at which a worker dies in between, only rows
    # count that were decided alike the second time.
    assert TICKS * ROBOTS - ROBOTS <= stored["counted"] <= TICKS * ROBOTS
    assert stored["rejected"] == 0

    reports = messages(spec, kafka, "applied", Applied)
    times = Counter((a.entity, a.tick) for a in reports)
    assert set(times.values()) == {1}
    assert {a.status for a in reports} == {Status.APPLIED}
    assert len(times) == TICKS * ROBOTS
    issued = {(a.id, tuple(a.values.values())) for a in messages(spec, kafka, "actions", Action)}
    assert {(a.id, tuple(a.values.values())) for a in reports} <= issued

    table = pl.read_parquet(stored["files"], hive_partitioning=False)
    counted = table.filter("counted")
    assert counted.height == counted.n_unique(["entity", "tick"]) == stored["counted"]
    assert table["attempt"].n_unique() == 2, "both lives of the worker decided"

    # Undisturbed, from the first frame on: the same decisions and beliefs, to the last bit.
    record(spec, bootstrap, kafka, tmp_path / "recording")
    result = replay(tmp_path / "recording", bundles=[bundle])
    assert (result["frames"], result["differences"]) == (frames, 0)
    # A busy machine has no time to plan for a tick, but for those after it.
    assert result["modes"].get("plan", 0) + result["modes"].get("follow", 0) > 0
