"""Which bundle is meant, in every way in which one may be named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from planner.library import SHIPPED
from planner.manifest import TRUST, BundleError, read_manifest
from planner.naming import find_bundle
from planner.signature import make_key, sign_bundle
from schemas.catalog import Bundle, Catalog
from schemas.system import load_spec
from tests.planner.worlds import double_integrator, write_bundle


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles of the name `mine`, and one of the name `other`."""
    spec, folder = load_spec("nav2d"), tmp_path_factory.mktemp("root")
    for number, (name, kept) in enumerate([("mine", "one"), ("mine", "two"), ("other", "three")]):
        write_bundle(folder / kept, spec, double_integrator(noise=0.1 * number), name=name)
    return folder


@pytest.fixture
def url(root: Path, tmp_path: Path) -> str:
    """A catalog that knows `mine` twice: version 1 is the champion, 2 the challenger."""
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    catalog = Catalog(url)
    catalog.create()
    for folder, alias in (("one", "champion"), ("two", "challenger")):
        register(catalog, root / folder)
        digest = read_manifest(root / folder).digest
        catalog.promote("nav2d", digest, at_us=1, by="me", role=alias)
    catalog.close()
    return url


def register(catalog: Catalog, folder: Path) -> None:
    manifest = read_manifest(folder)
    row = Bundle(
        digest=manifest.digest, name=manifest.name, system=manifest.system, interface_hash="1",
        objective_hash="2", path=str(folder), created_us=1,
    )  # fmt: skip
    catalog.register(row, at_us=1, by="me")


@pytest.mark.parametrize(
    ("which", "folder"),
    [
        ("mine@1", "one"),
        ("mine@2", "two"),
        ("mine@champion", "one"),
        ("nav2d@champion", "one"),  # of the system
        ("mine@challenger", "two"),
        ("mine", "one"),  # two are at hand: the one that acts
        ("two", "two"),  # a folder's name
        ("other", "three"),  # not registered, but the only one
    ],
)
def test_each_way_of_naming_finds_the_bundle(root: Path, url: str, which: str, folder: str) -> None:
    found = find_bundle(which, [root], url)
    assert found == (root / folder, read_manifest(root / folder))


def test_folders_and_digests_need_no_catalog(root: Path, tmp_path: Path) -> None:
    nowhere = f"sqlite:///{tmp_path / 'none.sqlite'}"
    wanted = read_manifest(root / "two")
    for which in (root / "two", str(root / "two"), wanted.digest, wanted.digest[:6]):
        assert find_bundle(which, [root], nowhere) == (root / "two", wanted)
    assert not (tmp_path / "none.sqlite").exists(), "asking makes none"


def test_a_bundle_is_found_where_it_was_registered_and_where_it_went(
    root: Path, url: str, tmp_path: Path
) -> None:
    digest = read_manifest(root / "one").digest
    for which in ("mine@1", digest[:8]):
        assert find_bundle(which, [], url)[0] == root / "one"
    moved = tmp_path / "moved"
    shutil.copytree(root / "one", moved / "elsewhere")
    catalog = Catalog(url)
    shutil.copytree(root / "one", tmp_path / "gone")
    register(catalog, tmp_path / "gone")
    catalog.close()
    shutil.rmtree(tmp_path / "gone")
    assert find_bundle("mine@1", [moved], url)[0] == moved / "elsewhere"
    with pytest.raises(BundleError, match=r"mine@1: bundle .* is in no folder here; .* bundle add"):
        find_bundle("mine@1", [], url)


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("mine@7", "mine@7: there are mine@1, mine@2, mine@challenger, mine@champion"),
        ("mine@best", "there are mine@1"),
        ("nobody@1", "no bundle nobody is registered"),
        ("nobody", "nobody: 0 bundles fit"),
        ("", "0 bundles fit"),
    ],
)
def test_what_is_not_there_is_told_with_what_helps(
    root: Path, url: str, which: str, words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        find_bundle(which, [root], url)


def test_several_without_a_champion_are_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"2 bundles fit .* mine has no champion: give one"):
        find_bundle("mine", [root], f"sqlite:///{tmp_path / 'none.sqlite'}")
    with pytest.raises(BundleError, match="mine@1: no bundle is registered here yet"):
        find_bundle("mine@1", [root], f"sqlite:///{tmp_path / 'none.sqlite'}")


def test_a_version_that_was_changed_or_is_not_signed_is_refused(
    root: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "my.key"
    monkeypatch.setenv(TRUST, str(make_key(key)))
    with pytest.raises(BundleError, match="it is not signed"):
        find_bundle("mine@champion", [root], url)
    copy = tmp_path / "copy"
    shutil.copytree(root / "one", copy / "one")
    sign_bundle(copy / "one" / "manifest.json", key)
    catalog = Catalog(url)
    register_path(catalog, root / "one", copy / "one")
    catalog.close()
    assert find_bundle("mine@champion", [root], url)[0] == copy / "one"
    (copy / "one" / "imagine.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"imagine\.onnx"):
        find_bundle("mine@champion", [root], url)


def register_path(catalog: Catalog, old: Path, new: Path) -> None:
    """The same bundle, at another place."""
    row = catalog.named("mine", "1")
    assert row.path == str(old)
    row.path = str(new)
    catalog.put(row)


def test_shipped_bundles_have_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path))
    assert find_bundle("nav2d")[0] == SHIPPED / "nav2d"
    assert list(tmp_path.iterdir()) == []
