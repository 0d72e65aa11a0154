"""Which bundles there are, by version, and where the aliases point that tell what each is for.

A bundle gets its version when it is registered: 1, 2, 3 … among those of its name, once and for
all. An alias is of a system and points to one bundle: `champion` acts there; the other `DUTIES` say
what else a bundle does, of which it has one at a time; any other name is free.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from schemas.catalog_engine import CatalogError, lock
from schemas.catalog_store import Store, upsert
from schemas.catalog_tables import SEVERAL, Bundle, Release, Version

CHAMPION: Final = "champion"
DUTIES: Final = (CHAMPION, "challenger", "shadow", SEVERAL)
_ALIAS: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_NAME: Final = re.compile(r"[\w.-]{1,100}")

Confirm = Callable[[], object]
"""Called before what was written counts; where it raises, nothing was written."""


class Releases(Store):
    """The part of the catalog that is about models."""

    def bundles(self, system: str | None = None) -> list[Bundle]:
        """Bundles, of one system or all, the newest first."""
        query = select(Bundle).order_by(Bundle.created_us.desc(), Bundle.digest)
        return self.rows(query if system is None else query.where(Bundle.system == system))

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

    # -- versions ----------------------------------------------------------------------------

    def register(self, bundle: Bundle, *, at_us: int, by: str) -> int:
        """Puts a bundle into the catalog, and gives it the next version of its name.

        One that has a version keeps it. Of several that register at once each gets its own.

        Raises:
            CatalogError: the name is of another system's bundles, or cannot be one.
        """
        if not _NAME.fullmatch(bundle.name):
            raise CatalogError(
                f"{bundle.path}: field name: {bundle.name!r} cannot be asked for by NAME@VERSION; "
                "export the bundle under a name of letters, digits, '.', '_' and '-'"
            )
        digest = bundle.digest  # a row that is written anew is another object
        with self.session(write=True) as session:
            lock(session)
            _check_owner(session, bundle)
            upsert(session, bundle)
            known = session.scalar(select(Version.version).where(Version.digest == digest))
            if known is not None:
                return known
            highest = select(func.max(Version.version)).where(Version.name == bundle.name)
            number = (session.scalar(highest) or 0) + 1
            row = Version(name=bundle.name, version=number, digest=digest, at_us=at_us, by=by)
            session.add(row)
            return number

    def versions(self, name: str | None = None) -> list[Version]:
        """Versions, of one name or all, by name and number."""
        query = select(Version).order_by(Version.name, Version.version)
        return self.rows(query if name is None else query.where(Version.name == name))

    def named(self, name: str, ref: str) -> Bundle:
        """The bundle NAME@REF: a version of the name, or an alias of its system.

        Raises:
            CatalogError: there is none; names those that there are.
        """
        if ref.isdecimal():
            query = select(Bundle).join(Version, Version.digest == Bundle.digest)
            found = self.rows(query.where(Version.name == name, Version.version == int(ref)))
        else:
            query = select(Bundle).join(Release, Release.bundle == Bundle.digest)
            query = query.where(Release.role == ref, Release.until_us.is_(None))
            found = self.rows(query.where(Release.system == name))
            found = found or self.rows(query.where(Bundle.name == name))
        found = list({row.digest: row for row in found}.values())
        if len(found) == 1:
            return found[0]  # type: ignore[no-any-return]
        several = f"{ref} is an alias of {len(found)} bundles: " if found else ""
        raise CatalogError(f"{name}@{ref}: {several}{self._known(name)}")

    def _known(self, name: str) -> str:
        found = [f"{name}@{row.version}" for row in self.versions(name)]
        here = or_(Release.system == name, Bundle.name == name)
        query = select(Release.role).join(Bundle, Release.bundle == Bundle.digest)
        query = query.where(here, Release.until_us.is_(None))
        found += [f"{name}@{role}" for role in sorted(set(self.rows(query)))]
        if not found:
            return f"no bundle {name} is registered; do that with: rehearse bundle add FOLDER"
        return f"there are {', '.join(found)}"

    # -- aliases -----------------------------------------------------------------------------

    def champion(self, system: str) -> Bundle | None:
        """The bundle that acts in the system, if one was promoted."""
        return next(iter(self.released(system, CHAMPION)), None)

    def released(self, system: str, role: str) -> list[Bundle]:
        """The bundles that have an alias now, the last that got it first."""
        query = (
            select(Bundle)
            .join(Release, Release.bundle == Bundle.digest)
            .where(Release.system == system, Release.role == role, Release.until_us.is_(None))
        )
        return self.rows(query.order_by(Release.since_us.desc(), Release.id.desc()))

    def releases(self, system: str) -> list[Release]:
        """Who had which alias when, by whom and why, the newest first."""
        query = select(Release).where(Release.system == system)
        return self.rows(query.order_by(Release.since_us.desc(), Release.id.desc()))

    def aliases(self) -> dict[str, list[str]]:
        """The aliases of each bundle now, by its digest."""
        found: dict[str, list[str]] = {}
        query = select(Release).where(Release.until_us.is_(None)).order_by(Release.role)
        for release in self.rows(query):
            found.setdefault(release.bundle, []).append(release.role)
        return found

    def promote(
        self,
        system: str,
        digest: str,
        *,
        at_us: int,
        by: str,
        role: str = CHAMPION,
        why: str = "",
        fits: bool = False,
        confirm: Confirm | None = None,
    ) -> None:
        """Points an alias to a bundle from a time on; who had it before has it no more.

        Doing it again changes nothing. `by` says who or what decided. `fits`: it was seen to fit
        the system, so it may be another one's. `confirm` tells others; nobody else moves an alias
        meanwhile, so the last one told is the one written.

        Raises:
            CatalogError: the bundle is unknown, or belongs to another system; or no such alias.
        """
        if not _ALIAS.fullmatch(role):
            raise CatalogError(
                f"{role!r} cannot be an alias: write a-z, 0-9, '-' and '_', a letter first"
            )
        with self.session(write=True) as session:
            lock(session)
            bundle = session.get(Bundle, digest)
            if bundle is None or not (fits or bundle.system == system):
                owner = "unknown" if bundle is None else f"a bundle of {bundle.system}"
                raise CatalogError(f"cannot promote {digest} in {system}: it is {owner}")
            _move(session, system, digest, role, {"since_us": at_us, "by": by, "why": why})
            session.flush()
            if confirm is not None:
                confirm()

    def take_alias(self, system: str, role: str, *, at_us: int, by: str, why: str = "") -> Bundle:
        """Takes an alias away from the bundle that has it, and returns that bundle.

        Raises:
            CatalogError: no bundle has it.
        """
        with self.session(write=True) as session:
            lock(session)
            found = [old for old in _open_releases(session, system) if old.role == role]
            if not found:
                raise CatalogError(f"{system}@{role}: no bundle has this alias")
            for old in found:
                old.until_us, old.ended = at_us, f"{by}: {why}" if why else by
            bundle = session.get(Bundle, found[0].bundle)
        assert bundle is not None, "a foreign key holds it"
        return bundle

    def before(self, system: str) -> Bundle:
        """The champion before the present one.

        Raises:
            CatalogError: there was none.
        """
        history = [release for release in self.releases(system) if release.role == CHAMPION]
        now = next((release.bundle for release in history if release.until_us is None), None)
        before = next((release.bundle for release in history if release.bundle != now), None)
        if before is None:
            raise CatalogError(f"{system} has no earlier champion to go back to")
        return self.bundle(before)

    def rollback(self, system: str, *, at_us: int, by: str) -> Bundle:
        """Promotes the champion before the present one, and returns it.

        Raises:
            CatalogError: there was none before.
        """
        before = self.before(system)
        self.promote(system, before.digest, at_us=at_us, by=by)
        return before


def _check_owner(session: Session, bundle: Bundle) -> None:
    others = select(Bundle.system).where(Bundle.name == bundle.name)
    other = session.scalar(others.where(Bundle.system != bundle.system))
    if other is not None:
        raise CatalogError(
            f"{bundle.path}: field name: {bundle.name} is the name of bundles of {other}, not of "
            f"{bundle.system}; export the bundle under another name"
        )


def _move(session: Session, system: str, digest: str, role: str, said: dict[str, Any]) -> None:
    open_now = _open_releases(session, system)
    if any(old.role == role and old.bundle == digest for old in open_now):
        return
    for old in open_now:
        # A bundle has one duty; every alias but `candidate` points to one bundle.
        other_duty = old.bundle == digest and role in DUTIES and old.role in DUTIES
        if other_duty or old.role == role != SEVERAL:
            old.until_us = said["since_us"]
    session.flush()
    session.add(Release(system=system, role=role, bundle=digest, **said))


def _open_releases(session: Session, system: str) -> list[Release]:
    query = select(Release).where(Release.system == system, Release.until_us.is_(None))
    return list(session.scalars(query))
