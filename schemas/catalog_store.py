"""What all of the catalog stands on: sessions, rows that replace rows, older layouts.

Every write is one transaction and replaces by natural key, so a process that is killed and does
its last step again leaves no duplicates. Several processes may write at once: SQLite runs with a
write-ahead log, takes its write lock at the start of a transaction, and waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Executable, Select, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from schemas.catalog_engine import CatalogError, engine_of, lock
from schemas.catalog_tables import About, Bundle, Table, Version

LAYOUT = "4"


class Store:
    """The database below a catalog; see `schemas.catalog.Catalog`."""

    def __init__(self, url: str) -> None:
        self._engine = engine_of(url)
        self._writing = self._engine.execution_options(write=True)
        self._sessions = sessionmaker(expire_on_commit=False)

    @contextmanager
    def session(self, *, write: bool = False) -> Iterator[Session]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        bind = self._writing if write else self._engine
        with self._sessions(bind=bind) as session, session.begin():
            yield session

    def create(self) -> None:
        """Makes the tables that are not there yet; safe to call at every start, from anywhere.

        Raises:
            CatalogError: unreachable, or made by another version.
        """
        database = self._engine.url.database
        if self._engine.dialect.name == "sqlite" and database not in (None, "", ":memory:"):
            Path(str(database)).parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.session(write=True) as session:
                lock(session)
                Table.metadata.create_all(session.connection())
                _bring_up_to_date(session)
        except OperationalError as error:
            where = self._engine.url.render_as_string(hide_password=True)
            raise CatalogError(f"cannot open the catalog {where}: {error.orig}") from error

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def put(self, *rows: Table) -> None:
        """Writes rows in one transaction; a row whose natural key is there replaces that row."""
        with self.session(write=True) as session:
            for row in rows:
                upsert(session, row)

    def rows(self, query: Select[Any]) -> list[Any]:
        """All that a query finds, detached."""
        with self.session() as session:
            return list(session.scalars(query))


_BLOCKS = "ALTER TABLE files ADD COLUMN blocks BIGINT DEFAULT 0 NOT NULL"
_WHY = (
    "ALTER TABLE releases ADD COLUMN why VARCHAR DEFAULT '' NOT NULL",
    "ALTER TABLE releases ADD COLUMN ended VARCHAR DEFAULT '' NOT NULL",
)
_OLDER = {
    "1": ("DROP TABLE decisions", _BLOCKS, *_WHY),  # it had a row for every action
    "2": ("DROP TABLE filters", _BLOCKS, *_WHY),  # it had a filter in one piece
    "3": _WHY,  # its bundles had no versions
}


def _bring_up_to_date(session: Session) -> None:
    about = session.get(About, "version")
    if about is None:
        session.add(About(key="version", value=LAYOUT))
    elif old := _OLDER.get(about.value):
        # A sink makes filters of its files when it starts; until then every file is looked into.
        for statement in old:
            session.execute(text(statement))
        _give_versions(session)
        about.value = LAYOUT
    elif about.value != LAYOUT:
        raise CatalogError(
            f"the catalog has layout {about.value}, this version of rehearse {LAYOUT}: "
            "use another catalog, or the version that made this one"
        )


def _give_versions(session: Session) -> None:
    """Bundles of a layout without versions get theirs in the order in which they came."""
    query = select(Bundle).order_by(Bundle.name, Bundle.created_us, Bundle.digest)
    for name, bundles in groupby(session.scalars(query).all(), lambda bundle: bundle.name):
        for number, one in enumerate(bundles, start=1):
            row = {"name": name, "version": number, "digest": one.digest}
            session.add(Version(**row, at_us=one.created_us, by="before there were versions"))


def upsert(session: Session, row: Table) -> None:
    """Writes a row, or replaces the one of its natural key."""
    statement, names = _replacing(type(row), session.get_bind().dialect.name)
    session.execute(statement, {name: getattr(row, name) for name in names})


@cache  # building it takes longer than executing it
def _replacing(kind: type[Table], dialect: str) -> tuple[Executable, tuple[str, ...]]:
    names = tuple(column.name for column in kind.__table__.columns if column.name != "id")
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(kind.__table__)
    new = {name: insert.excluded[name] for name in names}
    return insert.on_conflict_do_update(index_elements=kind.natural, set_=new), names
