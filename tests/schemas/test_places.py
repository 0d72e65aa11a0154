"""Actions and decisions are found in their files: the catalog says which, the file itself where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, text

import schemas.catalog
from schemas import bloom
from schemas.catalog import Bundle, Catalog, CatalogError, File, Place
from schemas.catalog_tables import Block
from schemas.messages import action_id
from schemas.places import of_action


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
    return File(
        path=str(path), system=system, day="2024-03-01", first_tick=min(ticks),
        last_tick=max(ticks), rows=len(ticks), cohorts=[0], spec_hash="5", interface_hash="1",
        objective_hash="2", bundles=[], bytes=path.stat().st_size, digest="d",
    )  # fmt: skip


def put_written(
    catalog: Catalog, folder: Path, name: str, decisions: Sequence[tuple[str, int]], **changes: Any
) -> str:
    row = written(folder, name, decisions, **changes)
    ids = [action_id(row.system, entity, tick) for entity, tick in decisions]
    names = sorted({entity for entity, _ in decisions})
    keys = np.concatenate([bloom.keys_of(ids), bloom.keys_of_entities(names)])
    catalog.put_file(row, bloom.filter_of(keys))
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


def test_a_look_up_goes_by_one_block_of_each_filter(catalog: Catalog, tmp_path: Path) -> None:
    path = put_written(catalog, tmp_path, "a", [("r1", tick) for tick in range(9_000)])
    (row,) = catalog.files("nav2d")
    assert row.blocks == 3
    nothing = bytes(bloom.BLOCK_BYTES)
    for tick in range(7):
        ident = action_id("nav2d", "r1", tick)
        assert [place.path for place in catalog.find_action(ident)] == [path]
        with catalog.session(write=True) as session:
            number = int(bloom.block_number(bloom.keys_of([ident]))[0]) % row.blocks
            block = session.get(Block, (row.id, number))
            assert block is not None
            kept, block.bits = block.bits, nothing
        assert catalog.find_action(ident) == []
        with catalog.session(write=True) as session:
            session.merge(Block(file_id=row.id, number=number, bits=kept))


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

    def merge_first(path: str, ident: str) -> list[Place]:
        if path == old and Path(old).exists():
            put_written(catalog, tmp_path, "merged", [("r1", 3)])
            with catalog.session(write=True) as session:
                session.execute(text(f"DELETE FROM files WHERE path = '{old}'"))
            Path(old).unlink()
        return of_action(path, ident)

    monkeypatch.setattr(schemas.catalog, "of_action", merge_first)
    (place,) = catalog.find_action(action_id("nav2d", "r1", 3))
    assert place.path == str(tmp_path / "merged")


@pytest.mark.parametrize(
    ("version", "table"),
    [("1", "decisions (action_id VARCHAR)"), ("2", "filters (bits VARCHAR)"), ("3", "")],
)
def test_a_catalog_of_an_older_layout_is_taken_over(
    catalog: Catalog, catalog_url: str, tmp_path: Path, version: str, table: str
) -> None:
    one = Bundle(
        digest="one", name="one", system="nav2d", interface_hash="1", objective_hash="2",
        path="one", created_us=1,
    )  # fmt: skip
    catalog.put(written(tmp_path, "a", [("r1", 3)]), one)
    catalog.promote("nav2d", "one", at_us=1, by="me")
    with catalog.session(write=True) as session:
        if table:  # of the third layout these are as they are now
            session.execute(text("DROP TABLE filter_blocks"))
            session.execute(text("ALTER TABLE files DROP COLUMN blocks"))
            session.execute(text(f"CREATE TABLE {table}"))
        session.execute(text("DROP TABLE versions"))
        for column in ("why", "ended"):
            session.execute(text(f"ALTER TABLE releases DROP COLUMN {column}"))
        session.execute(text(f"UPDATE about SET value = '{version}' WHERE key = 'version'"))
    for _ in range(2):
        again = Catalog(catalog_url)
        again.create()
        assert again.indexed("nav2d") == set()
        assert len(again.find_action(action_id("nav2d", "r1", 3))) == 1
        champion = again.champion("nav2d")
        assert champion is not None
        assert champion.digest == "one"
        assert [(row.name, row.version) for row in again.versions()] == [("one", 1)]
        assert again.releases("nav2d")[0].why == ""
        again.close()
    with catalog.session() as session:
        tables = inspect(session.connection()).get_table_names()
    assert "filter_blocks" in tables
    assert not table or table.split()[0] not in tables
