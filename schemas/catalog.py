"""One catalog, SQLite or PostgreSQL, says where everything lies that was recorded or learned.

Every write is one transaction and replaces by natural key, so a process that is killed and does
its last step again leaves no duplicates. Several processes may write at once: SQLite runs with a
write-ahead log, takes its write lock at the start of a transaction, and waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Select,
    and_,
    delete,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from schemas.bloom import Keys, block_number, keys_of, keys_of_entities, may_hold
from schemas.catalog_engine import CatalogError, engine_of, lock
from schemas.catalog_tables import (
    About,
    Alert,
    Block,
    Bundle,
    Dataset,
    File,
    Recording,
    Release,
    Role,
    Table,
)
from schemas.places import FileGone, FileUnreadable, Place, last_of_entity, of_action

__all__ = [
    "Alert",
    "Bundle",
    "Catalog",
    "CatalogError",
    "Dataset",
    "File",
    "Place",
    "Recording",
    "Release",
    "Role",
]

VERSION = "3"
_FILES_AT_ONCE = 256
_REMEDY = "The sink that writes there takes what is gone out of the catalog when it starts"


class Catalog:
    """The catalog at a database URL: `sqlite:////folder/catalog.sqlite`, `postgresql://host/name`.

    Rows that come out are detached: plain values that outlive their session. Numbers that go in
    must be Python's own, not NumPy scalars.

    Raises:
        CatalogError: the URL is not one, or its driver is not installed.
    """

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
                _check_version(session)
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
                _upsert(session, row)

    # -- trajectories ------------------------------------------------------------------------

    def files(
        self, system: str, from_day: str | None = None, to_day: str | None = None
    ) -> list[File]:
        """Files of a system in the order of time; both days included, None is open."""
        query = select(File).where(File.system == system)
        if from_day is not None:
            query = query.where(File.day >= from_day)
        if to_day is not None:
            query = query.where(File.day <= to_day)
        return self._all(query.order_by(File.day, File.first_tick, File.path))

    def put_file(self, file: File, blocks: Sequence[bytes], replaces: Sequence[str] = ()) -> None:
        """Writes or replaces a file and the filter of what it holds, in one transaction.

        `blocks`: of its actions and of its entities, by `schemas.bloom`. `replaces`: paths of the
        files that were merged into it, which go out.
        """
        file.blocks = len(blocks)
        with self.session(write=True) as session:
            session.execute(delete(File).where(File.path.in_([*replaces, file.path])))
            _upsert(session, file)
            file_id = session.scalars(select(File.id).where(File.path == file.path)).one()
            rows = [{"file_id": file_id, "number": n, "bits": b} for n, b in enumerate(blocks)]
            session.execute(insert(Block), rows)

    def indexed(self, system: str) -> set[str]:
        """Paths of the files of which it is known what they hold."""
        query = select(File.path).where(File.system == system, File.blocks > 0)
        return set(self._all(query))

    def find_action(self, action_id: str) -> list[Place]:
        """Every place that holds rows of the action, the oldest file first; empty if unknown.

        Raises:
            CatalogError: a file that may hold it is gone or damaged; names it.
        """
        try:
            keys = keys_of([action_id])
        except ValueError:
            return []
        return self._looked_up(lambda: self._places_of_action(action_id, keys))

    def find_decision(self, system: str, entity: str, tick: int) -> list[Place]:
        """Places of the entity's last decision at or before `tick`; empty if there is none.

        Raises:
            CatalogError: a file that may hold it is gone or damaged; names it.
        """
        return self._looked_up(lambda: self._places_of_last(system, entity, tick))

    def _places_of_action(self, action_id: str, keys: Keys) -> list[Place]:
        query = select(File, Block.bits).outerjoin(Block, _block_of(keys))
        with self.session() as session:
            rows = session.execute(query.execution_options(yield_per=_FILES_AT_ONCE))
            files = [file for file, bits in rows if _may_hold(bits, keys)]
        files.sort(key=lambda file: (file.day, file.first_tick, file.path))
        return [place for file in files for place in of_action(file.path, action_id)]

    def _places_of_last(self, system: str, entity: str, tick: int) -> list[Place]:
        keys = keys_of_entities([entity])
        query = select(File, Block.bits).outerjoin(Block, _block_of(keys))
        query = query.where(File.system == system, File.first_tick <= tick)
        query = query.order_by(File.last_tick.desc())
        found: list[tuple[File, Place]] = []
        with self.session() as session:
            for file, bits in session.execute(query.execution_options(yield_per=_FILES_AT_ONCE)):
                last = max((place.tick for _, place in found), default=file.last_tick)
                if file.last_tick < last:
                    break
                if _may_hold(bits, keys):
                    found += [(file, one) for one in last_of_entity(file.path, entity, tick)]
        last = max((place.tick for _, place in found), default=tick)
        found.sort(key=lambda pair: (pair[0].day, pair[0].first_tick, pair[0].path))
        return [place for _, place in found if place.tick == last]

    def _looked_up(self, look: Callable[[], list[Place]]) -> list[Place]:
        """What `look` finds; again, where a file was merged into another meanwhile."""
        while True:
            try:
                return look()
            except FileGone as error:
                if error.path in self._all(select(File.path)):
                    raise CatalogError(f"{error}. {_REMEDY}") from None
            except FileUnreadable as error:
                raise CatalogError(f"{error}. {_REMEDY}") from None

    # -- models ------------------------------------------------------------------------------

    def bundles(self, system: str | None = None) -> list[Bundle]:
        """Bundles, of one system or all, the newest first."""
        query = select(Bundle).order_by(Bundle.created_us.desc(), Bundle.digest)
        return self._all(query if system is None else query.where(Bundle.system == system))

    def bundle(self, name: str) -> Bundle:
        """The bundle with this digest, beginning of a digest, or name (the newest of that name).

        Raises:
            CatalogError: there is none, or the beginning fits several.
        """
        bundles = self.bundles()
        named = [bundle for bundle in bundles if bundle.name == name]
        if named:
            return named[0]
        matches = [bundle for bundle in bundles if name and bundle.digest.startswith(name)]
        if len(matches) != 1:
            problem = "fits several bundles: write more of it" if matches else "is no bundle"
            raise CatalogError(f"{name!r} {problem}; `rehearse bundle list` shows them")
        return matches[0]

    def champion(self, system: str) -> Bundle | None:
        """The bundle that acts in the system, if one was promoted."""
        return next(iter(self.released(system, "champion")), None)

    def released(self, system: str, role: Role) -> list[Bundle]:
        """The bundles that are in a role now, the last put there first."""
        query = (
            select(Bundle)
            .join(Release, Release.bundle == Bundle.digest)
            .where(Release.system == system, Release.role == role, Release.until_us.is_(None))
        )
        return self._all(query.order_by(Release.since_us.desc(), Release.id.desc()))

    def releases(self, system: str) -> list[Release]:
        """Who was in which role when, the newest first."""
        query = select(Release).where(Release.system == system)
        return self._all(query.order_by(Release.since_us.desc(), Release.id.desc()))

    def promote(
        self, system: str, digest: str, *, at_us: int, by: str, role: Role = "champion"
    ) -> None:
        """Puts a bundle into a role at a time; the champion or shadow before it steps down.

        Doing it again changes nothing. `by` says who or what decided.

        Raises:
            CatalogError: the bundle is unknown, or belongs to another system.
        """
        with self.session(write=True) as session:
            lock(session)
            bundle = session.get(Bundle, digest)
            if bundle is None or bundle.system != system:
                owner = "unknown" if bundle is None else f"a bundle of {bundle.system}"
                raise CatalogError(f"cannot promote {digest} in {system}: it is {owner}")
            open_now = _open_releases(session, system)
            if any(old.role == role and old.bundle == digest for old in open_now):
                return
            for old in open_now:
                # A bundle has one role; all but `candidate` hold one bundle.
                if old.bundle == digest or (old.role == role != "candidate"):
                    old.until_us = at_us
            session.flush()
            session.add(Release(system=system, role=role, bundle=digest, since_us=at_us, by=by))

    def rollback(self, system: str, *, at_us: int, by: str) -> Bundle:
        """Promotes the champion before the present one, and returns it.

        Raises:
            CatalogError: there was none before.
        """
        history = [release for release in self.releases(system) if release.role == "champion"]
        now = next((release.bundle for release in history if release.until_us is None), None)
        before = next((release.bundle for release in history if release.bundle != now), None)
        if before is None:
            raise CatalogError(f"{system} has no earlier champion to go back to")
        self.promote(system, before, at_us=at_us, by=by)
        return self.bundle(before)

    # -- the rest ----------------------------------------------------------------------------

    def recordings(self, system: str | None = None) -> list[Recording]:
        """Recordings, the newest first."""
        query = select(Recording).order_by(Recording.created_us.desc(), Recording.path)
        return self._all(query if system is None else query.where(Recording.system == system))

    def datasets(self, system: str | None = None) -> list[Dataset]:
        """Datasets with their files, the newest first."""
        query = select(Dataset).order_by(Dataset.created_us.desc(), Dataset.digest)
        return self._all(query if system is None else query.where(Dataset.system == system))

    def alerts(self, system: str, since_us: int = 0, limit: int = 1000) -> list[Alert]:
        """Alerts at or after a time, the newest first, at most `limit`."""
        query = select(Alert).where(Alert.system == system, Alert.time_us >= since_us)
        return self._all(query.order_by(Alert.time_us.desc(), Alert.id.desc()).limit(limit))

    def _all(self, query: Select[Any]) -> list[Any]:
        with self.session() as session:
            return list(session.scalars(query))


_BLOCKS = "ALTER TABLE files ADD COLUMN blocks BIGINT DEFAULT 0 NOT NULL"
_OLDER = {
    "1": ("DROP TABLE decisions", _BLOCKS),  # it had a row for every action
    "2": ("DROP TABLE filters", _BLOCKS),  # it had a filter in one piece
}


def _check_version(session: Session) -> None:
    about = session.get(About, "version")
    if about is None:
        session.add(About(key="version", value=VERSION))
    elif old := _OLDER.get(about.value):
        # A sink makes filters of its files when it starts; until then every file is looked into.
        for statement in old:
            session.execute(text(statement))
        about.value = VERSION
    elif about.value != VERSION:
        raise CatalogError(
            f"the catalog has layout {about.value}, this version of rehearse {VERSION}: "
            "use another catalog, or the version that made this one"
        )


def _open_releases(session: Session, system: str) -> list[Release]:
    query = select(Release).where(Release.system == system, Release.until_us.is_(None))
    return list(session.scalars(query))


def _upsert(session: Session, row: Table) -> None:
    statement, names = _replacing(type(row), session.get_bind().dialect.name)
    session.execute(statement, {name: getattr(row, name) for name in names})


@cache  # building it takes longer than executing it
def _replacing(kind: type[Table], dialect: str) -> tuple[Executable, tuple[str, ...]]:
    names = tuple(column.name for column in kind.__table__.columns if column.name != "id")
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(kind.__table__)
    new = {name: insert.excluded[name] for name in names}
    return insert.on_conflict_do_update(index_elements=kind.natural, set_=new), names


def _block_of(keys: Keys) -> ColumnElement[bool]:
    """Which block of each file's filter the one key is in."""
    number = int(block_number(keys)[0])
    return and_(
        Block.file_id == File.id, Block.number == literal(number) % func.nullif(File.blocks, 0)
    )


def _may_hold(bits: bytes | None, keys: Keys) -> bool:
    """Whether a file with that block may hold the one key; without a filter, it may."""
    return bits is None or bool(may_hold(bits, keys)[0])
