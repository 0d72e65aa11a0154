"""The tables of the catalog: what was recorded, learned and released, and where it lies.

Times are int microseconds UTC, days are `YYYY-MM-DD` of event time, digests are hex. Each table
names its natural key in `natural`, by which `Catalog.put` replaces instead of adding.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

SEVERAL = "candidate"
"""The one alias that several bundles of a system may have at once."""


class Table(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """A table whose rows are keyword-only dataclasses."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: BigInteger,
        list[int]: JSON,
        list[str]: JSON,
        dict[str, Any]: JSON,
    }
    natural: ClassVar[tuple[str, ...]] = ()


class About(Table, kw_only=True):
    """Facts about the catalog itself, such as the version of its layout."""

    __tablename__ = "about"
    natural = ("key",)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class File(Table, kw_only=True):
    """One Parquet file of trajectories, as the sink wrote it: one system, one day, one spec."""

    __tablename__ = "files"
    __table_args__ = (Index("files_by_day", "system", "day"),)
    natural = ("path",)
    id: Mapped[int] = mapped_column(Integer, primary_key=True, init=False)
    path: Mapped[str] = mapped_column(unique=True)
    system: Mapped[str]
    day: Mapped[str]
    first_tick: Mapped[int]
    last_tick: Mapped[int]
    rows: Mapped[int]
    cohorts: Mapped[list[int]]
    spec_hash: Mapped[str]
    interface_hash: Mapped[str]
    objective_hash: Mapped[str]
    bundles: Mapped[list[str]]
    """Digests of the bundles that decided in it."""
    bytes: Mapped[int]
    digest: Mapped[str]
    """SHA-256 of its content."""
    blocks: Mapped[int] = mapped_column(default=0, server_default="0")
    """Of its filter; 0: it has none, and may hold anything."""


class Block(Table, kw_only=True):
    """Which actions and entities a file may hold: a block of a Bloom filter (`schemas.bloom`).

    Not a row for every action: at 2,000 a second, each in a page of its own, that took more reads
    and writes than all else here together. Not a whole filter: of each a look-up needs one block.
    """

    __tablename__ = "filter_blocks"
    natural = ("file_id", "number")
    file_id: Mapped[int] = mapped_column(
        ForeignKey("files.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    bits: Mapped[bytes]


class Recording(Table, kw_only=True):
    """A stretch of a system's topics, copied so that it can be replayed."""

    __tablename__ = "recordings"
    natural = ("path",)
    path: Mapped[str] = mapped_column(primary_key=True)
    system: Mapped[str] = mapped_column(index=True)
    from_us: Mapped[int]
    to_us: Mapped[int]
    frames: Mapped[int]
    spec: Mapped[str]
    """The spec's YAML text, so that the recording stands on its own."""
    spec_hash: Mapped[str]
    ranges: Mapped[dict[str, Any]]
    """topic -> partition (as text) -> [first offset, offset after the last]."""
    created_us: Mapped[int]


class Dataset(Table, kw_only=True):
    """The files that one training read, each with its split."""

    __tablename__ = "datasets"
    natural = ("digest",)
    digest: Mapped[str] = mapped_column(primary_key=True)
    system: Mapped[str] = mapped_column(index=True)
    interface_hash: Mapped[str]
    rows: Mapped[int]
    created_us: Mapped[int]
    files: Mapped[dict[str, Any]]
    """path -> split: `train`, `validation` or `test`."""


class Bundle(Table, kw_only=True):
    """One model that can be released, and where it came from."""

    __tablename__ = "bundles"
    natural = ("digest",)
    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    system: Mapped[str] = mapped_column(index=True)
    interface_hash: Mapped[str]
    objective_hash: Mapped[str]
    path: Mapped[str]
    created_us: Mapped[int]
    dataset: Mapped[str | None] = mapped_column(default=None)
    command: Mapped[str] = mapped_column(default="")
    seed: Mapped[int | None] = mapped_column(default=None)
    metrics: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)


class Version(Table, kw_only=True):
    """The number of a bundle among those of its name: 1, 2, 3 …, never given to another one."""

    __tablename__ = "versions"
    natural = ("name", "version")
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("bundles.digest"), unique=True)
    at_us: Mapped[int]
    by: Mapped[str]


class Release(Table, kw_only=True):
    """An alias of a system, such as `champion`, on a bundle from `since_us` until `until_us`.

    None: still. Rows are never taken out, so they are the history too.
    """

    __tablename__ = "releases"
    natural = ("system", "role", "bundle", "since_us")
    __table_args__ = (UniqueConstraint(*natural),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True, init=False)
    system: Mapped[str]
    role: Mapped[str]
    """The alias."""
    bundle: Mapped[str] = mapped_column(ForeignKey("bundles.digest"))
    since_us: Mapped[int]
    until_us: Mapped[int | None] = mapped_column(default=None)
    by: Mapped[str]
    why: Mapped[str] = mapped_column(default="", server_default="")
    ended: Mapped[str] = mapped_column(default="", server_default="")
    """Who took the alias away and why, where no other bundle got it."""


# Two processes that promote at once cannot leave two champions behind.
_only_one = Release.until_us.is_(None) & (Release.role != SEVERAL)
Index(
    "releases_one_at_a_time",
    Release.system,
    Release.role,
    unique=True,
    sqlite_where=_only_one,
    postgresql_where=_only_one,
)


class Alert(Table, kw_only=True):
    """Something that a person should look at; the same one at the same time is one row."""

    __tablename__ = "alerts"
    natural = ("system", "entity", "kind", "time_us")
    __table_args__ = (UniqueConstraint(*natural), Index("alerts_by_time", "system", "time_us"))
    id: Mapped[int] = mapped_column(Integer, primary_key=True, init=False)
    time_us: Mapped[int]
    system: Mapped[str]
    entity: Mapped[str] = mapped_column(default="")
    kind: Mapped[str]
    message: Mapped[str]
