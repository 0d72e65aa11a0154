"""Which bundle a person means: a folder, URL, NAME, NAME@champion, NAME@3, a digest's beginning.

Everything that is asked for a bundle asks here. Versions and aliases are the catalog's, which is
opened only where one of them was written, or where folders alone do not say it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.home import default_catalog
from infra.storage import is_url, placed
from planner.fetched import fetched
from planner.library import bundle_roots, folders_of, list_bundles
from planner.manifest import BundleError, Manifest, peek, read_manifest

if TYPE_CHECKING:  # SQLAlchemy takes half a second
    from schemas.catalog import Bundle, Catalog

SHORTEST: Final = 6
"""Characters that a digest may be shortened to; fewer could be a name."""

Found = tuple[Path, Manifest]


def find_bundle(
    which: str | Path, roots: Sequence[Path] | None = None, catalog: str | None = None
) -> Found:
    """The bundle that a person means, whole and, where that is asked for, signed.

    Args:
        which: a folder; the URL of one; `NAME@3`, a version; `NAME@champion` or another alias; NAME
            of a bundle or of its folder: the only one at hand, else its champion; 6 or more
            characters that a digest begins with.
        roots: folders to look in; by default the shipped bundles and those of the home folder.
        catalog: its URL; by default that of this machine.

    Raises:
        BundleError: there is none, or several, or it is damaged, or its signature fails.
    """
    if is_url(which):
        where = placed(which)
        folder = fetched(where) if isinstance(where, str) else where
        return folder, read_manifest(folder)
    if str(which) and Path(which).is_dir():
        return Path(which), read_manifest(Path(which))
    which, roots = str(which), bundle_roots() if roots is None else roots
    url = catalog or default_catalog()
    name, at, ref = which.partition("@")
    if at:
        with opened(url) as known:
            if known is None:
                raise BundleError(f"{which}: {_NOBODY}")
            return _located(which, _named(known, name, ref), roots)
    found = _at_hand(which, roots)
    if len({manifest.digest for _, manifest in found}) == 1:
        return found[0]
    with opened(url) as known:
        row = None if known is None else _registered(known, which, several=bool(found))
        if row is not None:
            return _located(which, row, roots)
    folders = ", ".join(str(folder) for folder, _ in found) or "none"
    remedy = f"{which} has no champion: give one folder, or {which}@VERSION" if found else _LIST
    raise BundleError(f"{which}: {len(found)} bundles fit ({folders}); {remedy}")


_LIST: Final = "`rehearse bundle list` shows those at hand; give a folder, or a name of these"
_NOBODY: Final = "no bundle is registered here yet; do that with: rehearse bundle add FOLDER"


@contextmanager
def opened(url: str) -> "Iterator[Catalog | None]":
    """The catalog at a URL; None where it is a file that nobody has made."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    from schemas.catalog import Catalog

    try:
        parsed = make_url(url)
        file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    except ArgumentError:
        file = None  # the catalog says what is wrong with it
    if file and not Path(file).exists():
        yield None
        return
    found = Catalog(url)
    try:
        found.create()
        yield found
    finally:
        found.close()


def _named(catalog: "Catalog", name: str, ref: str) -> "Bundle":
    from schemas.catalog import CatalogError

    try:
        return catalog.named(name, ref)
    except CatalogError as error:
        raise BundleError(str(error)) from error


def _registered(catalog: "Catalog", which: str, several: bool) -> "Bundle | None":
    """What the catalog says of a name, or of a digest where no folder has it."""
    from schemas.catalog import CatalogError

    try:
        return catalog.named(which, "champion")
    except CatalogError:
        if several:
            return None
    named = catalog.versions(which)
    if len(named) == 1:
        return catalog.named(which, str(named[0].version))
    fits = [row for row in catalog.bundles() if row.digest.startswith(which)]
    return fits[0] if len(fits) == 1 and len(which) >= SHORTEST else None


def _at_hand(which: str, roots: Sequence[Path]) -> list[Found]:
    found = []
    for folder, manifest in list_bundles(roots).items():
        if isinstance(manifest, str):  # damaged: of no concern, unless it is the one meant
            if which == folder.name:
                raise BundleError(manifest)
        elif which in (folder.name, manifest.name) or (
            len(which) >= SHORTEST and manifest.digest.startswith(which)
        ):
            found.append((folder, manifest))
    return found


def _located(which: str, row: "Bundle", roots: Sequence[Path]) -> Found:
    """The folder that holds a registered bundle: where it was, or wherever its digest is."""
    for folder in folders_of([Path(row.path), *roots]):
        if peek(folder, "digest") == row.digest:
            manifest = read_manifest(folder)
            if manifest.digest == row.digest:
                return folder, manifest
    raise BundleError(
        f"{which}: bundle {row.digest[:12]} is in no folder here; it was in {row.path}: bring it "
        "back from where it was made, and register it with: rehearse bundle add FOLDER"
    )
