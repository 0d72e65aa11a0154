"""Encoders, each beside what it has to be better than.

    python -m tests.bench.bench_encoders --only crowd fusion --seeds 0 1 2

space: a goal from a lidar's returns, as points and as voxels. crowd: how robots that push each
other will move, by graph attention, by the mean over the others, by oneself alone. pretraining: few
labels after masked pretraining, and from scratch. fusion: a camera and a lidar, either away at
times, by a product of experts and side by side. world: a world model of embeddings, and of the
truth. Prints medians over the seeds, and from the least to the greatest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from schemas.plain_json import json_line
from tests.bench import (
    encoders_crowd,
    encoders_fusion,
    encoders_pretraining,
    encoders_space,
    encoders_world,
)

PARTS: dict[str, Callable[[int, float], Mapping[str, Any]]] = {
    "space": encoders_space.run,
    "crowd": encoders_crowd.run,
    "pretraining": encoders_pretraining.run,
    "fusion": encoders_fusion.run,
    "world": encoders_world.run,
}


def flat(found: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested mappings, under their names with spaces between."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name} ")
        else:
            yield f"{before}{name}", float(value)


def told(part: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """A line per number: its median, and its spread where there are several seeds."""
    rows = [dict(flat(run)) for run in runs]
    lines = [part]
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = f"  ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
        lines.append(f"  {name:32} {statistics.median(values):.4f}{spread}")
    return "\n".join(lines)


def main() -> None:
    """All that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--scale", type=float, default=1.0, help="of updates and data")
    parser.add_argument("--json", action="store_true", help="a line of JSON per part and seed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for part in given.only:
        runs = []
        for seed in given.seeds:
            runs.append(PARTS[part](seed, given.scale))
            if given.json:
                facts = {"part": part, "seed": seed, "scale": given.scale}
                sys.stdout.write(json_line({**facts, "found": runs[-1]}) + "\n")
                sys.stdout.flush()
        if not given.json:
            print(told(part, runs), flush=True)


if __name__ == "__main__":
    main()
