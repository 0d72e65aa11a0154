"""A reward of the damped mass learned from who brings it to a place: what it says, what it makes.

    python -m tests.bench.inverse_mass --seeds 0 1 2

Nobody is told the true reward, which is minus the distance to that place. A reward is known up to
shaping alone, and in one tick shaping may outweigh it; over a whole episode shaping is but what its
ends are worth. So behaviours are ranked by their returns (Brown et al. 2019), and states only told.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import polars as pl
import torch
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from models.data import load_dataset
from models.evaluation.ranks import spearman
from models.inverse import Demonstrations, InverseTrainer
from models.live import LiveModel
from models.one_head import InverseConfig
from models.parent import Parent
from models.train import TrainConfig, Trainer
from models.workflow import CHECKPOINT, work_folder
from planner.manifest import GRAPHS, seal
from schemas.codes import Flag
from schemas.plain_json import json_line
from schemas.system import SystemSpec, parse_spec
from tests.models.synthetic import advance
from tests.models.test_one_head import AGAIN, FEW, LEARNED, logged

F64 = npt.NDArray[np.float64]
THERE = 1.5
"""Where who demonstrates brings the mass, m; logs without a purpose stay around 0."""
TICKS = 60
"""Of an episode in which behaviours are compared."""
WORLD = replace(FEW, steps=120, actor_steps=0, learning_rate=1e-2)
ACTOR = replace(
    FEW.actor,
    horizon=6,
    starts=40,
    go_on=0.3,
    units=32,
    learning_rate=5e-3,
    follow=0.2,
    discount=0.8,
)
TAUGHT = replace(AGAIN, steps=120, actor_steps=60, learning_rate=3e-3, batch=16, actor=ACTOR)


class Controllers:
    """E controllers that each bring a mass to a place of its own, some of them badly.

    Attributes:
        goal: `[E]` m;  push: N/m;  damp: N s/m;  shake: N, standard deviation of a white noise.
    """

    def __init__(self, goal: F64, push: F64, damp: F64, shake: F64, seed: int) -> None:
        self.goal, self.push, self.damp, self.shake = goal, push, damp, shake
        self._rng = np.random.default_rng([seed, 31])

    @classmethod
    def well(cls, count: int) -> Controllers:
        """Who demonstrates."""
        goal, push, damp, shake = (np.full(count, x) for x in (THERE, 2.0, 1.5, 0.0))
        return cls(goal, push, damp, shake, seed=0)

    @classmethod
    def anyhow(cls, count: int, seed: int) -> Controllers:
        """Places, strengths and noise of every kind."""
        rng = np.random.default_rng([seed, 37])
        ranges = ((-3.0, 3.0), (0.0, 3.0), (0.5, 2.0), (0.0, 2.0))
        goal, push, damp, shake = (rng.uniform(*ends, count) for ends in ranges)
        return cls(goal, push, damp, shake, seed)

    def __call__(self, state: F64, force: F64) -> F64:
        """`[E]` forces, N, for states `[E, 2]` after forces `[E]`."""
        wanted = 0.5 * self.goal + self.push * (self.goal - state[:, 0]) - self.damp * state[:, 1]
        wanted = wanted + self.shake * self._rng.normal(size=len(wanted))
        return np.clip(np.clip(wanted, force - 1, force + 1), -2, 2)

    def act(self, ticks: int, seed: int) -> tuple[F64, F64]:
        """States `[T, E, 2]`, and forces `[T, E]` that led there."""
        state, states, forces = started(len(self.goal), seed), [], []
        force = np.zeros(len(state))
        for _ in range(ticks):
            states.append(state)
            forces.append(force)
            force = self(state, force)
            state = advance(state, force)
        return np.stack(states), np.stack(forces)


def started(count: int, seed: int) -> F64:
    """`[E, 2]` states that episodes begin with."""
    return np.random.default_rng(seed).normal(0, 1, (count, 2))


def demonstrated(folder: Path, paid: float | None, seed: int = 3) -> Path:
    """A log of who brings the mass to `THERE` and keeps it; what it was paid is not the truth."""
    states, forces = Controllers.well(4).act(80, seed)
    rows = []
    for tick, (state, force) in enumerate(zip(states, forces, strict=True)):
        frame = {
            "entity": [f"m{i}" for i in range(4)],
            "tick": np.full(4, tick),
            "place": state[:, 0],
            "speed": state[:, 1],
            "applied:force": force if tick else np.full(4, np.nan),
            "flags": np.full(4, int(Flag.JOINED) if tick == 0 else 0, np.uint8),
            "reward": pl.Series([paid] * 4, dtype=pl.Float32),
        }
        rows.append(pl.DataFrame(frame))
    folder.mkdir(parents=True)
    pl.concat(rows).write_parquet(folder / "part-0.parquet")
    return folder


def world(spec: SystemSpec, logs: list[Path], folder: Path, config: TrainConfig) -> Path:
    """A bundle with idle graphs, as export takes longer than the model: enough to learn on from."""
    dataset = load_dataset(spec, logs)
    trainer = Trainer(spec, dataset, config)
    trainer.run()
    trainer.save(work_folder(folder) / CHECKPOINT)
    folder.mkdir(parents=True)
    x, y = (make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y"))
    graph = make_graph([make_node("Identity", ["x"], ["y"])], "none", [x], [y])
    for name in GRAPHS[:2]:
        onnx.save(
            make_model(graph, ir_version=10, opset_imports=[make_opsetid("", 18)]), folder / name
        )
    model, scales = trainer.model, (*dataset.columns, *dataset.actions)
    lineage = {"datasets": [], "config": asdict(config), "scales": [x.as_dict() for x in scales]}
    what = {
        "name": spec.system,
        "system": spec.system,
        "created": "",
        "interface_hash": spec.interface_hash,
        "objective_hash": spec.objective_hash,
        "columns": spec.columns,
        "action_columns": spec.action_columns,
        "hidden": model.hidden,
        "latent": model.latent,
        "members": config.model.members,
        "calibration": {"innovation_band": 1.0, "channel_scale": [1.0] * len(spec.columns)},
        "lineage": {**lineage, "fingerprint": trainer.fingerprint()},
    }
    seal(folder, what)
    return folder


def figures(trainer: InverseTrainer, seed: int = 77) -> dict[str, float]:
    """What the learned reward says, and what is made of it.

    Returns:
        Rank correlations with the truth: of the returns of 64 controllers, and of single states of
        logs; how far demonstrations are ahead of these, in the reward's spreads; and true returns.
    """
    live, model = LiveModel(trainer.model, trainer.behaviour), trainer.model

    def worth(states: F64, forces: F64) -> F64:
        """`[T, E]` rewards in the beliefs along these."""
        h, z = fresh(live, states.shape[1])
        found = []
        for state, force in zip(states, forces, strict=True):
            seen = state.astype(np.float32)
            after = live.believe(h, z, force[:, None].astype(np.float32), seen, np.ones_like(seen))
            h, z = after.h, after.mean
            with torch.no_grad():
                memory = torch.zeros(len(z), model.config.memory)
                found.append(model.decode(memory, torch.from_numpy(z))[2].numpy())
        return np.stack(found).astype(np.float64)

    made = Controllers.anyhow(64, seed).act(TICKS, seed)
    none = np.zeros(64)
    aimless = Controllers(none, none, none, np.full(64, 2.0), seed)
    wandered, shown = aimless.act(TICKS, seed), Controllers.well(64).act(TICKS, seed)
    said, theirs = worth(*wandered), worth(*shown)
    nothing = Controllers(none, none, none, none, seed).act(TICKS, seed)
    return {
        "ranks of behaviours": spearman(worth(*made)[4:].sum(0), true(made[0])[4:].sum(0)),
        "ranks of states": spearman(said[4:].ravel(), true(wandered[0])[4:].ravel()),
        "ahead": float(theirs.mean() - said.mean()),
        "demonstrator": float(true(shown[0]).sum(0).mean()),
        "learner": float(true(acted(live, 64, seed)).sum(0).mean()),
        "wandering": float(true(wandered[0]).sum(0).mean()),
        "nothing": float(true(nothing[0]).sum(0).mean()),
    }


def true(states: F64) -> F64:
    """`[T, E]` what is wanted: to be there."""
    return -np.abs(states[..., 0] - THERE)


def fresh(live: LiveModel, count: int) -> tuple[npt.NDArray[np.float32], ...]:
    """Beliefs of whom nothing is known."""
    return tuple(np.zeros((count, size), np.float32) for size in (live.hidden, live.latent))


def acted(live: LiveModel, count: int, seed: int) -> F64:
    """`[T, E, 2]` states that the learned actor comes to."""
    (h, z), state, force = fresh(live, count), started(count, seed), np.zeros((count, 1))
    states = []
    for _ in range(TICKS):
        states.append(state)
        seen = state.astype(np.float32)
        after = live.believe(h, z, force.astype(np.float32), seen, np.ones_like(seen))
        h, z = after.h, after.mean
        force = live.act(h, z).astype(np.float64)
        state = advance(state, force[:, 0])
    return np.stack(states)


def taught(
    spec: SystemSpec,
    logs: list[Path],
    shown: Path,
    folder: Path,
    configs: tuple[TrainConfig, TrainConfig],
    inverse: InverseConfig,
) -> InverseTrainer:
    """World, then reward and actor, from nothing, each by its settings of `configs`."""
    made = world(spec, logs, folder / "made", configs[0])
    parent = Parent.read(made, lambda bundle: work_folder(bundle) / CHECKPOINT)
    what = Demonstrations.read(spec, [shown])
    trainer = InverseTrainer(spec, load_dataset(spec, logs), what, configs[1], inverse, parent)
    trainer.run()
    return trainer


def run(seed: int, folder: Path, inverse: InverseConfig) -> dict[str, float]:
    """The `figures` of one seed, which is that of logs, too."""
    log = logged(folder / "log", "null", seed)
    shown = demonstrated(folder / "shown", None, 3 + seed)
    configs = replace(WORLD, seed=seed), replace(TAUGHT, seed=seed)
    return figures(taught(parse_spec(LEARNED), [log], shown, folder, configs, inverse))


def main() -> None:
    """A line of JSON per seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--answers", type=int, default=InverseConfig.answers)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found = run(seed, Path(folder), InverseConfig(answers=given.answers))
        rounded = {name: round(value, 2) for name, value in found.items()}
        sys.stdout.write(json_line({"seed": seed, **rounded}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
