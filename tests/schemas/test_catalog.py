"""The catalog on SQLite and PostgreSQL: idempotent, safe with several writers, exact."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select, text

from schemas import bloom
from schemas.catalog import (
    Alert,
    Bundle,
    Catalog,
    CatalogError,
    Dataset,
    File,
    Recording,
)
from schemas.catalog_tables import Block, Release
from schemas.messages import action_id


def file(path: str, **changes: Any) -> File:
    fields: dict[str, Any] = {
        "system": "nav2d",
        "day": "2024-03-01",
        "first_tick": 0,
        "last_tick": 99,
        "rows": 1000,
        "cohorts": [0, 3, 15],
        "spec_hash": "5" * 16,
        "interface_hash": "1" * 16,
        "objective_hash": "2" * 16,
        "bundles": ["b" * 64],
        "bytes": 5_000_000_000,
        "digest": "d" * 64,
    }
    return File(path=path, **{**fields, **changes})


def bundle(digest: str, **changes: Any) -> Bundle:
    fields: dict[str, Any] = {
        "name": f"model-{digest}",
        "system": "nav2d",
        "interface_hash": "1" * 16,
        "objective_hash": "2" * 16,
        "path": f"bundles/{digest}",
        "created_us": 1_700_000_000_000_000,
    }
    return Bundle(digest=digest, **{**fields, **changes})


def test_create_again_keeps_what_is_there(catalog: Catalog, catalog_url: str) -> None:
    catalog.put(file("a.parquet"))
    again = Catalog(catalog_url)
    again.create()
    assert [row.path for row in again.files("nav2d")] == ["a.parquet"]
    again.close()


def test_put_replaces_by_natural_key(catalog: Catalog) -> None:
    catalog.put(file("a.parquet"), file("b.parquet"), file("a.parquet", rows=7, cohorts=[2]))
    rows = catalog.files("nav2d")
    assert [(row.path, row.rows, row.cohorts) for row in rows] == [
        ("a.parquet", 7, [2]),
        ("b.parquet", 1000, [0, 3, 15]),
    ]
    assert rows[1].bytes == 5_000_000_000
    for _ in range(2):
        catalog.put(
            Recording(
                path="r", system="nav2d", from_us=1, to_us=2, frames=3, spec="system: nav2d",
                spec_hash="5", ranges={"nav2d.frames": {"0": [10, 20]}}, created_us=9,
            ),
            Dataset(
                digest="e", system="nav2d", interface_hash="1", rows=5, created_us=4,
                files={"a.parquet": "train", "b.parquet": "test"},
            ),
            bundle("f", dataset="e", seed=2**40, metrics={"return": -1.5}),
            Alert(time_us=5, system="nav2d", entity="r1", kind="stale", message="no readings"),
            Alert(time_us=6, system="nav2d", kind="lag", message="behind"),
        )  # fmt: skip
    assert [r.ranges for r in catalog.recordings("nav2d")] == [{"nav2d.frames": {"0": [10, 20]}}]
    assert [d.files["b.parquet"] for d in catalog.datasets()] == ["test"]
    (only,) = catalog.bundles()
    assert (only.dataset, only.seed, only.metrics) == ("e", 2**40, {"return": -1.5})
    assert [(a.kind, a.entity) for a in catalog.alerts("nav2d")] == [("lag", ""), ("stale", "r1")]
    assert [a.kind for a in catalog.alerts("nav2d", since_us=6)] == ["lag"]
    assert catalog.alerts("other") == []


def test_put_is_one_transaction(catalog: Catalog) -> None:
    broken = file("b.parquet")
    broken.system = None  # type: ignore[assignment]
    with pytest.raises(Exception, match=r"(?i)null"):
        catalog.put(file("a.parquet"), broken)
    assert catalog.files("nav2d") == []


def test_files_by_day_in_order(catalog: Catalog) -> None:
    catalog.put(
        file("late", day="2024-03-02"),
        file("second", first_tick=50),
        file("first"),
        file("early", day="2024-02-29"),
        file("other", system="autoscale"),
    )

    def paths(*days: str | None) -> list[str]:
        return [row.path for row in catalog.files("nav2d", *days)]

    assert paths() == ["early", "first", "second", "late"]
    assert paths("2024-03-01") == ["first", "second", "late"]
    assert paths("2024-03-01", "2024-03-01") == ["first", "second"]
    assert paths(None, "2024-02-29") == ["early"]


def test_bundles_are_found_by_name_and_beginning(catalog: Catalog) -> None:
    catalog.put(bundle("abc1"), bundle("abd2", created_us=1_800_000_000_000_000), bundle("x"))
    assert [row.digest for row in catalog.bundles("nav2d")] == ["abd2", "abc1", "x"]
    assert catalog.bundles("autoscale") == []
    assert catalog.bundle("abc").digest == "abc1"
    assert catalog.bundle("model-x").digest == "x"
    for name, problem in [("ab", "several"), ("zz", "no bundle"), ("", "no bundle")]:
        with pytest.raises(CatalogError, match=problem):
            catalog.bundle(name)


def test_promotion_and_rollback(catalog: Catalog) -> None:
    catalog.put(bundle("one"), bundle("two"), bundle("three"), bundle("far", system="autoscale"))
    assert catalog.champion("nav2d") is None
    catalog.promote("nav2d", "one", at_us=1, by="me")
    catalog.promote("nav2d", "two", at_us=2, by="me", role="candidate")
    catalog.promote("nav2d", "three", at_us=2, by="me", role="candidate")
    catalog.promote("nav2d", "two", at_us=3, by="me", role="shadow")
    for at in (4, 5):  # the second time changes nothing
        catalog.promote("nav2d", "two", at_us=at, by="canary")

    def digests(role: Any) -> list[str]:
        return [row.digest for row in catalog.released("nav2d", role)]

    assert (digests("champion"), digests("shadow")) == (["two"], [])
    assert digests("candidate") == ["three"]
    spans = {(r.bundle, r.role): (r.since_us, r.until_us) for r in catalog.releases("nav2d")}
    assert spans == {
        ("one", "champion"): (1, 4),
        ("two", "candidate"): (2, 3),
        ("three", "candidate"): (2, None),
        ("two", "shadow"): (3, 4),
        ("two", "champion"): (4, None),
    }
    assert catalog.rollback("nav2d", at_us=6, by="me").digest == "one"
    champion = catalog.champion("nav2d")
    assert champion is not None
    assert champion.digest == "one"
    with pytest.raises(CatalogError, match="unknown"):
        catalog.promote("nav2d", "nothing", at_us=7, by="me")
    with pytest.raises(CatalogError, match="a bundle of autoscale"):
        catalog.promote("nav2d", "far", at_us=7, by="me")
    with pytest.raises(CatalogError, match="no earlier champion"):
        catalog.rollback("autoscale", at_us=7, by="me")


def write_much(url: str, worker: int, barrier: Any) -> None:
    catalog = Catalog(url)
    barrier.wait()
    catalog.create()
    for step in range(15):
        path = f"{worker}/{step}"
        catalog.put(bundle(f"{worker}-{step}"))
        ids = [action_id(path, "e", row) for row in range(300)]
        catalog.put_file(file(path), bloom.filter_of(bloom.keys_of(ids)))
        catalog.promote("nav2d", f"{worker}-{step}", at_us=step, by="test")
    catalog.close()


def test_two_processes_create_and_write_at_once(catalog_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=write_much, args=(catalog_url, number, barrier)) for number in (1, 2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    catalog = Catalog(catalog_url)
    assert len(catalog.files("nav2d")) == 30
    assert len(catalog.released("nav2d", "champion")) == 1
    with catalog.session() as session:
        assert session.scalar(select(func.count()).select_from(Block)) == 30
        assert session.scalar(select(func.count()).select_from(Release)) == 30
    catalog.close()


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    def opened(url: str, barrier: Barrier) -> None:
        catalog = Catalog(url)
        barrier.wait()
        catalog.create()
        catalog.close()

    with ThreadPoolExecutor(8) as pool:
        for trial in range(40):
            url, barrier = f"sqlite:///{tmp_path / str(trial)}.sqlite", Barrier(8)
            for done in [pool.submit(opened, url, barrier) for _ in range(8)]:
                done.result()


def test_readers_do_not_wait_for_a_writer(catalog: Catalog) -> None:
    catalog.put(file("a"))
    with catalog.session(write=True) as session:
        session.add(file("b"))
        session.flush()
        assert [row.path for row in catalog.files("nav2d")] == ["a"]
    assert [row.path for row in catalog.files("nav2d")] == ["a", "b"]


def test_another_layout_is_refused(catalog: Catalog) -> None:
    with catalog.session(write=True) as session:
        session.execute(text("UPDATE about SET value = '0' WHERE key = 'version'"))
    with pytest.raises(CatalogError, match="layout 0"):
        catalog.create()


def test_sqlite_has_a_write_ahead_log(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'c.sqlite'}")
    catalog.create()
    with catalog.session() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA busy_timeout")) == 30_000
    catalog.close()


@pytest.mark.parametrize("url", ["catalog.sqlite", "mysql://host/db", "nonsense://x"])
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(CatalogError):
        Catalog(url)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg")
    catalog = Catalog("postgresql://someone:hidden@127.0.0.1:9/none")
    with pytest.raises(CatalogError, match=r"127\.0\.0\.1:9") as caught:
        catalog.create()
    assert "hidden" not in str(caught.value)
