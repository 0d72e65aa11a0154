"""A damaged local store is made anew, a sound one stays as it is."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import rocksdict

from streams.stores import drop_damaged

ROWS = {str(number).encode(): bytes([number]) * 500 for number in range(200)}


def make(path: Path) -> None:
    """A store with a table file and, behind that, a log."""
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    store = rocksdict.Rdict(str(path), options)
    for key, row in ROWS.items():
        store[key] = row
        if key == b"100":
            store.flush()
    store.close()


def rows(path: Path) -> dict[bytes, bytes]:
    store: Any = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    try:
        return dict(store.items())
    finally:
        store.close()


def test_a_sound_store_stays(tmp_path: Path) -> None:
    make(tmp_path / "v1" / "tables" / "beliefs-0.db")
    assert drop_damaged(tmp_path) == []
    assert rows(tmp_path / "v1" / "tables" / "beliefs-0.db") == ROWS


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_damaged_store_is_removed_and_its_neighbour_is_not(tmp_path: Path, pattern: str) -> None:
    make(tmp_path / "one.db")
    make(tmp_path / "other.db")
    (victim,) = (f for f in sorted((tmp_path / "one.db").glob(pattern))[:1])
    content = bytearray(victim.read_bytes())
    for place in random.Random(1).sample(range(len(content)), min(len(content), 40)):
        content[place] ^= 0xFF
    victim.write_bytes(content)
    assert drop_damaged(tmp_path) == [tmp_path / "one.db"]
    assert not (tmp_path / "one.db").exists()
    assert rows(tmp_path / "other.db") == ROWS


def test_what_is_left_can_be_read(tmp_path: Path) -> None:
    for seed in range(12):
        path = tmp_path / f"{seed}.db"
        make(path)
        chosen = random.Random(seed)
        victim = chosen.choice(sorted(f for f in path.iterdir() if f.stat().st_size))
        victim.write_bytes(victim.read_bytes()[: chosen.randrange(victim.stat().st_size)])
    drop_damaged(tmp_path)
    for path in tmp_path.glob("*.db"):
        assert set(rows(path).items()) <= set(ROWS.items())
