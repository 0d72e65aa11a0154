"""Who acts is told to the workers and written to the catalog, both or neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from planner.manifest import read_manifest
from schemas.catalog import Catalog
from streams.cli import app
from streams.commands.options import catalog_url
from streams.control import standing
from tests.planner.worlds import double_integrator, write_bundle
from tests.system.loop import make_topics
from tests.system.processes import Loop

pytestmark = [pytest.mark.broker, pytest.mark.system]
Kafka = dict[str, str]


def test_promotion_and_rollback_are_told_and_kept(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path / "home"))
    loop = Loop(tmp_path, kafka["bootstrap.servers"], "wall")
    spec, folder = loop.spec, tmp_path / "second"
    write_bundle(folder, spec, double_integrator(noise=0.3), name=spec.system)
    first, second = (read_manifest(path).digest for path in (loop.bundle, folder))
    make_topics(spec, kafka)

    def done(command: str, *words: str, status: int = 0) -> dict[str, Any]:
        given = ["bundle", command, str(loop.spec_file), *words, *loop.broker, "--json"]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == status, result.output
        return json.loads(result.stdout.splitlines()[-1]) if not status else {}

    def told() -> str | None:
        (last,) = (c for c in standing(spec, loop.broker[1], {}).values() if c.kind == "release")
        return last.bundle

    assert done("promote", str(loop.bundle), "--by", "ann", "--why", "first")["released"] == first
    assert told() == first
    assert done("promote", str(folder), "--by", "bob")["version"] == f"{spec.system}@1"
    assert told() == second
    assert done("rollback", "--by", "eve", "--why", "it was worse")["released"] == first
    assert told() == first
    assert done("promote", f"{spec.system}@1", "--by", "bob")["released"] == second
    done("promote", "nobody@4", status=2)
    catalog = Catalog(catalog_url())
    moves = [(row.bundle, row.by, row.why) for row in reversed(catalog.releases(spec.system))]
    assert moves == [
        (first, "ann", "first"),
        (second, "bob", ""),
        (first, "eve", "it was worse"),
        (second, "bob", ""),
    ]
    champion = catalog.champion(spec.system)
    assert champion is not None
    assert champion.digest == second == told()
    catalog.close()
