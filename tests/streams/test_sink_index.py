"""The catalog says what the sink's files hold, after merges and after crashes as well."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from schemas.catalog import Catalog
from schemas.messages import action_id
from streams import sink_files
from streams.sink_files import FileInfo
from streams.sink_index import FileKeys, SinkIndex
from streams.sink_merge import merging
from streams.sink_table import Reports, read_frame, table_of
from tests.streams.frames import cohort_names, trajectory
from tests.streams.specs import small_spec

SPEC = small_spec()
ENTITY = cohort_names(SPEC, 0)[0]


def put(root: Path, first: int, count: int) -> FileInfo:
    """A file of `count` ticks from `first` on."""
    ticks = range(first, first + count)
    read = [read_frame(0, tick, tick, trajectory(SPEC, 0, tick)) for tick in ticks]
    table = table_of(SPEC, read, Reports())
    place = [(first, first + count)]
    facts = {"spec_hash": "s", "interface_hash": "i", "objective_hash": "o", "bundles": ["b"]}
    info = FileInfo(
        Path(), SPEC.system, "2026-01-02", read[0].layout, "t", table.num_rows, {0: place},
        {0: place}, facts,
    )  # fmt: skip
    return sink_files.write(root, table, info)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/c.sqlite"


@pytest.fixture
def index(tmp_path: Path, url: str) -> Iterator[SinkIndex]:
    index = SinkIndex(SPEC, tmp_path, url)
    yield index
    index.close()


def found(url: str, tick: int) -> list[str]:
    """Files in which the catalog finds the action of a tick: by its id, and by entity and time."""
    catalog = Catalog(url)
    places = catalog.find_action(action_id(SPEC.system, ENTITY, tick))
    if places:
        assert catalog.find_decision(SPEC.system, ENTITY, tick) == places
    catalog.close()
    return [place.path for place in places]


def test_a_file_is_described_and_its_actions_are_found(
    index: SinkIndex, url: str, tmp_path: Path
) -> None:
    infos = [put(tmp_path, 0, 3), put(tmp_path, 3, 4)]
    for info in infos:
        index.add(info)
    first, second = ([str(info.path)] for info in infos)
    assert [found(url, tick) for tick in (2, 3, 6, 7)] == [first, second, second, []]
    catalog = Catalog(url)
    row = catalog.files(SPEC.system)[1]
    catalog.close()
    content = infos[1].path.read_bytes()
    assert (row.first_tick, row.last_tick, row.rows, row.cohorts) == (3, 6, infos[1].rows, [0])
    assert (row.bytes, row.digest) == (len(content), hashlib.sha256(content).hexdigest())


def test_merged_files_are_replaced(index: SinkIndex, url: str, tmp_path: Path) -> None:
    old = [put(tmp_path, 0, 3), put(tmp_path, 3, 3)]
    for info in old:
        index.add(info)
    keys = FileKeys()
    merged = sink_files.finished(merging(tmp_path, old, keys))
    for _ in index.replacing(old, merged, keys):
        assert found(url, 0) == [str(old[0].path)], "they are swapped in one step"
    sink_files.remove(old)
    assert {path for tick in range(6) for path in found(url, tick)} == {str(merged.path)}


@pytest.mark.parametrize("lost", ["rows", "filters", "nothing"])
def test_a_start_makes_the_catalog_right(
    index: SinkIndex, url: str, tmp_path: Path, lost: str
) -> None:
    """Killed before the catalog knew of a file, or of a merge; or it had no filters yet."""
    old = [put(tmp_path, 0, 3), put(tmp_path, 3, 3)]
    for info in old:
        index.add(info)
    later = put(tmp_path, 6, 2)
    merged = sink_files.finished(merging(tmp_path, old, FileKeys()))
    catalog = Catalog(url)
    with catalog.session(write=True) as session:
        if lost == "rows":
            session.execute(text("DELETE FROM files"))
        elif lost == "filters":
            session.execute(text("UPDATE files SET blocks = 0"))
            session.execute(text("DELETE FROM filter_blocks"))
    index.match(sink_files.recover(tmp_path, SPEC.system))
    both = {str(merged.path), str(later.path)}
    assert catalog.indexed(SPEC.system) == both
    assert {row.path for row in catalog.files(SPEC.system)} == both
    catalog.close()
    assert {path for tick in range(8) for path in found(url, tick)} == both


def test_files_of_another_folder_stay(index: SinkIndex, url: str, tmp_path: Path) -> None:
    other = put(tmp_path.parent / f"{tmp_path.name}-other", 0, 2)
    index.add(other)
    index.match([])
    assert found(url, 1) == [str(other.path)]
