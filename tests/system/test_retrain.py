"""Retraining while the stream runs: collected, trained, handed over, and no frame lost."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from planner.manifest import read_manifest
from streams.demo_scene import DemoOptions
from streams.retrain import Course, run_retrain
from streams.retrain_report import AFTER, ALONE, BEFORE

pytest.importorskip("torch")
pytestmark = [pytest.mark.broker, pytest.mark.system]
COLLECT, AFTERWARDS, SERVICES = 120, 15, 3


@pytest.mark.timeout(400)
def test_a_new_bundle_takes_over_without_a_lost_frame(
    kafka: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REHEARSE_DATA", raising=False)
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path))
    course = Course(
        collect_ticks=COLLECT, steps=4, actor_steps=2, after_ticks=AFTERWARDS, training_speed=60.0
    )
    options = DemoOptions(plant_options={"services": SERVICES}, seed=3)
    console = Console(stderr=True, width=100)
    result = run_retrain(options, tmp_path, kafka["bootstrap.servers"], kafka, console, course)

    json.dumps(result)  # what --json prints
    assert (result["frames_lost"], result["missing"], result["restarts"]) == (0, 0, 0)
    assert result["frames"] == result["ticks"] + 1  # the last one is decided, not waited for
    released = result["bundle"]
    manifest = read_manifest(Path(result["folder"]) / "bundles" / "retrained")
    assert (manifest.digest, manifest.lineage["steps"]) == (released, course.steps)
    assert "train" in manifest.lineage["command"]

    # Both decided: the fallback up to the handover, the bundle in every frame from then on.
    rows = pl.read_parquet(
        list(Path(result["folder"], "trajectories").rglob("*.parquet")), hive_partitioning=False
    ).sort("tick")
    handover = result["handover_tick"]
    assert set(rows.filter(pl.col("tick") < handover)["bundle"]) == {""}
    assert set(rows.filter(pl.col("tick") >= handover)["bundle"]) == {released}
    assert set(result["bundles"]) == {"none", released[:12]}
    assert result["bundles"]["none"] > COLLECT * SERVICES
    assert result["bundles"][released[:12]] >= AFTERWARDS * SERVICES
    assert result["training_tick"] < handover

    phases = result["phases"]
    assert phases[BEFORE]["ticks"] + phases[AFTER]["ticks"] == result["ticks"]
    assert phases[ALONE]["ticks"] == phases[AFTER]["ticks"]
    late = [phase["slo"] for phase in phases.values()]
    assert all(0.0 <= share <= 1.0 for share in late)
    assert all(phase["reward"] < 0.0 for phase in phases.values())
    page = Path(result["report"]).read_text()
    assert all(name in page for name in (BEFORE, AFTER, ALONE, "handover"))
