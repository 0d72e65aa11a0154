"""The app of a worker: what it opens its belief table on."""

from __future__ import annotations

from pathlib import Path

from streams.app import make_app
from tests.streams.specs import small_spec


async def test_a_damaged_store_is_gone_before_faust_opens_it(tmp_path: Path) -> None:
    store = tmp_path / "v1" / "tables" / "beliefs-0.db"
    store.mkdir(parents=True)
    (store / "CURRENT").write_bytes(b"no manifest")
    make_app(small_spec(), "127.0.0.1:1", {}, group="g", worker="w", data_dir=tmp_path)
    assert not store.exists()
