"""The demo that closes the loop: log under the fallback, train, hand over while the stream runs."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from rich.console import Console

from infra.plants.base import make_plant
from infra.traces import Trace, days
from planner.manifest import read_manifest
from schemas.messages import Control
from schemas.spec_parts import ExploreSpec
from schemas.system import SystemSpec, load_spec, parse_spec
from streams.backtest import backtest, policies
from streams.control import say
from streams.demo import (
    DemoOptions,
    Scene,
    Show,
    Stage,
    Take,
    choose_trace,
    set_scene,
    summary,
    write_trace,
)
from streams.demo_report import read_trajectories, write_retrain_report

COLLECT_TICKS: Final = 4_000  # under the fallback, with exploration
AFTER_TICKS: Final = 2_000  # under the new bundle
TRAIN_STEPS: Final = 1_500
LONGEST_DAYS: Final = 30  # of load, so that the stream does not end while training runs
EXPLORE: Final = ExploreSpec(share=0.3)


def run_retrain(
    options: DemoOptions, home: Path, bootstrap: str, extra: Mapping[str, str], console: Console
) -> dict[str, Any]:
    """Collect, train, export, hand over, and compare; see `rehearse demo --retrain --help`."""
    _check(options)
    scene = _long_scene(options, home)
    bundles = scene.folder / "bundles"
    bundles.mkdir()
    with Stage(scene, options, bootstrap, extra) as stage:
        stage.start_loop("event", (bundles,))
        with console.status("waiting for the worker"):
            stage.wait_for_worker()
        stage.start_plant(lockstep=True)
        show = Show(stage, console, None)
        show.until(lambda seen: seen.ticks >= COLLECT_TICKS, "collecting under the fallback")
        _train(show, scene, bundles / "retrained", options.seed)
        released = _release(scene.spec, bundles / "retrained", bootstrap, extra)
        before = show.seen.decisions - show.seen.bundles[released[:12]]
        target = AFTER_TICKS * len(show.seen.entities)
        show.until(
            lambda seen: seen.bundles[released[:12]] >= target, "acting under the new bundle"
        )
        take = show.finish()
    phases, handover = _phases(scene, take, released)
    verdict = {
        "bundle": released,
        "handover_tick": handover,
        "decisions_before": before,
        "phases": phases,
    }
    result = summary(scene, options, take, verdict)
    report = write_retrain_report(scene, take, result, home / "reports")
    return {**result, "report": str(report)}


def _check(options: DemoOptions) -> None:
    plant = load_spec(options.system).plant
    if plant is None or plant.kind != "cluster":
        raise ValueError(
            f"--retrain needs a plant that goes on for days; {options.system}'s does not: "
            "use --system autoscale"
        )
    probe = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    if subprocess.run([sys.executable, "-c", probe], check=False).returncode:
        raise ValueError(
            "--retrain needs torch: pip install 'rehearse[train]', or `make test` once"
        )


def _long_scene(options: DemoOptions, home: Path) -> Scene:
    """Training days of the load, one after the other, and a spec that explores."""
    scene = set_scene(options, home)
    assert scene.window is not None
    load = _joined(scene.window.training[-LONGEST_DAYS:])
    text = scene.spec_file.read_text()
    explore = f"explore: {{share: {EXPLORE.share}, hold: {EXPLORE.hold}, seed: {options.seed}}}\n"
    scene.spec_file.write_text(text + explore)
    plant = {**scene.plant, "trace": write_trace(load, scene.folder / "load.parquet")}
    spec = parse_spec(text + explore, str(scene.spec_file))
    facts = {**scene.facts, "spec": spec.spec_hash, "load": choose_trace(options)[1]}
    return Scene(spec, scene.spec_file, scene.folder, options.ticks, plant, None, facts)


def _joined(parts: tuple[Trace, ...]) -> Trace:
    """Consecutive windows as one, each scaled to the same mean: their scale is not the point."""
    first = parts[0]
    rates = np.concatenate([part.rates / part.rates.mean() for part in parts], axis=-1)
    joined = Trace(first.bin_seconds, rates, first.start_us)
    if len(days(joined)) < 3:
        rates = np.tile(rates, 3)
        joined = Trace(first.bin_seconds, rates, first.start_us)
    return joined


def _train(show: Show, scene: Scene, out: Path, seed: int) -> None:
    """`rehearse train` on what the sink has written so far, while the stream goes on."""
    log = (scene.folder / "train.log").open("wb")
    command = [sys.executable, "-m", "streams.cli", "train", str(scene.spec_file)]
    command += ["--data", str(scene.folder / "trajectories"), "--out", str(out)]
    command += ["--steps", str(TRAIN_STEPS), "--seed", str(seed), "--json"]
    with log, subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as child:
        try:
            show.until(lambda _: child.poll() is not None, "training while the stream runs")
        finally:
            child.terminate()
    if child.returncode:
        tail = (scene.folder / "train.log").read_text(errors="replace")[-2_000:]
        raise RuntimeError(f"training ended with status {child.returncode}:\n{tail}")


def _release(spec: SystemSpec, folder: Path, bootstrap: str, extra: Mapping[str, str]) -> str:
    """Say on `S.control` that the new bundle acts from now on; returns its digest."""
    manifest = read_manifest(folder)
    # The event clock may stand in another year than the wall clock: from the next tick on.
    control = Control("release", 0, bundle=manifest.digest, by="demo")
    say(spec, control, bootstrap, extra)
    return manifest.digest


def _phases(scene: Scene, take: Take, released: str) -> tuple[dict[str, dict[str, Any]], int]:
    """Mean reward before and after the handover, and of the fallback alone on the same arrivals."""
    rows = read_trajectories(scene.folder / "trajectories")
    if rows is None:
        raise RuntimeError(f"{scene.folder / 'trajectories'}: the sink has written nothing")
    new = rows.filter(pl.col("bundle") == released)
    handover, last = int(new["tick"].min()), int(new["tick"].max())  # type: ignore[arg-type]
    old = rows.filter(pl.col("tick") < handover)
    reward = pl.col("reward").fill_nan(None).mean()
    others = _fallback_alone(scene, take.summaries["plant"]["seed"], handover, last)
    return {
        "fallback, exploring (before)": {
            "ticks": handover - int(old["tick"].min()),  # type: ignore[arg-type]
            "reward": old.select(reward).item(),
        },
        "new bundle (after)": {"ticks": last - handover, "reward": new.select(reward).item()},
        "fallback alone, same arrivals as after": {"ticks": last - handover, "reward": others},
    }, handover


def _fallback_alone(scene: Scene, seed: int, first: int, last: int) -> float:
    """Mean reward of the fallback without exploration over the ticks after the handover."""
    spec = scene.spec.model_copy(update={"explore": None})
    plant = make_plant(spec, **scene.plant)
    log = scene.folder / "fallback.parquet"
    start = plant.reset(seed).tick
    backtest(
        spec,
        plant,
        policies(spec, None)["fallback"],
        seed=seed,
        ticks=last - start,
        decisions=log,
    )
    rows = pl.read_parquet(log).filter(pl.col("tick").is_between(first, last))
    return float(rows.select(pl.col("reward").fill_nan(None).mean()).item())
