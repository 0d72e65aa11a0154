"""Bundles: what is wrong is said with file, field and remedy; what is right runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner import runtime, session
from planner.manifest import MANIFEST, BundleError, digest_of, read_bundle, read_manifest
from planner.session import load_bundle
from schemas.system import load_spec
from tests.planner.worlds import MEMBERS, double_integrator, edited, make_bundle, write_bundle

SPEC = load_spec("nav2d")


def _rewrite(folder: Path, change: Callable[[dict[str, Any]], object], seal: bool = True) -> None:
    """Changes the manifest; with `seal` its digest is made right again."""
    path = folder / MANIFEST
    content = json.loads(path.read_text())
    change(content)
    if seal:
        content["digest"] = digest_of(content)
    path.write_text(json.dumps(content))


def test_a_sound_bundle_loads_and_says_what_it_is(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, SPEC, double_integrator())
    assert (bundle.hidden, bundle.latent, bundle.members) == (6, 2, MEMBERS)
    assert bundle.provider == "cpu"
    assert bundle.digest == json.loads((tmp_path / MANIFEST).read_text())["digest"]
    assert len(bundle.digest) == 64
    assert bundle.innovation_band == 4.0
    bundle.check(SPEC)
    assert bundle.trusted_actor(SPEC)


def test_the_digest_covers_every_field_and_no_formatting(tmp_path: Path) -> None:
    manifest = json.loads(
        (write_bundle(tmp_path, SPEC, double_integrator()) / MANIFEST).read_text()
    )
    assert digest_of(dict(reversed(manifest.items()))) == manifest["digest"]
    for key in manifest.keys() - {"digest"}:
        assert digest_of({**manifest, key: "other"}) != manifest["digest"]


@pytest.mark.parametrize(
    ("change", "seal", "words"),
    [
        (lambda m: m.update(name="other"), False, ["digest", "changed", "fetch"]),
        (lambda m: m.update(format=2), True, ["format", "2"]),
        (lambda m: m.pop("hidden"), True, ["hidden"]),
        (lambda m: m.update(hidden="six"), True, ["hidden"]),
        (lambda m: m["files"].pop("imagine.onnx"), True, ["files", "imagine.onnx"]),
        (lambda m: m["files"]["actor.onnx"].update(bytes=3), True, ["actor.onnx", "bytes"]),
        (lambda m: m["files"]["actor.onnx"].update(sha256="00"), True, ["actor.onnx", "SHA-256"]),
        (
            lambda m: m["files"].update({"../x": {"sha256": "", "bytes": 0}}),
            True,
            ["files", "../x", "file name"],
        ),
        (
            lambda m: m["files"].update({"more.onnx": {"sha256": "", "bytes": 0}}),
            True,
            ["more.onnx", "missing"],
        ),
        (lambda m: m.update(hidden=7), True, ["hidden 7", "export"]),
        (lambda m: m.update(members=4), True, ["members 4", "export"]),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], seal: bool, words: list[str]
) -> None:
    write_bundle(tmp_path, SPEC, double_integrator())
    _rewrite(tmp_path, change, seal)
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path, provider="cpu")
    for word in [str(tmp_path), *words]:
        assert word in str(caught.value)


def test_a_file_that_was_changed_or_is_gone(tmp_path: Path) -> None:
    write_bundle(tmp_path, SPEC, double_integrator())
    graph = tmp_path / "imagine.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"imagine\.onnx.*SHA-256"):
        read_manifest(tmp_path)
    graph.unlink()
    with pytest.raises(BundleError, match=r"imagine\.onnx.*missing"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(BundleError, match=r"manifest\.json.*bundle folder"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_graph_that_is_no_graph(tmp_path: Path) -> None:
    write_bundle(tmp_path, SPEC, double_integrator())
    manifest, graphs = read_bundle(tmp_path)
    for data, words in (
        (graphs["actor.onnx"], "a believe graph has inputs"),
        (b"junk", "ONNX graph"),
    ):
        with pytest.raises(BundleError, match=words):
            session.Bundle(tmp_path, manifest, graphs | {"believe.onnx": data}, "cpu", 1)


def test_a_bundle_for_another_interface_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "a", SPEC, double_integrator())
    slower = edited("nav2d", ("tick: 100 ms", "tick: 200 ms"))
    with pytest.raises(BundleError, match=r"interface_hash.*rehearse train nav2d"):
        bundle.check(slower)
    renamed = edited(
        "nav2d", ("  mission:", "  orders:"), ("goal: {unit", "aim: {unit"), ("goal[", "aim[")
    )
    with pytest.raises(BundleError, match="field columns"):
        bundle.check(renamed)
    short = {"innovation_band": 1.0, "channel_scale": [1.0]}
    bad = make_bundle(tmp_path / "b", SPEC, double_integrator(), calibration=short)
    with pytest.raises(BundleError, match="channel_scale"):
        bad.check(SPEC)


def test_conformal_factors_must_be_those_of_the_columns(tmp_path: Path) -> None:
    def calibrated(columns: int) -> dict[str, Any]:
        factors = [[[1.5] * columns]]
        stretch = {"levels": [0.8], "horizons": [5], "factors": factors, "windows": 100}
        scale = [1.0] * len(SPEC.columns)
        return {"innovation_band": 1.0, "channel_scale": scale, "recalibration": stretch}

    good = calibrated(len(SPEC.columns))
    bundle = make_bundle(tmp_path / "a", SPEC, double_integrator(), calibration=good)
    bundle.check(SPEC)
    found = bundle.manifest.calibration.recalibration
    assert found is not None
    assert found.factors[0][0] == (1.5,) * 6
    other = make_bundle(tmp_path / "b", SPEC, double_integrator(), calibration=calibrated(3))
    with pytest.raises(BundleError, match=r"recalibration\.factors: 3 for 6 columns"):
        other.check(SPEC)
    ragged = good | {"recalibration": good["recalibration"] | {"levels": [0.5, 0.8]}}
    with pytest.raises(BundleError, match="factors must be"):
        make_bundle(tmp_path / "c", SPEC, double_integrator(), calibration=ragged)


def test_another_objective_leaves_the_actor_out_and_nothing_else(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, SPEC, double_integrator())
    other = edited("nav2d", ("<= 15", "<= 12"))
    bundle.check(other)
    assert not bundle.objective_matches(other)
    assert not bundle.trusted_actor(other)


def test_an_actor_that_failed_its_evaluation_is_not_trusted(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, SPEC, double_integrator(), actor_trusted=False)
    assert bundle.objective_matches(SPEC)
    assert not bundle.trusted_actor(SPEC)


def test_without_an_actor_graph(tmp_path: Path) -> None:
    write_bundle(tmp_path, SPEC, double_integrator())
    (tmp_path / "actor.onnx").unlink()
    _rewrite(tmp_path, lambda m: m["files"].pop("actor.onnx"))
    bundle = load_bundle(tmp_path, provider="cpu")
    assert not bundle.trusted_actor(SPEC)
    with pytest.raises(BundleError, match=r"actor\.onnx"):
        bundle.act(np.zeros((1, 6), np.float32), np.zeros((1, 2), np.float32))


def test_believe_and_imagine_are_the_dynamics_of_the_graph(tmp_path: Path) -> None:
    world = double_integrator(noise=0.5, gains=(0.8, 0.9, 1.0, 1.1, 1.2))
    bundle = make_bundle(tmp_path, SPEC, world)
    generator = np.random.default_rng(1)

    def draw(*shape: int) -> Any:
        return generator.standard_normal(shape).astype(np.float32)

    h, z, action, obs = draw(3, 6), draw(3, 2), draw(3, 2), draw(3, 6)
    mask = (generator.random((3, 6)) < 0.5).astype(np.float32)
    posterior = bundle.believe(h, z, action, obs * mask, mask)
    predicted = h @ world.transition + action @ world.control
    np.testing.assert_allclose(posterior.h, np.where(mask > 0, obs, predicted), atol=1e-5)
    steps, count = 3, 4
    actions, noise = draw(steps, MEMBERS, count, 2), draw(steps, MEMBERS, count, 2)
    start = draw(MEMBERS, count, 6)
    futures = bundle.imagine(start, np.zeros((MEMBERS, count, 2), np.float32), actions, noise)
    x = start.astype(np.float64)
    for t in range(steps):
        effect = np.array(world.gains)[:, None, None] * (actions[t] @ world.control)
        x = x @ world.transition + effect
        x[..., :2] += 0.5 * noise[t]
        np.testing.assert_allclose(futures.channels[t], x, atol=1e-4)


def test_the_same_inputs_give_the_same_bits(tmp_path: Path) -> None:
    write_bundle(tmp_path, SPEC, double_integrator(noise=0.5))
    generator = np.random.default_rng(2)
    actions = generator.standard_normal((9, MEMBERS, 7, 2)).astype(np.float32)
    noise = generator.standard_normal((9, MEMBERS, 7, 2)).astype(np.float32)
    h = generator.standard_normal((MEMBERS, 7, 6)).astype(np.float32)
    z = np.zeros((MEMBERS, 7, 2), np.float32)
    first, second = (load_bundle(tmp_path, provider="cpu") for _ in range(2))
    for bundle in (first, second, first):
        again = bundle.imagine(h, z, actions, noise)
        assert again.channels.tobytes() == first.imagine(h, z, actions, noise).channels.tobytes()


def test_without_cuda_the_cpu_is_taken_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if runtime.cuda_usable():
        pytest.skip("there is a CUDA device here")
    write_bundle(tmp_path, SPEC, double_integrator())
    runtime.choose.cache_clear()
    assert load_bundle(tmp_path, provider="cuda").provider == "cpu"
    (said,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert said.getMessage().startswith("no usable CUDA device here: models run on the CPU")
    assert load_bundle(tmp_path, provider="auto").provider == "cpu"


def test_what_cuda_lacks_is_no_output(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """A driver that shows a GPU, and libraries that may be missing: `--json` stays one object."""
    monkeypatch.setattr(runtime, "cuda_devices", lambda: 1)
    runtime.cuda_usable.__wrapped__()
    assert not capfd.readouterr().out


def test_products_on_cuda_are_whole() -> None:
    (name, options), *_ = runtime.providers("cuda")
    assert (name, options["use_tf32"]) == ("CUDAExecutionProvider", "0"), "innovations need it"
