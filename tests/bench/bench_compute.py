"""What an update of model and actor costs by what it is computed with, side by side.

    python -m tests.bench.bench_compute --device cuda --updates 30

prints a line of JSON for each size and way: medians of milliseconds, synchronised with the device.
Ways take turns update by update, so that a busy spell of the machine meets all of them. `usual` is
the size of the shipped workflow `control`, `wide` that of a learner which a GPU is bought for.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from models.compute import Compute, DeviceName
from models.data import load_dataset
from models.recipe import load_recipe
from models.train import TrainConfig, Trainer
from schemas.plain_json import json_line
from tests.models.synthetic import mass_spec, write_run

WARM_UP = 3  # updates that are not counted: what is compiled is compiled there


def sizes() -> dict[str, TrainConfig]:
    """What is trained."""
    usual = load_recipe("control").with_options({"loop.steps": 10_000}).train_config()
    model = replace(usual.model, units=512, memory=512, layers=2)
    actor = replace(usual.actor, units=512, starts=2000, horizon=15)
    wide = replace(usual, batch=256, length=32, starts=1000, horizon=12, model=model, actor=actor)
    return {"usual": usual, "wide": wide}


def ways(device: DeviceName, compiled: bool) -> Iterator[tuple[str, Compute]]:
    """Float32 on the CPU, and what there is on `device`."""
    yield "cpu", Compute()
    for precision in ("float32", "bfloat16"):
        for swift in (False, True) if compiled else (False,):
            compute = Compute(device, "bfloat16" if precision == "bfloat16" else "float32", swift)
            if compute != Compute():
                yield f"{device} {precision}{' compiled' if swift else ''}", compute


def timed(update: Callable[[], object], device: DeviceName) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    update()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - began)


def measure(
    name: str, config: TrainConfig, of: Sequence[tuple[str, Compute]], updates: int
) -> None:
    """A line for each way."""
    torch.compiler.reset()  # what was compiled for other sizes counts against a limit
    spec = mass_spec()
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset(spec, [write_run(Path(folder) / "run", entities=8, ticks=700)])
    trainers = [(way, Trainer(spec, dataset, config, compute)) for way, compute in of]
    spent: dict[str, dict[str, list[float]]] = {way: {"model": [], "actor": []} for way, _ in of}
    first = dict.fromkeys(spent, 0.0)
    for i in range(WARM_UP + updates):
        for way, trainer in trainers:
            device, total = trainer.compute.device, trainer.config.steps
            model = timed(lambda t=trainer, k=i: t.learn_model(k), device)  # type: ignore[misc]
            actor = timed(lambda t=trainer, k=i + total: t.learn_actor(k), device)  # type: ignore[misc]
            if i < WARM_UP:
                first[way] += (model + actor) / 1e3
            else:
                spent[way]["model"].append(model)
                spent[way]["actor"].append(actor)
    middle = {way: {k: statistics.median(v) for k, v in of.items()} for way, of in spent.items()}
    reference = sum(middle["cpu"].values())
    for way, found in middle.items():
        print(
            json_line(
                {
                    "size": name,
                    "way": way,
                    "model_ms": round(found["model"], 1),
                    "actor_ms": round(found["actor"], 1),
                    "times_cpu": round(reference / sum(found.values()), 2),
                    "first_s": round(first[way], 1),
                }
            ),
            flush=True,
        )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=tuple(sizes()), nargs="*", default=list(sizes()))
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")
    parser.add_argument("--compile", action="store_true", help="compiled ways too; minutes first")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("cuda: torch finds no usable GPU here; choose --device cpu")
    torch.set_num_threads(given.threads)
    for name in given.size:
        measure(name, sizes()[name], list(ways(given.device, given.compile)), given.updates)


if __name__ == "__main__":
    main()
