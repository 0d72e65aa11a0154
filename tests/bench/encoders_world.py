"""A world model of robots that see their goals by a camera alone, and one of the true places.

Every picture goes the way of `perceive`: JPEG bytes, its reader, its encoder, of `sight.yaml`. The
true log is of the same robots at the same ticks. Both models are asked where goals truly are, after
a while of filtering and then without seeing anything more.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import streams
from infra.plants.base import Sample, SensorBatch, make_plant
from infra.plants.nav2d import Nav2d
from infra.plants.seen import Seen
from models.actor import ActorConfig
from models.belief import ModelConfig
from models.losses import observe
from models.train import TrainConfig, Trainer
from planner.encoder import Encoder
from schemas.system import SystemSpec, load_spec
from streams.raw_inputs import RawReader
from streams.readings import ReadingEncoder
from tests.bench.logs import dataset
from tests.bench.partial_filters import whole_batch
from tests.bench.partial_world import CHANGE, F64, Log

SPEC = Path(streams.__file__).parent / "examples" / "sight.yaml"
WARM, AHEAD = 15, (1, 5, 20)
"""Ticks of filtering, and ticks after the last picture at which a goal is asked for."""
CONFIG = TrainConfig(
    steps=400,
    actor_steps=0,
    batch=24,
    length=16,
    horizon=4,
    starts=48,
    samples=2,
    noise_rate=10.0,
    model=ModelConfig(memory=24, free=2, units=48, members=3),
    actor=ActorConfig(units=8),
)


class Perceived:
    """What becomes of a plant's samples where `perceive` encodes what it shows."""

    def __init__(self, plant: Nav2d) -> None:
        self._spec, self._shown = plant.spec, ReadingEncoder(plant.spec, plant.entities, raw=True)
        self._readers = {s.name: RawReader(s, raw) for s, raw in plant.spec.perceived}
        self._encoders = {s.name: Encoder(raw, 2, "cpu") for s, raw in plant.spec.perceived}
        self._sensors = {raw.topic: s.name for s, raw in plant.spec.perceived}

    def __call__(self, sample: Sample) -> Sample:
        """The sample with embeddings instead of what they were made of."""
        told: dict[str, F64] = {}
        for group in self._shown.encode(sample, -(2**60)):
            if (name := self._sensors.get(group.topic)) is None:
                continue
            messages = zip(group.keys, group.values, group.headers or (), strict=True)
            reader = self._readers[name]
            rows = [reader.read(key.encode(), value, dict(own)).row for key, value, own in messages]
            told[name] = self._encoders[name].encode(np.stack(rows)).astype(np.float64)
        return replace(sample, batches=tuple(self._changed(b, told) for b in sample.batches))

    def _changed(self, batch: SensorBatch, told: dict[str, F64]) -> SensorBatch:
        if batch.sensor not in told:
            return batch
        (channel,) = batch.values
        return replace(batch, values={channel: told[batch.sensor]})


def camera_spec() -> SystemSpec:
    """`sight.yaml` without its lidar."""
    spec = load_spec(SPEC)
    sensors = {name: sensor for name, sensor in spec.sensors.items() if name != "lidar"}
    return spec.model_copy(update={"sensors": sensors})


def logs(seed: int, robots: int, ticks: int) -> tuple[Log, Log]:
    """Of the same robots, pushed about by chance: what was encoded, and what is true."""
    spec, rng = camera_spec(), np.random.default_rng([seed, 3])
    plant = make_plant(spec, robots=robots, reach=0.0)
    assert isinstance(plant, Nav2d)
    perceived, views = Perceived(plant), (Seen(spec, robots), Seen(spec, robots))
    sample, push, rows = plant.reset(seed), np.zeros((robots, 2)), []
    for tick in range(ticks):
        if tick:
            change = rng.random((robots, 1)) < CHANGE
            push = np.where(change, rng.uniform(-1, 1, (robots, 2)), push)
            sample = plant.step(push)
        for view, shown in zip(views, (perceived(sample), sample), strict=True):
            view.take(shown)
        rows.append((*(view.values(sample.tick) for view in views), push, plant.state))
    encoded, true, applied, state = (np.array(part) for part in zip(*rows, strict=True))
    return Log(encoded, applied, state), Log(true, applied, state)


def run(seed: int, scale: float) -> dict[str, dict[str, float]]:
    """Root mean square errors of where goals are, m along an axis: by readings, and by models."""
    robots, ticks = max(8, round(60 * scale)), 100
    train, test = logs(2 * seed, robots, ticks), logs(2 * seed + 1, robots, WARM + max(AHEAD))
    config = replace(CONFIG, steps=max(1, round(CONFIG.steps * scale)), seed=seed)
    true = test[1].seen[..., :2]
    off = test[0].seen[..., :2] - true
    found = {"readings": {"0": float(np.sqrt(np.square(off).mean()))}}
    last = true[WARM - 1]
    found["persistence"] = {
        str(k): float(np.sqrt(np.square(true[WARM - 1 + k] - last).mean())) for k in (0, *AHEAD)
    }
    for name, log, other in (("embeddings", train[0], test[0]), ("true", train[1], test[1])):
        trainer = Trainer(camera_spec(), dataset(camera_spec(), log.seen, log.applied), config)
        trainer.run()
        told = _imagined(trainer, other)
        errors = np.sqrt(np.square(told - true).mean((1, 2)))
        found[name] = {str(k): float(errors[WARM - 1 + k]) for k in (0, *AHEAD)}
    return found


@torch.no_grad()
def _imagined(trainer: Trainer, log: Log) -> F64:
    """[T, E, 2] where the goal is believed to be, nothing being seen from tick `WARM` on."""
    model, batch = trainer.model, whole_batch(log)
    mask = batch.mask.clone()
    mask[:, WARM:] = 0.0
    trace = observe(model, batch, mask)
    channels, _, _ = model.decode(trace.memory().flatten(0, 1), trace.stack("mean").flatten(0, 1))
    return channels[:, :2].view(len(trace.ticks), -1, 2).numpy().astype(np.float64)
