"""The database below the catalog: SQLite or PostgreSQL, with several writers at once."""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Final

from sqlalchemy import create_engine, event, func, select
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.orm import Session

BUSY_MS: Final = 30_000
_ADVISORY_LOCK: Final = 0x5EBEA25E  # any number will do that only catalogs use


class CatalogError(RuntimeError):
    """The catalog cannot be opened, or does not hold what was asked for."""


def engine_of(url: str) -> Engine:
    """The engine for a database URL. Raises `CatalogError` where there can be none."""
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise CatalogError(f"{parsed.drivername}: the catalog is in sqlite or postgresql")
        engine = create_engine(parsed)
    except (ArgumentError, NoSuchModuleError) as error:
        raise CatalogError(
            f"{url!r} is not a database URL such as sqlite:///file: {error}"
        ) from None
    except ModuleNotFoundError as error:
        remedy = "pip install 'psycopg[binary]'"
        raise CatalogError(f"PostgreSQL needs a driver ({error}): {remedy}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, in `_begin_sqlite`
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: a power cut loses no consistency
    _write_ahead(connection)


def _write_ahead(connection: Any) -> None:
    # Of two connections that switch a new file at once SQLite refuses one without waiting, busy
    # timeout or not: each holds what the other needs, so that one has to let go and try again.
    patience = time.monotonic() + BUSY_MS / 1000
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # its kinds are above that
            if not busy or time.monotonic() > patience:
                raise
            time.sleep(0.005)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads and then writes cannot wait for another writer: lock before reading.
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def lock(session: Session) -> None:
    """Until the end of the transaction nobody else passes here; SQLite's write lock does that."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
