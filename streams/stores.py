"""Local stores that cannot be read are left behind: the changelog has all that they held."""

import shutil
from pathlib import Path

import rocksdict

from infra.log import Log

_log = Log("worker")


def drop_damaged(folder: Path) -> list[Path]:
    """Removes every RocksDB store (`*.db`) below `folder` that cannot be read from end to end.

    Each is read whole, which verifies its checksums; belief rows are few and small. Nobody else may
    have the stores open. Returns what was removed; who opens it then makes it anew.
    """
    damaged = []
    for store in sorted(folder.rglob("*.db")):
        if not store.is_dir():
            continue
        try:
            _read(store)
        except Exception as error:  # RocksDB's errors have no class of their own
            _log.error("local store damaged; made anew", store=str(store), error=str(error))
            shutil.rmtree(store)
            damaged.append(store)
    return damaged


def _read(store: Path) -> None:
    found = rocksdict.Rdict(str(store), access_type=rocksdict.AccessType.read_only())
    try:
        for _ in found.items():
            pass
    finally:
        found.close()
