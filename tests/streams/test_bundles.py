"""The shelf: which bundle acts, and when one that is released becomes available."""

import shutil
from pathlib import Path

import pytest

from planner.library import folders_of
from planner.manifest import read_manifest
from schemas.system import load_spec
from streams.bundles import Shelf
from tests.planner.worlds import double_integrator, edited, write_bundle

SPEC = load_spec("nav2d")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders a (of another interface), b, c, and broken."""
    root = tmp_path_factory.mktemp("registry")
    other = edited("nav2d", ("unit: m/s²", "unit: ft/s²"))
    write_bundle(root / "a", other, double_integrator())
    write_bundle(root / "b", SPEC, double_integrator(), name="b")
    write_bundle(root / "c", SPEC, double_integrator(), name="c")
    write_bundle(root / "broken", SPEC, double_integrator(), name="broken")
    (root / "broken" / "actor.onnx").write_bytes(b"")
    return root


def digest(folder: Path) -> str:
    return read_manifest(folder).digest


def test_a_root_is_a_bundle_or_holds_bundles(made: Path) -> None:
    assert list(folders_of([made / "c", made])) == [
        made / "c",
        *(made / name for name in ("a", "b", "broken", "c")),
    ]


def test_without_a_release_the_first_that_fits_acts(made: Path) -> None:
    shelf = Shelf(SPEC, [made], "cpu")
    acting = shelf.get(None)
    assert acting is not None
    assert acting.digest == digest(made / "b")
    assert shelf.get(acting.digest) is acting
    released = shelf.get(digest(made / "c"))
    assert released is not None
    assert released.manifest.name == "c"
    shelf.close()


def test_what_is_only_known_acts_when_it_is_released_and_not_before(made: Path) -> None:
    shelf = Shelf(SPEC, [made / "c"], "cpu", known=[made])
    assert shelf.default == digest(made / "c")
    released = shelf.get(digest(made / "b"))
    assert released is not None
    assert released.manifest.name == "b"
    shelf.close()
    nothing = Shelf(SPEC, [], "cpu", known=[made])
    assert nothing.get(None) is None
    nothing.close()


def test_no_bundle_no_answer(tmp_path: Path) -> None:
    shelf = Shelf(SPEC, [tmp_path], "cpu")
    assert shelf.get(None) is None
    assert shelf.get("0" * 64) is None
    shelf.close()


def test_one_of_another_interface_or_damaged_is_never_given(made: Path) -> None:
    shelf = Shelf(SPEC, [made / "a", made / "broken"], "cpu")
    assert shelf.default is None
    assert shelf.get(digest(made / "a")) is None
    shelf.close()


def test_a_release_that_arrives_after_it_was_named(made: Path, tmp_path: Path) -> None:
    shelf = Shelf(SPEC, [tmp_path], "cpu")
    wanted = digest(made / "c")
    assert shelf.get(wanted) is None
    shutil.copytree(made / "c", tmp_path / "c")
    found = shelf.get(wanted)
    assert found is not None
    assert found.digest == wanted
    shelf.close()
