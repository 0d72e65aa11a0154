"""One catalog, SQLite or PostgreSQL, says where everything lies that was recorded or learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import ColumnElement, and_, delete, func, insert, literal, select

from schemas.bloom import Keys, block_number, keys_of, keys_of_entities, may_hold
from schemas.catalog_engine import CatalogError
from schemas.catalog_releases import Releases
from schemas.catalog_store import upsert
from schemas.catalog_tables import (
    Alert,
    Block,
    Bundle,
    Dataset,
    File,
    Recording,
    Release,
    Version,
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
    "Version",
]

_FILES_AT_ONCE = 256
_REMEDY = "The sink that writes there takes what is gone out of the catalog when it starts"


class Catalog(Releases):
    """The catalog at a database URL: `sqlite:////folder/catalog.sqlite`, `postgresql://host/name`.

    Rows that come out are detached: plain values that outlive their session. Numbers that go in
    must be Python's own, not NumPy scalars.

    Raises:
        CatalogError: the URL is not one, or its driver is not installed.
    """

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
        return self.rows(query.order_by(File.day, File.first_tick, File.path))

    def put_file(self, file: File, blocks: Sequence[bytes], replaces: Sequence[str] = ()) -> None:
        """Writes or replaces a file and the filter of what it holds, in one transaction.

        `blocks`: of its actions and of its entities, by `schemas.bloom`. `replaces`: paths of the
        files that were merged into it, which go out.
        """
        file.blocks = len(blocks)
        with self.session(write=True) as session:
            session.execute(delete(File).where(File.path.in_([*replaces, file.path])))
            upsert(session, file)
            file_id = session.scalars(select(File.id).where(File.path == file.path)).one()
            rows = [{"file_id": file_id, "number": n, "bits": b} for n, b in enumerate(blocks)]
            session.execute(insert(Block), rows)

    def indexed(self, system: str) -> set[str]:
        """Paths of the files of which it is known what they hold."""
        query = select(File.path).where(File.system == system, File.blocks > 0)
        return set(self.rows(query))

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
                if error.path in self.rows(select(File.path)):
                    raise CatalogError(f"{error}. {_REMEDY}") from None
            except FileUnreadable as error:
                raise CatalogError(f"{error}. {_REMEDY}") from None

    # -- the rest ----------------------------------------------------------------------------

    def recordings(self, system: str | None = None) -> list[Recording]:
        """Recordings, the newest first."""
        query = select(Recording).order_by(Recording.created_us.desc(), Recording.path)
        return self.rows(query if system is None else query.where(Recording.system == system))

    def datasets(self, system: str | None = None) -> list[Dataset]:
        """Datasets with their files, the newest first."""
        query = select(Dataset).order_by(Dataset.created_us.desc(), Dataset.digest)
        return self.rows(query if system is None else query.where(Dataset.system == system))

    def alerts(self, system: str, since_us: int = 0, limit: int = 1000) -> list[Alert]:
        """Alerts at or after a time, the newest first, at most `limit`."""
        query = select(Alert).where(Alert.system == system, Alert.time_us >= since_us)
        return self.rows(query.order_by(Alert.time_us.desc(), Alert.id.desc()).limit(limit))


def _block_of(keys: Keys) -> ColumnElement[bool]:
    """Which block of each file's filter the one key is in."""
    number = int(block_number(keys)[0])
    return and_(
        Block.file_id == File.id, Block.number == literal(number) % func.nullif(File.blocks, 0)
    )


def _may_hold(bits: bytes | None, keys: Keys) -> bool:
    """Whether a file with that block may hold the one key; without a filter, it may."""
    return bits is None or bool(may_hold(bits, keys)[0])
