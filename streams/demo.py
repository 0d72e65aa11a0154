"""The demo: a whole system on real topics, watched live, set beside others, written to a report."""

import os
import signal
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.priority import make_room
from streams.baselines import baselines, gap_closed
from streams.bundles import Shelf
from streams.comparison import compare_policies
from streams.demo_scene import NAV2D_TICKS, DemoOptions, Scene, set_scene
from streams.demo_stage import Show, Stage, Take
from streams.supervise import end_with_parent


def run_demo(
    options: DemoOptions, home: Path, bootstrap: str, extra: Mapping[str, str], console: Console
) -> dict[str, Any]:
    """The whole demo of a system; the result is what `rehearse demo --json` prints."""
    scene = set_scene(options, home)
    judging = _Judging(scene, options, home)
    try:
        with Stage(scene, options, bootstrap, extra) as stage:
            if scene.window is not None:
                total, clock = _ticks(scene), "event"
            else:
                total, clock = scene.ticks or NAV2D_TICKS, "wall"
            stage.start_loop(clock, options.bundles)
            with console.status("waiting for the worker"):
                stage.wait_for_worker()
            plant = stage.start_plant(lockstep=clock == "event")
            show = Show(stage, console, total)
            # The last tick is sent, and not waited for; what the plant does then takes a while.
            show.until(
                lambda seen: plant.poll() is not None or (clock == "wall" and seen.ticks > total)
            )
            take = show.finish()
        with console.status("comparing with others on the same arrivals"):
            verdict = judging.verdict(take)
    finally:
        judging.close()
    result = summary(scene, options, take, verdict)
    from streams.demo_report import write_report

    report = write_report(scene, take, result, home / "reports")
    return {**_without_courses(result), "report": str(report)}


def _without_courses(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result without the baselines' course over the day, which only the report shows."""
    others = {
        name: {key: value for key, value in score.items() if not isinstance(value, list)}
        for name, score in result.get("baselines", {}).items()
    }
    return {**result, **({"baselines": others} if others else {})}


def _ticks(scene: Scene) -> int:
    assert scene.window is not None
    whole = int(scene.window.scored.seconds * 1e6 / scene.spec.period_us)
    return min(whole, scene.ticks or whole)


class _Judging:
    """Baselines, computed at low priority in a process of their own while the stream runs."""

    def __init__(self, scene: Scene, options: DemoOptions, home: Path) -> None:
        self.scene, self.options = scene, options
        self.child: SpawnProcess | None = None
        if scene.window is not None and scene.ticks is None:
            given = {k: v for k, v in scene.plant.items() if k != "trace"}
            arguments = (scene.spec, given, scene.window, options.seed, home / "cache")
            context = get_context("spawn")
            self.answer, sender = context.Pipe(duplex=False)
            self.child = context.Process(target=_judge, args=(sender, *arguments), daemon=True)
            self.child.start()
            sender.close()

    def verdict(self, take: Take) -> dict[str, Any]:
        """What the result says of others: baselines and the gap, or other policies' returns."""
        score = take.summaries["plant"]["score"]
        if self.scene.window is None:
            others = compare_policies(
                self.scene.spec,
                Shelf(self.scene.spec, self.options.bundles).get(None),
                self.options.seed,
                self.scene.ticks or NAV2D_TICKS,
                self.scene.plant,
            )
            return {"reached": score["reached"], "returns": others}
        verdict = {name: score[name] for name in ("cost", "cost_ratio", "slo", "flips")}
        if self.child is None:
            return verdict
        try:
            others = self.answer.recv()
        except EOFError:
            raise RuntimeError("the baselines' process ended early; see above") from None
        return {**verdict, "baselines": others, "gap_closed": gap_closed(score, others)}

    def close(self) -> None:
        """Stop what is still computing."""
        if self.child is not None:
            self.child.terminate()
            self.child.join()


def _judge(sender: "Connection[Any, Any]", *arguments: Any) -> None:
    """Compute the baselines with the time that the stream leaves over, and send them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the demo's; it ends this process
    end_with_parent(os.getppid(), lambda: os._exit(1))
    make_room(5)
    sender.send(baselines(*arguments))


def summary(
    scene: Scene, options: DemoOptions, take: Take, verdict: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of a run as plain JSON values."""
    seen, plant = take.statistics, take.summaries["plant"]
    sink = take.summaries["sink"]
    return {
        **scene.facts,
        "run": scene.folder.name,
        "folder": str(scene.folder),
        "seed": options.seed,
        "seconds": round(take.seconds, 1),
        "entities": len(seen.entities),
        "ticks": plant["ticks"],
        "frames": seen.frames,
        "frames_lost": sink["frames_lost"],
        "decisions": seen.decisions,
        "modes": dict(seen.modes),
        "deadline_ms": scene.spec.budget.deadline_us / 1e3,
        "gate": dict(seen.gate),
        "bundles": dict(seen.bundles),
        "latency_ms": plant["latency_ms"],
        "tick_to_action_ms": plant["tick_to_action_ms"],
        "send_lateness_ms": plant["send_lateness_ms"],
        "stolen_ms": plant["stolen_ms"],
        "statuses": plant["statuses"],
        "missing": plant["missing"],
        "restarts": take.restarts,
        **verdict,
    }
