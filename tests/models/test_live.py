"""A model in training answers as the bundle that is exported from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.live import CURIOUS, LiveModel
from planner.manifest import MANIFEST, seal
from planner.session import Bundle, load_bundle
from tests.models.conftest import Trained


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "mass"
    shutil.copytree(bundle_folder, folder)
    content = json.loads((folder / MANIFEST).read_text())
    for name in ("format", "files", "digest"):
        del content[name]
    calibration = content["calibration"] | {"discount": 0.98}
    calibration["channel_scale"] = [1.0] * len(content["columns"])
    seal(folder, {**content, "calibration": calibration, "actor_trusted": True})
    return load_bundle(folder, provider="cpu")


def live_of(trained: Trained, **options: float) -> LiveModel:
    return LiveModel(trained.trainer.model, trained.trainer.behaviour, **options)  # type: ignore[arg-type]


def inputs(trained: Trained, rows: int, ticks: int) -> dict[str, np.ndarray]:
    model, rng = trained.trainer.model, np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    h, z = np.zeros((rows, model.hidden), np.float32), np.zeros((rows, model.latent), np.float32)
    action, obs = 0.3 * normal(rows, model.actions), normal(rows, model.observations)
    mask = (rng.random(obs.shape) < 0.7).astype(np.float32)
    members = model.config.members
    return {
        "h": h,
        "z": z,
        "action": action,
        "obs": obs,
        "mask": mask,
        "actions": 0.3 * normal(ticks, members, rows, model.actions),
        "noise": normal(ticks, members, rows, model.latent),
    }


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_it_answers_as_its_export(trained: Trained, bundle: Bundle) -> None:
    live, given = live_of(trained), inputs(trained, 4, 5)
    belief = [given[name] for name in ("h", "z", "action", "obs", "mask")]
    ours, theirs = live.believe(*belief), bundle.believe(*belief)
    for name in ("h", "mean", "std", "innovation"):
        close(getattr(ours, name), getattr(theirs, name))
    members = live.members
    assert (members, live.hidden, live.latent) == (5, bundle.hidden, bundle.latent)
    h, z = (np.repeat(x[None], members, 0) for x in (theirs.h, theirs.mean))
    mine = live.imagine(h, z, given["actions"], given["noise"])
    known = bundle.imagine(h, z, given["actions"], given["noise"])
    for name in ("channels", "alive", "value"):
        close(getattr(mine, name), getattr(known, name))
    close(live.act(theirs.h, theirs.mean), bundle.act(theirs.h, theirs.mean))
    first = given["actions"][0]
    close(live.drive(h, z, first, given["noise"]), bundle.drive(h, z, first, given["noise"]))
    once = theirs.h, theirs.mean, given["action"], given["noise"][0, 0]
    close(live.next(*once), bundle.next(*once))


def test_curiosity_pays_for_disagreement_and_for_nothing_else(trained: Trained) -> None:
    given = inputs(trained, 3, 4)
    plain, curious = live_of(trained), live_of(trained, curiosity=0.5)
    h, z = (np.repeat(given[name][None], plain.members, 0) for name in ("h", "z"))
    a, b = (m.imagine(h, z, given["actions"], given["noise"]) for m in (plain, curious))
    np.testing.assert_array_equal(a.channels, b.channels)
    np.testing.assert_array_equal(a.value, b.value)
    paid = b.reward - a.reward
    assert (paid > 0).all()
    assert (paid <= 0.5 * CURIOUS).all()
    far = given["actions"] * 1000
    known, strange = (m.imagine(h, z, far, given["noise"]).reward for m in (plain, curious))
    assert (strange - known).mean() > 2 * paid.mean()


def test_the_actor_is_trusted_as_asked(trained: Trained) -> None:
    assert live_of(trained).trusted_actor(trained.spec)
    assert not live_of(trained, with_actor=False).trusted_actor(trained.spec)
