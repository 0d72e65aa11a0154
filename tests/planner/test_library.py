"""Which bundles are at hand, which one is meant, and where a released one is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from planner.library import SHIPPED, keep, list_bundles
from planner.manifest import BundleError, read_manifest
from planner.naming import find_bundle
from planner.summary import summary
from schemas.system import load_spec
from tests.planner.worlds import double_integrator, write_bundle


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`first` holds a and a damaged one; `second` holds b, and a again under another name."""
    spec, folder = load_spec("nav2d"), tmp_path_factory.mktemp("bundles")
    first, second = folder / "first", folder / "second"
    write_bundle(first / "a", spec, double_integrator(), name="a")
    write_bundle(second / "b", spec, double_integrator(noise=0.1), name="b")
    shutil.copytree(first / "a", second / "same")
    shutil.copytree(first / "a", first / "damaged")
    write_bundle(first / "double", spec, double_integrator(noise=0.2), name="c")
    write_bundle(second / "d", spec, double_integrator(noise=0.3), name="double")
    (first / "damaged" / "actor.onnx").write_bytes(b"")
    return first, second


def test_what_is_damaged_is_listed_as_such(roots: tuple[Path, Path]) -> None:
    found = list_bundles(roots)
    assert [path.name for path in found] == ["a", "damaged", "double", "b", "d", "same"]
    assert "actor.onnx" in str(found[roots[0] / "damaged"])
    assert found[roots[0] / "a"] == found[roots[1] / "same"]


def test_a_bundle_is_meant_by_folder_name_or_digest(roots: tuple[Path, Path]) -> None:
    wanted = read_manifest(roots[1] / "b")
    for which in (str(roots[1] / "b"), "b", wanted.digest, wanted.digest[:12]):
        assert find_bundle(which, roots) == (roots[1] / "b", wanted)
    assert find_bundle("a", roots)[0] == roots[0] / "a", "twice the same is no doubt"


@pytest.mark.parametrize(
    ("which", "message"),
    [("double", "2 bundles fit"), ("nobody", "0 bundles fit"), ("damaged", "actor.onnx")],
)
def test_what_is_not_clear_is_told(roots: tuple[Path, Path], which: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        find_bundle(which, roots)


def test_a_bundle_is_kept_for_good_where_workers_look(
    roots: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest, home = read_manifest(roots[0] / "a"), tmp_path / "home"
    kept = keep(roots[0] / "a", manifest, home)
    assert kept == home / f"a-{manifest.digest[:12]}"
    assert read_manifest(kept) == manifest
    assert keep(roots[0] / "a", manifest, home) == kept
    assert keep(kept, manifest, home) == kept
    assert [path.name for path in home.iterdir()] == [kept.name]
    shipped = SHIPPED / "nav2d"
    assert keep(shipped, read_manifest(shipped), home) == shipped


def test_another_bundle_is_not_taken_for_the_kept_one(
    roots: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest = read_manifest(roots[0] / "a")
    shutil.copytree(roots[1] / "b", tmp_path / f"a-{manifest.digest[:12]}")
    with pytest.raises(BundleError, match="field digest: it holds another bundle"):
        keep(roots[0] / "a", manifest, tmp_path)


def test_the_shipped_bundles_are_whole_and_summed_up() -> None:
    found = list_bundles([SHIPPED])
    assert [path.name for path in found] == ["autoscale", "nav2d"]
    for folder, manifest in found.items():
        assert not isinstance(manifest, str), manifest
        assert summary(folder, manifest)["bytes"] <= 2_000_000
