"""What a bundle is released with: facts of its graphs, lineage, int8 where it chooses as well."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models import export
from models.quantise import quantise
from models.registry import write_bundle
from models.regret import LIMIT, Regret, compare, regret
from models.revision import revision
from planner.manifest import INT8, BundleError, seal
from planner.session import Bundle, load_bundle
from tests.models.conftest import TINY, Trained


def test_the_manifest_says_what_each_graph_is(bundle_folder: Path) -> None:
    manifest = load_bundle(bundle_folder, provider="cpu").manifest
    for name in manifest.files:
        graph = manifest.graphs[name]
        assert graph["opset"] == export.OPSET
        assert graph["timed"]["ms"] > 0
    imagine = manifest.graphs["imagine.onnx"]
    assert imagine["inputs"]["noise"] == ["ticks", 5, "rows", manifest.latent]
    assert set(imagine["parity"]) == {"channels", "alive", "value", "reward"}
    assert imagine["timed"]["shape"] == {"members": 5, "rows": 51, "ticks": 16}


def test_the_manifest_says_which_data_and_code_it_is_from(
    trained: Trained, bundle_folder: Path
) -> None:
    lineage = load_bundle(bundle_folder, provider="cpu").manifest.lineage
    (data,) = lineage["datasets"]
    names = sorted(p.relative_to(trained.folder) for p in trained.folder.rglob("*.parquet"))
    lines = [
        f"{hashlib.sha256((trained.folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in names
    ]
    assert data["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert data["files"] == len(names) > 0
    assert (data["entities"], data["ticks"]) == (8, [0, 699])
    assert lineage["spec"]["spec_hash"] == trained.spec.spec_hash
    assert re.fullmatch(r"[0-9a-f]{40}(\+dirty)?|rehearse .*", lineage["code"])


def test_int8_ships_where_its_regret_is_negligible(trained: Trained, bundle_folder: Path) -> None:
    manifest = load_bundle(bundle_folder, provider="cpu").manifest
    said = manifest.graphs[INT8]
    assert said["precision"] == "int8"
    assert said["timed"]["ms"] > 0
    negligible = said["regret"]["mean"] <= said["regret"]["limit"] == LIMIT
    assert said["shipped"] == negligible == (INT8 in manifest.files)


@pytest.fixture(scope="module")
def pair(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """The bundle, and the same with the products of `imagine` in int8, whatever its regret."""
    folder = tmp_path_factory.mktemp("int8") / "mass"
    shutil.copytree(bundle_folder, folder)
    quantise(folder / "imagine.onnx", folder / INT8)
    content = json.loads((folder / "manifest.json").read_text())
    seal(folder, {k: v for k, v in content.items() if k not in ("files", "format", "digest")})
    return load_bundle(folder, "cpu"), load_bundle(folder, "cpu", precision="int8")


def test_int8_is_another_graph_that_ranks_alike(
    trained: Trained, pair: tuple[Bundle, Bundle]
) -> None:
    exact, coarse = pair
    assert (exact.precision, coarse.precision) == ("fp32", "int8")
    found = regret(exact, coarse, trained.spec, trained.dataset.validation, TINY.seed)
    again = exact.manifest.graphs[INT8]["regret"]
    assert found.as_dict() == again, "as it was measured when the bundle was made"
    assert found.rank > 0.9
    assert 0 <= found.mean < 0.1
    assert found.worst >= found.mean
    itself = regret(exact, exact, trained.spec, trained.dataset.validation, TINY.seed)
    assert (itself.mean, itself.worst, itself.same, itself.rank) == (0.0, 0.0, 1.0, 1.0)
    assert found.rank < 1.0


def test_int8_leaves_the_next_tick_exact_and_is_of_any_size(pair: tuple[Bundle, Bundle]) -> None:
    exact, coarse = pair
    rng = np.random.default_rng(3)
    for rows, ticks in ((4, 6), (1, 1), (13, 2)):
        shapes = ((5, rows, exact.hidden), (5, rows, exact.latent), (ticks, 5, rows, 1))
        noise = (ticks, 5, rows, exact.latent)
        given = [rng.standard_normal(shape).astype(np.float32) for shape in (*shapes, noise)]
        apart = np.abs(exact.imagine(*given).channels - coarse.imagine(*given).channels)
        assert 0 < apart.max() < 1.0
        one = [part[0] if part.ndim == 3 else part[0, 0] for part in given]
        np.testing.assert_array_equal(exact.next(*one), coarse.next(*one))


def test_int8_needs_products_with_fixed_weights(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset), tmp_path / "imagine.onnx")
    with pytest.raises(ValueError, match="nothing to quantise"):
        quantise(tmp_path / "imagine.onnx", tmp_path / INT8)


def test_int8_that_chooses_worse_does_not_ship(trained: Trained, tmp_path: Path) -> None:
    def bad(exact: Bundle, coarse: Bundle) -> Regret:
        del exact, coarse
        return Regret(LIMIT * 1.01, 1.0, 0.5, 0.9, 0.5, 64, 60, 16)

    trainer, folder = trained.trainer, tmp_path / "mass"
    write_bundle(
        folder, trained.spec, trainer.model, trainer.behaviour, name="mass",
        measure=lambda bundle: ({"innovation_band": 9.0, "channel_scale": [1.0] * 3}, {}),
        weigh=bad, lineage={}, with_actor=False, actor_trusted=False,
    )  # fmt: skip
    bundle = load_bundle(folder, provider="cpu")
    assert INT8 not in bundle.manifest.files
    assert not (folder / INT8).exists()
    assert bundle.manifest.graphs[INT8]["shipped"] is False
    with pytest.raises(BundleError, match=r"field files: there is no imagine\.int8\.onnx"):
        load_bundle(folder, provider="cpu", precision="int8")


def test_regret_is_what_the_other_choice_loses() -> None:
    exact = np.array([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0], [1.0, 0.0, 0.0]])
    assert (
        compare(exact, exact * 3 - 1).as_dict() | {"horizon": 0}
        == Regret(0.0, 0.0, 1.0, 1.0, 1.0, 3, 3, 0).as_dict()
    )
    worse = compare(exact, -exact)
    assert worse.mean == pytest.approx((2 / exact[0].std() + 1 / exact[2].std()) / 3)
    assert worse.worst == pytest.approx(2 / exact[0].std())
    assert worse.same == pytest.approx(1 / 3)
    assert worse.rank_worst == -1.0


def test_a_checkout_is_told_from_an_installed_package(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    installed = f"rehearse {version('rehearse')}"
    assert revision(tmp_path) == installed
    git("init", "-q")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-qm", "first")
    commit = revision(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "code.py").write_text("2")
    assert revision(tmp_path) == f"{commit}+dirty"
    (tmp_path / "site-packages").mkdir()
    assert revision(tmp_path / "site-packages") == installed, "somebody else's repository"
