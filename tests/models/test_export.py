"""Every graph computes what torch does; a bundle is whole, sealed, and judged as it runs."""

import copy
import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from models import export
from models.evaluation.foresee import LEVELS
from models.evaluation.held_out import evaluate
from models.export import Apart, ParityError, check, export_graph, parity
from planner.library import SHIPPED, list_bundles
from planner.manifest import BundleError
from planner.session import load_bundle
from planner.summary import summary
from tests.models.conftest import Trained


@pytest.mark.parametrize("graph", ["believe", "imagine", "actor", "drive"])
def test_graphs_agree_with_torch(trained: Trained, bundle_folder: Path, graph: str) -> None:
    trainer = trained.trainer
    worst = parity(graph, trainer.model, trainer.behaviour, bundle_folder / f"{graph}.onnx")
    assert max(apart.torch for apart in worst.values()) < 1e-5, worst


@pytest.mark.parametrize("graph", ["believe", "imagine", "actor", "drive"])
def test_graphs_say_nothing_of_the_machine_that_made_them(bundle_folder: Path, graph: str) -> None:
    content = (bundle_folder / f"{graph}.onnx").read_bytes()
    assert str(Path(export.__file__).parent).encode() not in content
    assert b"stack_trace" not in content


@pytest.mark.parametrize("system", ["autoscale", "nav2d"])
def test_neither_do_shipped_ones(system: str) -> None:
    for file in (SHIPPED / system).glob("*.onnx"):
        assert b".py" not in file.read_bytes(), file.name


@pytest.mark.parametrize("graph", ["believe", "imagine", "actor", "drive"])
def test_parity_notices_a_changed_weight(trained: Trained, bundle_folder: Path, graph: str) -> None:
    trainer = trained.trainer
    weight = {
        "believe": trainer.model.memory.gates.weight,
        "imagine": trainer.model.ensemble.weights[0],
        "actor": trainer.behaviour.actor.net[0].weight,
        "drive": trainer.behaviour.actor.net[0].weight,
    }[graph]
    with torch.no_grad():
        weight[..., 0].add_(0.05)
        worst = parity(graph, trainer.model, trainer.behaviour, bundle_folder / f"{graph}.onnx")
        weight[..., 0].sub_(0.05)
    assert max(apart.torch for apart in worst.values()) > 1e-3


@pytest.mark.parametrize(
    ("graph", "apart", "ships"),
    [
        ("actor", Apart(0.9e-5, 0.1, 0.0), True),
        ("actor", Apart(1.1e-5, 1e-5, 1e-5), False),
        ("drive", Apart(1.1e-5, 7.9e-5, 1e-5), True),  # torch's own rounding has grown as well
        ("drive", Apart(1.1e-5, 8.1e-5, 1e-5), False),
        ("imagine", Apart(1.1e-4, 1e-4, 1e-4), False),
        ("actor", Apart(float("nan"), 0.0, 0.0), False),
    ],
)
def test_a_graph_that_differs_does_not_ship(graph: str, apart: Apart, ships: bool) -> None:
    with nullcontext() if ships else pytest.raises(ParityError, match="output action differs"):
        check(graph, {"action": apart}, Path("graph.onnx"))


def test_every_export_is_checked(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "parity", lambda *_: {"action": Apart(1.0, 1.0, 0.0)})
    with pytest.raises(ParityError, match=r"actor\.onnx: output action differs"):
        export_graph(
            "actor", trained.trainer.model, trained.trainer.behaviour, tmp_path / "actor.onnx"
        )


def test_precise_sensors_do_not_magnify_what_is_rounded(trained: Trained, tmp_path: Path) -> None:
    """Sensors whose noise is 1e-4 of a channel's spread, as clocks and goals have."""
    model = copy.deepcopy(trained.trainer.model)
    with torch.no_grad():
        model.log_noise.fill_(-9.0)
        model.ensemble.step[: len(model.direct)] = 2e-3
    behaviour = copy.deepcopy(trained.trainer.behaviour)
    export_graph("believe", model, behaviour, tmp_path / "believe.onnx")
    found = parity("believe", model, behaviour, tmp_path / "believe.onnx")
    assert found["innovation"].torch < 1e-5, found


def test_imagination_is_one_scan_with_free_horizon_and_count(bundle_folder: Path) -> None:
    import onnx

    graph = onnx.load(str(bundle_folder / "imagine.onnx")).graph
    assert [node.op_type for node in graph.node].count("Scan") == 1
    dims = {
        i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]
        for i in graph.input
    }
    assert dims["actions"] == ["ticks", 5, "rows", 1]
    assert dims["h"][:2] == [5, "rows"]


