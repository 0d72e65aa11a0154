"""Few labels: a series encoder that was pretrained on waveforms without any, and one from scratch.

Waveforms go through Parquet as `rehearse pretrain` reads them; who was pretrained, and who was not,
learns from the same labels with the same updates.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from infra.plants.waveforms import SPEEDS_HZ, vibrations
from models.encoders.pretrain import WEIGHTS, Pretrainer, prepared, released
from models.encoders.pretrain_recipe import Pretraining
from models.encoders.windows import read_windows

LABELS = (32, 128, 512)
COLUMNS = ("speed", "severity")
JUDGED = 1_000


def write(path: Path, count: int, seed: int) -> None:
    """`count` waveforms and how the shaft turned, a row each."""
    rng = np.random.default_rng([seed, 7])
    speed, severity = rng.uniform(*SPEEDS_HZ, count), rng.random(count)
    waves = vibrations(speed, severity, rng)[..., 0].astype(np.float32)
    pl.DataFrame({"wave": list(waves), "speed": speed, "severity": severity}).write_parquet(path)


def run(seed: int, scale: float) -> dict[str, dict[str, float]]:
    """Per number of labels the error on fresh waveforms, root mean square in spreads of labels."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder / "plain.parquet", max(64, round(8_192 * scale)), 3 * seed)
        write(folder / "told.parquet", max(LABELS), 3 * seed + 1)
        write(folder / "fresh.parquet", JUDGED, 3 * seed + 2)
        data = {"files": [folder / "plain.parquet"], "series": ["wave"]}
        loop = {"steps": round(2_000 * scale), "finetune_steps": max(1, round(300 * scale))}
        base = {"seed": seed, "data": data, "loop": loop}
        learner, _ = prepared(Pretraining.model_validate(base))
        learner.run()
        released(learner, None, folder)
        told, fresh = (
            read_windows([folder / f"{part}.parquet"], ["wave"], 256, 256, COLUMNS)
            for part in ("told", "fresh")
        )
        for name, part in (("pretrained", {"of": folder / WEIGHTS}), ("scratch", {})):
            content = {**base, "encoder": part, "loop": {**loop, "steps": 0}}
            recipe = Pretraining.model_validate(content)
            for count in LABELS:
                labelled = told[0][:count], told[1][:count]
                taught = Pretrainer(recipe, learner.windows, labelled)
                taught.run()
                error = float(np.sqrt(np.square(taught.errors(*fresh)).mean()))
                found.setdefault(str(count), {})[name] = error
    return found
