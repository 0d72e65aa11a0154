"""`rehearse bundle` add, alias, history, diff, list; and what does not happen where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.kafka import KafkaSetupError
from planner.library import SHIPPED
from planner.manifest import TRUST, read_manifest
from planner.signature import make_key, sign_bundle
from schemas.catalog import Catalog
from schemas.system import load_spec
from streams import control
from streams.cli import app
from streams.commands.options import catalog_url
from streams.commands.releases import release
from tests.planner.worlds import double_integrator, write_bundle

SPEC = load_spec("nav2d")
NOWHERE = "127.0.0.1:9"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A new home, and a folder of two bundles of the name `mine`."""
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path / "home"))
    for name, noise in (("one", 0.1), ("two", 0.2)):
        world = double_integrator(noise=noise)
        write_bundle(tmp_path / name, SPEC, world, name="mine", metrics={"error": noise})
    return tmp_path


def run(*words: str, status: int = 0) -> Any:
    result = CliRunner().invoke(app, ["bundle", *words, "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout) if status < 2 else result.output.replace("\n", " ")


def test_a_registered_bundle_has_a_version_an_own_copy_and_aliases(made: Path) -> None:
    one, two = made / "one", made / "two"
    added = run("add", str(one))
    assert added["registered"] == "mine@1"
    kept = Path(added["folder"])
    assert kept.parent == made / "home" / "bundles"
    write_bundle(one, SPEC, double_integrator(noise=0.3), name="mine")  # trained anew into it
    assert run("show", "mine@1")["digest"] == added["digest"]
    assert run("add", str(two))["registered"] == "mine@2"
    assert run("add", "mine@1")["registered"] == "mine@1"
    assert run("add", str(one))["registered"] == "mine@3"
    run("alias", "mine@best", "mine@2", "--why", "fewer errors", "--by", "ann")
    run("alias", "nav2d@best", "mine@3", "--by", "bob")  # by the system's name
    lines = run("list")
    assert lines[str(kept)].endswith("mine@1")
    assert any(line.endswith("mine@3 best") for line in lines.values())
    assert run("show", "mine@best")["registered"] == "mine@3 best"
    run("alias", "mine@best", "--remove", "--by", "eve", "--why", "enough")
    history = run("history", "nav2d")["history"]
    assert [(row["bundle"], row["by"], row["why"], row["ended_by"]) for row in history] == [
        ("mine@2", "ann", "fewer errors", ""),
        ("mine@3", "bob", "", "eve: enough"),
    ]
    assert all(row["since"] <= row["until"] for row in history)


def test_two_bundles_side_by_side(made: Path) -> None:
    apart = run("diff", str(made / "one"), str(made / "two"))["differences"]
    assert apart["metrics"] == {"error": [0.1, 0.2]}
    assert "lineage" not in apart
    assert run("diff", "nav2d", "nav2d")["differences"] == {}
    shipped = run("diff", "nav2d", "autoscale")["differences"]
    assert shipped["lineage"]["datasets.nav-free-1.rows"] == [30200, None]
    assert shipped["calibration"]["innovation_band"][0] == pytest.approx(26.482006)
    text = CliRunner().invoke(app, ["bundle", "diff", str(made / "one"), str(made / "two")])
    assert "(+100.0%)" in text.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("alias", "mine@champion", "nav2d"), "move it with `rehearse bundle promote`"),
        (("alias", "nav2d@best"), "give NAME@ALIAS and a BUNDLE"),
        (("alias", "best", "nav2d"), "give NAME@ALIAS and a BUNDLE"),
        (("alias", "autoscale@best", "nav2d"), "write nav2d@ALIAS"),
        (("alias", "nav2d@3", "nav2d"), "cannot be an alias"),
        (("alias", "nav2d@best", "--remove"), "no bundle nav2d is registered"),
        (("add", "nobody"), "0 bundles fit"),
    ],
)
def test_what_cannot_be_done_is_told(made: Path, words: tuple[str, ...], said: str) -> None:
    assert said in " ".join(run(*words, status=2).split())
    assert run("history", "nav2d")["history"] == []


def test_a_bundle_whose_signature_fails_gets_no_alias(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = made / "my.key", made / "other.key"
    monkeypatch.setenv(TRUST, str(make_key(mine)))
    make_key(other)
    manifest = made / "one" / "manifest.json"
    for key in (None, other):
        if key is not None:
            sign_bundle(manifest, key)
        for words in (("add", str(made / "one")), ("alias", "mine@best", str(made / "one"))):
            assert "signed" in run(*words, status=2)
        refused = CliRunner().invoke(
            app, ["bundle", "promote", "nav2d", str(made / "one"), "--bootstrap-servers", NOWHERE]
        )
        assert refused.exit_code == 2
        assert "signed" in refused.output
    sign_bundle(manifest, mine)
    assert run("alias", "mine@best", str(made / "one"))["alias"] == "mine@best"
    kept = next((made / "home" / "bundles").iterdir())
    assert (kept / "manifest.sig").exists(), "the copy is signed as well"
    sign_bundle(kept / "manifest.json", other)  # and is checked itself
    assert "signed" in run("alias", "mine@stable", "mine@best", status=2)


def test_nobody_acts_whom_the_workers_were_not_told_of(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "TIMEOUT_S", 0.3)
    folder = made / "one"
    with pytest.raises(KafkaSetupError, match="Is the broker up"):
        release(SPEC, folder, read_manifest(folder), NOWHERE, {}, by="ann")
    catalog = Catalog(catalog_url())
    assert [row.version for row in catalog.versions("mine")] == [1]
    assert catalog.champion("nav2d") is None
    catalog.close()


def test_there_is_no_going_back_to_what_is_gone(made: Path) -> None:
    for name in ("one", "two"):
        run("add", str(made / name))
    catalog = Catalog(catalog_url())
    for at, version in enumerate("12"):
        catalog.promote("nav2d", catalog.named("mine", version).digest, at_us=at, by="me")
    gone = Path(catalog.named("mine", "1").path)
    shutil.rmtree(gone)
    shutil.rmtree(made / "one")
    words = ["bundle", "rollback", "nav2d", "--bootstrap-servers", NOWHERE]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "is in no folder here" in refused.output.replace("\n", " ")
    assert len(catalog.releases("nav2d")) == 2, "nothing was moved"
    catalog.close()


def test_the_lineage_is_shown_in_words() -> None:
    text = CliRunner().invoke(app, ["bundle", "show", "nav2d"]).stdout
    assert "30200 rows of 200 entities, ticks 0 to 150" in " ".join(text.split())
    assert str(SHIPPED / "nav2d")[:20] in text