def test_the_planner_loads_it_and_members_differ(trained: Trained, bundle_folder: Path) -> None:
    bundle = load_bundle(bundle_folder, provider="cpu")
    bundle.check(trained.spec)
    h = np.zeros((5, 2, bundle.hidden), np.float32)
    z = np.zeros((5, 2, bundle.latent), np.float32)
    actions = np.ones((7, 5, 2, 1), np.float32)
    out = bundle.imagine(h, z, actions, np.zeros((7, 5, 2, bundle.latent), np.float32))
    assert out.channels.shape == (7, 5, 2, 3)
    assert out.alive.shape == (7, 5, 2)
    assert out.value.shape == (5, 2)
    np.testing.assert_array_equal(out.reward, 0)  # the spec has an expression
    np.testing.assert_array_equal(out.channels[:, :, 0], out.channels[:, :, 1])
    assert out.channels[-1, :, 0, 0].std() > 0


def test_the_manifest_says_where_it_comes_from(trained: Trained, bundle_folder: Path) -> None:
    bundle = load_bundle(bundle_folder, provider="cpu")
    bundle.check(trained.spec)
    manifest = bundle.manifest
    assert manifest.lineage["command"] == "rehearse train mass"
    assert manifest.lineage["datasets"][0]["entities"] == 8
    assert manifest.actor_trusted
    assert set(manifest.metrics["parity"]) == {"believe", "imagine", "actor", "drive"}
    assert set(manifest.metrics["parity"]) <= {
        name.removesuffix(".onnx") for name in manifest.files
    }
    assert manifest.calibration.discount == trained.trainer.config.actor.discount
    assert manifest.calibration.innovation_band > 1
    assert summary(bundle_folder, manifest)["bytes"] < 2_000_000
    assert not [p for p in bundle_folder.iterdir() if p.name.startswith(".")]


def test_a_damaged_bundle_is_noticed_and_listed_as_such(
    bundle_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle_folder, tmp_path / "good")
    bad = tmp_path / "bad"
    shutil.copytree(bundle_folder, bad)
    data = bytearray((bad / "imagine.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bad / "imagine.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(bad, provider="cpu")
    manifest = json.loads((tmp_path / "good" / "manifest.json").read_text())
    found = list_bundles([tmp_path])
    assert "SHA-256" in str(found[bad])
    assert getattr(found[tmp_path / "good"], "digest", None) == manifest["digest"]


def test_it_beats_persistence_and_its_spread_is_honest(
    trained: Trained, bundle_folder: Path
) -> None:
    bundle = load_bundle(bundle_folder, provider="cpu")
    result = evaluate(bundle, trained.spec, trained.dataset.validation, windows=200)
    for k in (1, 5, 10):
        ratios = result.of_persistence[k - 1]
        assert (ratios[:2] < (0.55 if k > 1 else 0.75)).all(), (k, ratios)
        if k > 1:  # the alarm's mean; after so little training a rare one is not seen at one tick
            assert ratios[2] < 0.8, (k, ratios)
    held = result.coverage.share[LEVELS.index(0.8), [0, 4, 9], :2]
    assert (held > 0.55).all()
    assert (held < 0.995).all()
    again = evaluate(bundle, trained.spec, trained.dataset.validation, windows=200)
    np.testing.assert_array_equal(result.rmse, again.rmse)


def test_the_actor_goes_where_it_would_if_it_were_asked_each_tick(
    trained: Trained, bundle_folder: Path
) -> None:
    model, behaviour = trained.trainer.model, trained.trainer.behaviour
    bundle = load_bundle(bundle_folder, provider="cpu")
    members, rows, steps = model.config.members, 3, 4
    g = torch.Generator().manual_seed(5)
    h, z = (
        torch.randn(members, rows, size, generator=g) for size in (bundle.hidden, bundle.latent)
    )
    first = model.action_scaler.inverse(torch.randn(members, rows, model.actions, generator=g))
    noise = torch.randn(steps, members, rows, bundle.latent, generator=g)
    found = bundle.drive(*(part.numpy() for part in (h, z, first, noise)))
    memory, latent = model.unpack(h.flatten(0, 1)).memory, z.flatten(0, 1)
    action = first.flatten(0, 1)
    for step in range(steps):
        last = model.action_scaler(action)
        with torch.no_grad():
            memory, latent, _ = model.imagine(memory, latent, last, noise[step].flatten(0, 1))
            wanted = behaviour.actor.target(last, memory, latent)
            action = behaviour.actor.limit(wanted, action)
        got = torch.from_numpy(found[step]).flatten(0, 1)
        torch.testing.assert_close(got, action, rtol=1e-4, atol=1e-4)
