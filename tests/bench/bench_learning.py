"""The learning bars: each task and seed by `rehearse train`, in a table beside published learners.

python -m tests.bench.bench_learning --out FOLDER [--task NAME …] [--seeds 0 1 2]

What is in FOLDER already is not learned again, and a run that was cut off goes on. Published
figures are at 100,000 decisions at action repeat 2, as TD-MPC2 counts them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REHEARSE = Path(sys.executable).parent / "rehearse"


@dataclass(frozen=True)
class Task:
    """An environment, the decisions it is given, and what others reach at 100,000."""

    env: str
    steps: int
    bar: float
    workflow: str = "control"
    tdmpc2: int | None = None
    sac: int | None = None
    dreamer: int | None = None


TASKS = {
    "pendulum": Task("Pendulum-v1", 400, -200, "few"),
    "cartpole-swingup": Task("dm_control/cartpole-swingup", 10_000, 800, "control", 839, 835, 513),
    "pendulum-swingup": Task("dm_control/pendulum-swingup", 12_000, 700, "control", 724, 96, 716),
    "reacher-easy": Task("dm_control/reacher-easy", 12_000, 900, "control", 937, 540, 727),
    "cheetah-run": Task("dm_control/cheetah-run", 30_000, 519, "control", 519, 310, 308),
    "hopper-stand": Task("dm_control/hopper-stand", 30_000, 28, "control", 28, 2, 120),
    "walker-walk": Task("dm_control/walker-walk", 30_000, 962, "control", 962, 708, 518),
}
FIRST = ("pendulum", "cartpole-swingup", "pendulum-swingup", "reacher-easy")


def learned(name: str, seed: int, folder: Path, steps: int | None) -> dict[str, Any]:
    """What `rehearse train` says of a run; made, or read where it was made before."""
    task, result = TASKS[name], folder / f"{name}-{seed}.json"
    if not result.exists():
        command = [str(REHEARSE), "train", task.workflow, "--env", task.env, "--json", "--resume"]
        command += ["--steps", str(steps or task.steps), "--seed", str(seed)]
        command += ["--out", str(folder / f"{name}-{seed}")]
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        result.write_text(said)
    found: dict[str, Any] = json.loads(result.read_text().splitlines()[-1])
    return found


def row(name: str, runs: list[dict[str, Any]]) -> str:
    """A line of the table: medians over seeds, and the spread of the planner with its actor."""
    task = TASKS[name]

    def middle(who: str) -> float:
        means = [run["returns"].get(who, {}).get("mean") for run in runs]
        return float(statistics.median(x for x in means if x is not None))

    both = sorted(run["returns"]["both"]["mean"] for run in runs)
    others = [x if x is not None else "–" for x in (task.tdmpc2, task.dreamer, task.sac)]
    cells = [
        name,
        f"{runs[0]['steps']:,}",
        f"{task.bar:g}",
        f"{middle('both'):.0f} ({both[0]:.0f} to {both[-1]:.0f})",
        f"{middle('planner'):.0f}",
        f"{middle('actor'):.0f}",
        f"{statistics.median(run['wall_s'] for run in runs) / 60:.0f} min",
        *map(str, others),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Learns what is asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".rehearse/learning"))
    parser.add_argument("--task", nargs="*", choices=TASKS, default=list(FIRST))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="decisions, in place of each task's own")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found = {
        name: [learned(name, seed, given.out, given.steps) for seed in given.seeds]
        for name in given.task
    }
    if given.json:
        print(json.dumps(found))
        return
    head = "task, decisions, bar, planner and actor (seeds), planner alone, actor alone, wall time"
    columns = [*head.split(", "), "TD-MPC2", "DreamerV3", "SAC"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, runs in found.items():
        print(row(name, runs))


if __name__ == "__main__":
    main()
