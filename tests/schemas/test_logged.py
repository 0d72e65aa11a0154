"""Whoever reads a folder beside a sink sees each row once, whatever is merged meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.logged import META_KEY, logged_files, said, with_files


def put(path: Path, numbers: Sequence[int], replaces: Sequence[str] = ()) -> Path:
    """A file of a sink that holds these numbers."""
    about = json.dumps({"replaces": list(replaces)}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"number": pa.array(numbers, pa.int64())})
    pq.write_table(table.replace_schema_metadata({META_KEY: about}), path)
    return path


def merge(folder: Path, name: str, *old: Path) -> Path:
    """One file in place of others."""
    merged = put(folder / name, numbers(list(old)), [path.name for path in old])
    for path in old:
        path.unlink()
    return merged


def numbers(paths: list[Path]) -> list[int]:
    """What stands in the files."""
    return [n for path in paths for n in pq.read_table(path).column("number").to_pylist()]


def test_what_was_merged_into_another_file_does_not_count(tmp_path: Path) -> None:
    one, two = put(tmp_path / "d/1.parquet", [1]), put(tmp_path / "d/2.parquet", [2])
    twin = put(tmp_path / "e/1.parquet", [3])
    pq.write_table(pa.table({"number": [4]}), tmp_path / "own.parquet")
    both = put(tmp_path / "d/0.parquet", [1, 2], ["1.parquet", "2.parquet"])
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    found = logged_files(tmp_path)
    assert found == sorted([both, twin, tmp_path / "own.parquet", tmp_path / "damaged.parquet"])
    assert said(both) == {"replaces": [one.name, two.name]}
    assert said(tmp_path / "own.parquet") is None
    assert logged_files(tmp_path / "absent") == []


def test_files_that_are_merged_while_they_are_read_are_looked_for_again(tmp_path: Path) -> None:
    old = [put(tmp_path / f"{n}.parquet", [n]) for n in range(1, 4)]
    tries = []

    def read(paths: list[Path]) -> list[int]:
        tries.append(paths)
        if len(tries) == 1:
            merge(tmp_path, "9.parquet", *old[:2])
        return numbers(paths)

    assert sorted(with_files(tmp_path, read)) == [1, 2, 3]
    assert tries == [old, [old[2], tmp_path / "9.parquet"]]


def test_a_merge_during_the_listing_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing may show neither what goes nor what comes while it is made."""
    old = [put(tmp_path / f"{n}.parquet", [n]) for n in range(1, 3)]
    listings = [sorted(old)[1:]]  # as if the first had gone, and the merged one not been there
    real = Path.rglob

    def listed(folder: Path, pattern: str) -> list[Path]:
        if listings:
            merge(tmp_path, "9.parquet", *old)
            return listings.pop()
        return list(real(folder, pattern))

    monkeypatch.setattr(Path, "rglob", listed)
    assert with_files(tmp_path, numbers) == [1, 2]


def test_a_file_that_is_missing_for_another_reason_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet", [1])
    with pytest.raises(FileNotFoundError):
        with_files(tmp_path, lambda _: numbers([tmp_path / "2.parquet"]))
