"""From simulator to a plant that has changed: returns before, with randomisation, after adaptation.

    python -m tests.bench.bench_transfer --out FOLDER [--system nav2d] [--seeds 0 1 2]

Two bundles are trained, on the usual plant and on one whose parameters are drawn per episode. For
each change the first is adapted to the last minutes of one changed entity, by an adapter and with
all weights. All are judged on the changed plant from the same resets: the planner with its actor,
without it, and the actor alone; and by the error of futures on a log of it that nobody learned
from. What is in FOLDER already is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from infra.plants.base import make_plant
from models.data import load_whole
from models.evaluation.held_out import evaluate
from models.evaluation.world import World
from models.metrics import ROLLOUT, measured
from models.practice import Planned, judge
from models.undertaking import POLICIES
from models.workflow import SPEC
from planner.session import load_bundle
from schemas.plain_json import json_line
from schemas.system import load_spec

REHEARSE = Path(sys.executable).parent / "rehearse"
ERROR = f"{ROLLOUT}10"
BUNDLES = ("before", "randomised", "adapter", "all")
JUDGED = 30_011


@dataclass(frozen=True)
class System:
    """What is controlled: the option that counts entities, ranges, changes, lengths of runs.

    `changes`: by name, options of the plant as `-o` takes them, and as a plant does.
    """

    count: str
    entity: str
    ranges: tuple[str, ...]
    changes: dict[str, tuple[str, dict[str, Any]]]
    judged: int
    ticks: int
    logged: int


SYSTEMS = {
    "nav2d": System(
        count="robots",
        entity="robot-00",
        ranges=("mass=[0.67, 1.6]", "drag=[0.0, 0.8]", "action_delay=[0.0, 0.3]"),
        changes={
            "mass × 1.5": ("mass=1.5", {"mass": 1.5}),
            "drag 0.6 1/s": ("drag=0.6", {"drag": 0.6}),
            "delay 300 ms": ("action_delay=0.3", {"action_delay": 0.3}),
        },
        judged=12,
        ticks=150,
        logged=300,
    ),
    "Pendulum-v1": System(
        count="entities",
        entity="env-00",
        ranges=("m=[0.67, 1.6]", "friction=[0.0, 0.6]", "action_delay=[0.0, 0.1]"),
        changes={
            "mass × 1.5": ("set={m: 1.5}", {"set": {"m": 1.5}}),
            "friction 0.5 1/s": ("friction=0.5", {"friction": 0.5}),
            "delay 100 ms": ("action_delay=0.1", {"action_delay": 0.1}),
        },
        judged=8,
        ticks=200,
        logged=1200,
    ),
}


def rehearse(*words: object) -> int:
    """Runs a command, its figures going nowhere; its exit status, where that is no error."""
    done = subprocess.run([str(REHEARSE), *map(str, words)], stdout=subprocess.DEVNULL, check=False)
    if (done.returncode and words[0] != "adapt") or done.returncode > 1:
        raise RuntimeError(f"rehearse {' '.join(map(str, words))}: status {done.returncode}")
    return done.returncode


def log(spec: Path | str, folder: Path, seed: int, ticks: int, *options: str) -> Path:
    """Trajectories of an explored fallback; made where they are not there."""
    if not folder.exists():
        words = [word for option in options for word in ("-o", option)]
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        explored = ("--policy", "explore", "--seed", seed, "--ticks", ticks, "--log", part)
        rehearse("backtest", spec, *explored, *words)
        part.rename(folder)
    return folder


def trained(name: str, folder: Path, seed: int, steps: int | None) -> dict[str, Path]:
    """The bundles `before` and `randomised`."""
    system, made = SYSTEMS[name], {}
    drawn = {"before": (), "randomised": system.ranges}
    for kind, ranges in drawn.items():
        made[kind] = folder / kind
        if (made[kind] / "manifest.json").exists():
            continue
        if name == "nav2d":
            ranged = ", ".join(r.replace("=", ": ") for r in ranges)
            varied = (f"randomise={{{ranged}}}", "robots=40")
            data = log(name, folder / f"log-{kind}", seed, 300, *varied)
            words: list[object] = ["nav2d", "--data", data, "--steps", steps or 600]
        else:
            words = ["few", "--env", name, "--steps", steps or 400]
            words += [word for one in ranges for word in ("--randomise", one)]
        rehearse("train", *words, "--seed", seed, "--out", made[kind])
    return made


def adapted(
    name: str, folder: Path, change: str, seed: int, minutes: float
) -> tuple[dict[str, Path], Path]:
    """The adapted bundles, the parent where it was kept; and a log of the change to judge on."""
    system, parent = SYSTEMS[name], folder / "before"
    spec = name if name == "nav2d" else parent / SPEC
    option, place, made = system.changes[change][0], folder / change.replace(" ", "-"), {}
    few = f"{system.count}=2"
    stream = log(spec, place / "stream", seed + 1, system.logged, option, few)
    other = log(spec, place / "other", seed + 2, 300, option, f"{system.count}=6")
    for kind, more in (("adapter", ()), ("all", ("--all",))):
        out = place / kind
        told = place / f"{kind}.json"
        if not told.exists():
            target = ("--entity", system.entity, "--minutes", minutes)
            status = rehearse("adapt", parent, "--data", stream, *target, "--out", out, *more)
            told.write_text(json.dumps({"adopted": status == 0}))
        made[kind] = out if json.loads(told.read_text())["adopted"] else parent
    return made, other


def judged(name: str, bundle: Path, change: str, other: Path, seed: int) -> dict[str, float]:
    """Mean return of each policy on the changed plant, and the error of futures 10 ticks ahead."""
    system = SYSTEMS[name]
    spec = load_spec(name if name == "nav2d" else bundle / SPEC)
    loaded = load_bundle(bundle, provider="cpu")
    options = {**system.changes[change][1], system.count: system.judged, "randomise": {}}
    found: dict[str, float] = {}
    for who in POLICIES:
        world = World(spec, make_plant(spec, **options), loaded)
        policy = Planned(spec, loaded, world.entities, seed, who=who)
        returns, _ = judge(world, policy, system.ticks, JUDGED + seed)
        found[who] = round(float(returns.each.mean()), 1)
    seen = evaluate(loaded, spec, load_whole(spec, [other]), windows=256, seed=seed)
    found[ERROR] = measured({ERROR: None}, seen, "")[ERROR]["value"]
    return found


def main() -> None:
    """A line of JSON for each system, seed, change and bundle, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".rehearse/transfer"))
    parser.add_argument("--system", nargs="*", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--steps", type=int, help="of training, in place of each system's own")
    parser.add_argument("--minutes", type=float, default=0.5, help="of the target's stream")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.system:
        for seed in given.seeds:
            folder = given.out / f"{name}-{seed}"
            bundles = trained(name, folder, seed, given.steps)
            for change in SYSTEMS[name].changes:
                more, other = adapted(name, folder, change, seed, given.minutes)
                for kind, bundle in {**bundles, **more}.items():
                    found = judged(name, bundle, change, other, seed)
                    line = {"system": name, "seed": seed, "change": change, "bundle": kind}
                    kept = kind in more and bundle == bundles["before"]
                    rows.append({**line, "kept_parent": kept, **found})
                    sys.stdout.write(json_line(rows[-1]) + "\n")
                    sys.stdout.flush()
    names = ["system", "seed", "change", "bundle", *POLICIES, ERROR]
    sys.stdout.write(f"| {' | '.join(names)} |\n|{'---|' * len(names)}\n")
    for row in rows:
        told = f"{row['bundle']} (parent kept)" if row["kept_parent"] else row["bundle"]
        cells = [str({**row, "bundle": told}[name]) for name in names]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
