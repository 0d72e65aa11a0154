"""Bundles, catalog and data at hand: real ones, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.catalog import Catalog
from schemas.system import load_spec, shipped_systems
from streams.checks import kept
from streams.checks.finding import Place
from tests.planner.worlds import double_integrator, edited, write_bundle

SPEC = load_spec("nav2d")


def test_a_bundle_that_fits_a_damaged_one_and_none(tmp_path: Path) -> None:
    write_bundle(tmp_path / "good", SPEC, double_integrator())
    write_bundle(tmp_path / "broken", SPEC, double_integrator())
    (tmp_path / "broken" / "believe.onnx").write_bytes(b"")
    found = list(kept.bundles(Place(tmp_path, bundle_roots=[tmp_path])))
    assert [finding.level for finding in found] == [
        "problem",
        *("ok" if name == "nav2d" else "warning" for name in shipped_systems()),
    ]
    assert "broken/believe.onnx" in found[0].what
    assert "rehearse train" in found[0].remedy
    assert "rehearse train autoscale" in found[1].remedy


def test_a_bundle_of_another_interface_does_not_fit(tmp_path: Path) -> None:
    write_bundle(
        tmp_path / "a", edited("nav2d", ("unit: m/s²", "unit: ft/s²")), double_integrator()
    )
    (found,) = kept.bundles(Place(tmp_path, bundle_roots=[tmp_path], spec=SPEC))
    assert found.level == "warning"
    assert "interface_hash" in found.what


def test_an_actor_of_another_objective_is_said_to_be_unused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", SPEC, double_integrator())
    other = edited("nav2d", ("<= 15", "<= 14"))
    (found,) = kept.bundles(Place(tmp_path, bundle_roots=[tmp_path], spec=other))
    assert found.level == "ok"
    assert "another objective" in found.what


def test_a_catalog_opens_or_is_left_alone_or_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "catalog.sqlite"
    place = Place(tmp_path, catalog_url=f"sqlite:///{file}")
    (found,) = kept.catalog(place)
    assert found.level == "ok"
    assert not file.exists()
    made = Catalog(place.catalog_url)
    made.create()
    made.close()
    (found,) = kept.catalog(place)
    assert found.level == "ok"
    assert found.what.endswith("opens")
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database at all, only some bytes of text" * 100)
    (found,) = kept.catalog(Place(tmp_path, catalog_url=f"sqlite:///{damaged}"))
    assert found.level == "problem"


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    url = "postgresql+psycopg://someone:secret@127.0.0.1:1/none"
    (found,) = kept.catalog(Place(tmp_path, catalog_url=url))
    assert found.level == "problem"
    assert "secret" not in found.what


def test_recorded_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = Place(tmp_path)
    monkeypatch.delenv(kept.DATA_VARIABLE, raising=False)
    assert [f.level for f in kept.recorded_data(place)] == ["ok"]
    monkeypatch.setenv(kept.DATA_VARIABLE, str(tmp_path / "nowhere"))
    assert [f.level for f in kept.recorded_data(place)] == ["problem"]
    monkeypatch.setenv(kept.DATA_VARIABLE, str(tmp_path))
    assert [f.level for f in kept.recorded_data(place)] == ["warning"]
    (tmp_path / kept.DATA_FILES[0]).touch()
    assert [f.level for f in kept.recorded_data(place)] == ["ok"]
