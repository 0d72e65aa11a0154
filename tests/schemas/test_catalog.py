"""The catalog on SQLite and PostgreSQL: idempotent, safe with several writers, exact."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, inspect, select, text

import schemas.catalog
from schemas import bloom
from schemas.catalog import (
    Alert,
    Bundle,
    Catalog,
    CatalogError,
    Dataset,
    File,
    Place,
    Recording,
)
from schemas.catalog_tables import Filter, Release
from schemas.messages import action_id


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    catalog = Catalog(catalog_url)
    catalog.create()
    yield catalog
    catalog.close()


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


def index(catalog: Catalog, row: File, ids: Sequence[str], entities: Sequence[str]) -> None:
    keys = np.concatenate([bloom.keys_of(ids), bloom.keys_of_entities(entities)])
    catalog.put_file(row, keys)


def written(
    folder: Path, name: str, decisions: Sequence[tuple[str, int]], system: str = "nav2d"
) -> File:
    """A file that holds these decisions of (entity, tick), four to a row group."""
    table = pa.table(
        {
            "action_id": [action_id(system, entity, tick) for entity, tick in decisions],
            "system": [system] * len(decisions),
            "entity": [entity for entity, _ in decisions],
            "tick": pa.array([tick for _, tick in decisions], pa.int64()),
        }
    )
    path = folder / name
    pq.write_table(table, path, row_group_size=4)
    ticks = [tick for _, tick in decisions]
    return file(str(path), system=system, first_tick=min(ticks), last_tick=max(ticks))


def put_written(
    catalog: Catalog, folder: Path, name: str, decisions: Sequence[tuple[str, int]], **changes: Any
) -> str:
    row = written(folder, name, decisions, **changes)
    ids = [action_id(row.system, entity, tick) for entity, tick in decisions]
    index(catalog, row, ids, sorted({entity for entity, _ in decisions}))
    return row.path


def test_decisions_are_found_in_their_files(catalog: Catalog, tmp_path: Path) -> None:
    fleet = [(f"r{number}", tick) for tick in range(10) for number in range(4)]
    for _ in range(2):  # doing it again changes nothing
        first = put_written(catalog, tmp_path, "first", fleet)
    # A twin's attempt at one action, twice in one row group; then a robot goes on alone.
    late = [("r1", 9), ("r1", 9), *[("r3", tick) for tick in range(10, 16)]]
    second = put_written(catalog, tmp_path, "second", late)
    put_written(catalog, tmp_path, "other", [("r1", 12)], system="autoscale")
    assert catalog.indexed("nav2d") == {first, second}

    ident = action_id("nav2d", "r2", 7)
    assert catalog.find_action(ident) == [Place(ident, "nav2d", "r2", 7, first, 7)]
    twice = action_id("nav2d", "r1", 9)
    assert [(p.path, p.row_group) for p in catalog.find_action(twice)] == [(first, 9), (second, 0)]
    assert catalog.find_action(action_id("nav2d", "r2", 10)) == []
    assert catalog.find_action("unheard-of") == []

    def found(system: str, entity: str, tick: int) -> list[tuple[str, int, int]]:
        places = catalog.find_decision(system, entity, tick)
        assert {p.action_id for p in places} <= {action_id(system, entity, p.tick) for p in places}
        return [(place.path, place.row_group, place.tick) for place in places]

    assert found("nav2d", "r2", 10**6) == [(first, 9, 9)]
    assert found("nav2d", "r2", 4) == [(first, 4, 4)]
    assert found("nav2d", "r1", 12) == [(first, 9, 9), (second, 0, 9)]
    assert found("nav2d", "r3", 13) == [(second, 1, 13)]
    assert found("nav2d", "r1", -1) == found("nav2d", "nobody", 5) == []
    assert [tick for _, _, tick in found("autoscale", "r1", 12)] == [12]

    put_written(catalog, tmp_path, "first", fleet[:4])  # the file was written anew
    assert catalog.find_action(ident) == []
    assert found("nav2d", "r2", 4) == [(first, 0, 0)]


@given(data=st.data())
@settings(max_examples=15)
def test_the_last_decision_is_found_in_any_order_of_files(data: st.DataObject) -> None:
    names, ticks = st.sampled_from("abc"), st.integers(0, 12)
    content = st.lists(st.tuples(names, ticks), min_size=1, max_size=14)
    with TemporaryDirectory() as folder:
        catalog = Catalog(f"sqlite:///{folder}/c.sqlite")
        catalog.create()
        files = data.draw(st.lists(content, min_size=1, max_size=4))
        for number, decisions in enumerate(files):
            put_written(catalog, Path(folder), str(number), decisions)
        entity, at = data.draw(names), data.draw(ticks)
        everywhere = [
            (tick, number, row // 4)
            for number, decisions in enumerate(files)
            for row, (name, tick) in enumerate(decisions)
            if name == entity and tick <= at
        ]
        newest = max((tick for tick, _, _ in everywhere), default=None)
        places = catalog.find_decision("nav2d", entity, at)
        found = {(place.tick, int(Path(place.path).name), place.row_group) for place in places}
        assert found == {one for one in everywhere if one[0] == newest}
        assert len(found) == len(places)
        last = action_id("nav2d", entity, -1 if newest is None else newest)
        assert catalog.find_action(last) == places
        catalog.close()


def test_a_file_without_a_filter_is_looked_into(catalog: Catalog, tmp_path: Path) -> None:
    row = written(tmp_path, "a", [("r1", 3)])
    catalog.put(row)
    assert catalog.indexed("nav2d") == set()
    (place,) = catalog.find_action(action_id("nav2d", "r1", 3))
    assert catalog.find_decision("nav2d", "r1", 5) == [place]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "is not there"), (b"", "cannot be read"), (b"PAR1 and nonsense PAR1", "cannot be")],
)
def test_a_file_that_is_gone_or_damaged_is_named(
    catalog: Catalog, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = put_written(catalog, tmp_path, "a", [("r1", 3)])
    Path(path).unlink()
    if content is not None:
        Path(path).write_bytes(content)
    with pytest.raises(CatalogError, match=f"{path} {problem}.*The sink"):
        catalog.find_action(action_id("nav2d", "r1", 3))
    with pytest.raises(CatalogError, match=f"{path} {problem}"):
        catalog.find_decision("nav2d", "r1", 3)


def test_a_file_of_something_else_is_named(catalog: Catalog, tmp_path: Path) -> None:
    path = put_written(catalog, tmp_path, "a", [("r1", 3)])
    pq.write_table(pa.table({"action_id": ["x"], "entity": ["r1"], "system": ["nav2d"]}), path)
    with pytest.raises(CatalogError, match=f"{path} has no column tick"):
        catalog.find_decision("nav2d", "r1", 3)


def test_a_file_that_is_merged_meanwhile_is_looked_for_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = put_written(catalog, tmp_path, "old", [("r1", 3)])
    look = schemas.catalog.of_action

    def merge_first(path: str, ident: str) -> list[Place]:
        if path == old and Path(old).exists():
            put_written(catalog, tmp_path, "merged", [("r1", 3)])
            with catalog.session(write=True) as session:
                session.execute(text(f"DELETE FROM files WHERE path = '{old}'"))
            Path(old).unlink()
        return look(path, ident)

    monkeypatch.setattr(schemas.catalog, "of_action", merge_first)
    (place,) = catalog.find_action(action_id("nav2d", "r1", 3))
    assert place.path == str(tmp_path / "merged")


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
        index(catalog, file(path), ids, ["e"])
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
        assert session.scalar(select(func.count()).select_from(Filter)) == 30
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


def test_a_catalog_with_a_row_for_every_action_is_taken_over(
    catalog: Catalog, catalog_url: str, tmp_path: Path
) -> None:
    catalog.put(written(tmp_path, "a", [("r1", 3)]), bundle("one"))
    catalog.promote("nav2d", "one", at_us=1, by="me")
    with catalog.session(write=True) as session:
        session.execute(text("DROP TABLE filters"))
        session.execute(text("CREATE TABLE decisions (action_id VARCHAR PRIMARY KEY)"))
        session.execute(text("UPDATE about SET value = '1' WHERE key = 'version'"))
    for _ in range(2):
        again = Catalog(catalog_url)
        again.create()
        assert len(again.find_action(action_id("nav2d", "r1", 3))) == 1
        champion = again.champion("nav2d")
        assert champion is not None
        assert champion.digest == "one"
        again.close()
    with catalog.session() as session:
        tables = inspect(session.connection()).get_table_names()
    assert "filters" in tables
    assert "decisions" not in tables


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
