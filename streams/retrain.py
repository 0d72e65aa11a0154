"""The demo that closes the loop: log under the fallback, train, hand over while the stream runs."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from rich.console import Console

from infra.plants.base import make_plant
from infra.traces import Trace, days
from planner.manifest import read_manifest
from schemas.logged import with_files
from schemas.messages import Control
from schemas.spec_parts import ExploreSpec
from schemas.system import SystemSpec, load_spec, parse_spec
from streams.backtest import backtest, policies
from streams.control import say
from streams.demo import summary
from streams.demo_report import read_trajectories
from streams.demo_scene import DemoOptions, Scene, set_scene, write_trace
from streams.demo_stage import Show, Stage, Take
from streams.retrain_report import AFTER, ALONE, BEFORE, write_retrain_report
from streams.supervise import ProcessFailed, environment

LOAD_DAYS: Final = 3  # so that the stream does not end while training runs


@dataclass(frozen=True)
class Course:
    """How much is collected, learned and shown; the defaults suit two cores and four minutes.

    Attributes:
        collect_ticks: under the fallback, with exploration, before training begins: a day.
        steps, actor_steps: updates of the world model and of its actor; see `rehearse train`.
        after_ticks: under the new bundle.
        training_speed: times real time that the stream goes on at while training runs. At full
            speed the loop takes all there is of a small machine, and training would not end.
        explore: how the fallback's actions are varied, so that the log shows causes.
    """

    collect_ticks: int = 5_760
    steps: int = 1_000
    actor_steps: int = 0
    after_ticks: int = 1_500
    training_speed: float = 150.0
    explore: ExploreSpec = field(default_factory=lambda: ExploreSpec(share=0.5, spread=0.5))


def run_retrain(
    options: DemoOptions,
    home: Path,
    bootstrap: str,
    extra: Mapping[str, str],
    console: Console,
    course: Course | None = None,
) -> dict[str, Any]:
    """Collect, train, export, hand over, and compare; see `rehearse demo --retrain --help`.

    Raises:
        ValueError: it cannot be done with these options, or torch is not there.
        ProcessFailed: one of the processes, training among them, ended badly.
    """
    course = course or Course()
    _check(options)
    scene = _long_scene(options, home, course.explore)
    bundles = scene.folder / "bundles"
    bundles.mkdir()
    with Stage(scene, options, bootstrap, extra) as stage:
        stage.start_loop("event", (bundles,))
        with console.status("waiting for the worker"):
            stage.wait_for_worker()
        pace = scene.folder / "pace"
        stage.start_plant(lockstep=True, pace_file=pace)
        show = Show(stage, console, None)
        _collect(show, scene, course.collect_ticks)
        training = show.seen.last_tick
        pace.write_text(f"{course.training_speed}\n")
        _train(show, scene, bundles / "retrained", options.seed, course)
        released = _release(scene.spec, bundles / "retrained", bootstrap, extra)
        pace.unlink()
        _act(show, released, course.after_ticks)
        take = show.finish()
    with console.status("running the fallback alone on the same arrivals"):
        phases, handover = _phases(scene, take, released)
    trained = read_manifest(bundles / "retrained").metrics
    verdict = {
        "bundle": released,
        "training_tick": training,
        "handover_tick": handover,
        "train_seconds": trained["train_seconds"],
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
    if options.ticks is not None:
        raise ValueError("--retrain takes as many ticks as it needs: leave out --ticks")
    probe = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    if subprocess.run([sys.executable, "-c", probe], check=False).returncode:
        raise ValueError(
            "--retrain needs torch: pip install 'rehearse[train]', or `make test` once"
        )


def _long_scene(options: DemoOptions, home: Path, explore: ExploreSpec) -> Scene:
    """Training days of the load, one after the other, and a spec that explores."""
    scene = set_scene(options, home)
    if scene.window is None:
        raise ValueError(f"{options.system} has no load to go on with")
    load = steady_days(scene.window.training)
    varied = explore.model_copy(update={"seed": options.seed}).model_dump()
    text = f"{scene.spec_file.read_text()}explore: {json.dumps(varied)}\n"
    scene.spec_file.write_text(text)
    plant = {**scene.plant, "trace": write_trace(load, scene.folder / "load.parquet")}
    spec = parse_spec(text, str(scene.spec_file))
    when = f"{LOAD_DAYS} training days from {datetime.fromtimestamp(load.start_us / 1e6, UTC):%F}"
    facts = {**scene.facts, "spec": spec.spec_hash, "load": f"{scene.facts['load']}, {when}"}
    return Scene(spec, scene.spec_file, scene.folder, options.ticks, plant, None, facts)


def steady_days(parts: tuple[Trace, ...], count: int = LOAD_DAYS) -> Trace:
    """`count` consecutive windows as one trace: those whose mean loads are most alike.

    So the load after the handover is of the kind that was trained on. Fewer windows are repeated.
    """
    means = np.array([part.rates.mean() for part in parts])
    spans = [means[i : i + count] for i in range(max(1, len(parts) - count + 1))]
    first = min(range(len(spans)), key=lambda i: float(spans[i].max() / max(spans[i].min(), 1e-9)))
    chosen = parts[first : first + count]
    chosen = (chosen * count)[: max(count, len(chosen))]
    rates = np.concatenate([part.rates for part in chosen], axis=-1)
    joined = Trace(chosen[0].bin_seconds, rates, chosen[0].start_us)
    while len(days(joined)) < count:  # windows shorter than a day
        rates = np.concatenate([rates, rates], axis=-1)
        joined = Trace(joined.bin_seconds, rates, joined.start_us)
    return joined


def _collect(show: Show, scene: Scene, ticks: int) -> None:
    """Watch until the sink has stored that many ticks of every entity."""
    folder = scene.folder / "trajectories"

    def note() -> str:
        wanted = ticks * max(1, len(show.seen.entities))
        return f"1 of 3: collecting under the fallback: {_stored(folder):,} of {wanted:,} rows"

    show.until(lambda seen: 0 < ticks * len(seen.entities) <= _stored(folder), note)
    show.say(f"collected {_stored(folder):,} decisions under the exploring fallback")


def _stored(folder: Path) -> int:
    """Rows that the sink has written."""
    return with_files(folder, lambda files: sum(int(pq.read_metadata(f).num_rows) for f in files))


def _train(show: Show, scene: Scene, out: Path, seed: int, course: Course) -> None:
    """`rehearse train` on what the sink has written so far, while the stream goes on."""
    log = scene.folder / "train.log"
    command = [sys.executable, "-m", "streams.cli", "train", str(scene.spec_file)]
    command += ["--data", str(scene.folder / "trajectories"), "--out", str(out)]
    command += ["--steps", str(course.steps), "--seed", str(seed), "--json"]
    command += ["--actor-steps", str(course.actor_steps)] if course.actor_steps else ["--no-actor"]
    progress = out.parent / f".{out.name}.training" / "progress.json"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, env=environment()
        ) as child,
    ):
        try:
            show.until(lambda _: child.poll() is not None, lambda: _training_note(progress))
        finally:
            child.terminate()
    if child.returncode:
        tail = log.read_text(errors="replace")[-2_000:]
        raise ProcessFailed(f"training ended with status {child.returncode}; {log} ends:\n{tail}")
    show.say(f"trained and exported a bundle: {out}")


def _training_note(progress: Path) -> str:
    """How far training is, as its file says."""
    head = "2 of 3: training while the stream goes on, slower"
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(progress.read_text())
        if found["step"] >= found["total"]:
            return f"{head}: exporting, and measuring on held-out rows"
        return f"{head}: update {found['step']:,} of {found['total']:,}"
    return f"{head}: reading what was logged"


def _release(spec: SystemSpec, folder: Path, bootstrap: str, extra: Mapping[str, str]) -> str:
    """Say on `S.control` that the new bundle acts from now on; returns its digest."""
    manifest = read_manifest(folder)
    # The event clock may stand in another year than the wall clock: from the next tick on.
    control = Control("release", 0, bundle=manifest.digest, by="demo")
    say(spec, control, bootstrap, extra)
    return manifest.digest


def _act(show: Show, released: str, ticks: int) -> None:
    """Watch until the new bundle has decided for that many ticks."""
    name = released[:12]
    wanted = ticks * len(show.seen.entities)
    show.say(f"released {name}: it takes over with the next tick")
    show.until(
        lambda seen: seen.bundles[name] >= wanted,
        lambda: f"3 of 3: bundle {name}: {show.seen.bundles[name]:,} of {wanted:,} decisions",
    )


def _phases(scene: Scene, take: Take, released: str) -> tuple[dict[str, dict[str, Any]], int]:
    """What came of the ticks before and after, and of the fallback alone on the same arrivals."""
    rows = read_trajectories(scene.folder / "trajectories")
    if rows is None:
        raise RuntimeError(f"{scene.folder / 'trajectories'}: the sink has written nothing")
    handover = int(rows.filter(pl.col("bundle") == released)["tick"].min())  # type: ignore[arg-type]
    ticks = pl.read_parquet(scene.folder / "ticks.parquet")
    alone = _fallback_alone(scene, take.summaries["plant"]["seed"], ticks["tick"].n_unique())
    begun = pl.col("tick") >= handover
    return {
        BEFORE: _outcome(ticks.filter(~begun)),
        AFTER: _outcome(ticks.filter(begun)),
        ALONE: _outcome(alone.filter(begun)),
    }, handover


def _outcome(rows: pl.DataFrame) -> dict[str, Any]:
    """Mean reward, share of requests in time, and replicas, of some ticks of a plant's log."""
    return {
        "ticks": rows["tick"].n_unique(),
        "reward": rows["reward"].fill_nan(None).mean(),
        "slo": 1.0 - float(rows["late"].sum()) / max(float(rows["requests"].sum()), 1.0),
        "replicas": rows["allocated"].mean(),
    }


def _fallback_alone(scene: Scene, seed: int, ticks: int) -> pl.DataFrame:
    """Every tick under the fallback without exploration: the same plant, seed and arrivals."""
    spec = scene.spec.model_copy(update={"explore": None})
    log = scene.folder / "fallback.parquet"
    plant = make_plant(spec, **scene.plant)
    policy = policies(spec, None)["fallback"]
    backtest(spec, plant, policy, seed=seed, ticks=ticks, decisions=log)
    return pl.read_parquet(log)
