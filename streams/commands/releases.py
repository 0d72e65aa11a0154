"""Registering bundles, and moving the aliases that say which of them acts."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.library import keep
from planner.manifest import BundleError, Manifest
from planner.naming import find_bundle
from schemas.messages import Control
from schemas.system import SystemSpec
from streams.commands.options import (
    Bootstrap,
    Extra,
    Json,
    Spec,
    catalog_url,
    cluster_of,
    errors,
    home_bundles,
    show,
    spec_of,
)
from streams.control import now_us, say

if TYPE_CHECKING:
    from schemas.catalog import Bundle, Catalog, Release

Which = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE",
        help="A folder, URL, NAME, NAME@champion, NAME@3, or a digest's beginning.",
    ),
]
By = Annotated[
    str | None, typer.Option(help="Who decides, for the history. Default: the user's name.")
]
Why = Annotated[str, typer.Option(help="The reason, for the history.")]


def add(which: Which, by: By = None, as_json: Json = False) -> None:
    """Register a bundle: check and run it, keep a copy, and give it the next version of its name.

    Example: rehearse bundle add .rehearse/bundles/first

    (of what `rehearse train` has made; a second time it keeps its version)
    """
    with errors():
        folder, manifest = find_bundle(which)
        folder, version = _register(_catalog(), folder, manifest, by)
    named = f"{manifest.name}@{version}"
    show({"registered": named, "digest": manifest.digest, "folder": str(folder)}, as_json)


def alias(
    name: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="Such as nav2d@challenger.")],
    which: Annotated[
        str | None, typer.Argument(metavar="BUNDLE", help="As for the other commands.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take it from who has it.")] = False,
    why: Why = "",
    by: By = None,
    as_json: Json = False,
) -> None:
    """Point an alias to a bundle, which is registered; `champion` is moved by promote alone.

    Example: rehearse bundle alias nav2d@best nav2d --why "the best so far"

    Then: rehearse bundle show nav2d@best
    """
    with errors():
        system, at, role = name.partition("@")
        if not at or (which is None) != remove:
            raise ValueError(f"{name}: give NAME@ALIAS and a BUNDLE, or NAME@ALIAS --remove")
        if role == "champion":
            raise ValueError(f"{name} acts: move it with `rehearse bundle promote` or `rollback`")
        catalog, who = _catalog(), by or _user()
        if which is None:
            row = catalog.named(system, role)
            catalog.take_alias(row.system, role, at_us=now_us(), by=who, why=why)
            result = {"alias": name, "taken_from": row.digest}
        else:
            folder, manifest = find_bundle(which)
            _check_named(system, manifest)
            _register(catalog, folder, manifest, by)
            said: dict[str, Any] = {"at_us": now_us(), "by": who, "why": why}
            catalog.promote(manifest.system, manifest.digest, role=role, **said)
            result = {"alias": name, "digest": manifest.digest}
    show(result, as_json)


def _check_named(name: str, manifest: Manifest) -> None:
    if name not in (manifest.name, manifest.system):
        raise ValueError(
            f"{name}: the bundle is one of {manifest.name}: write {manifest.name}@ALIAS"
        )


def history(
    name: Annotated[str, typer.Argument(metavar="SYSTEM", help="Whose aliases.")],
    as_json: Json = False,
) -> None:
    """Which bundle had which alias of a system when, by whom and why; the newest last.

    Example: rehearse bundle history nav2d
    """
    with errors():
        catalog = _catalog()
        numbers = {row.digest: f"{row.name}@{row.version}" for row in catalog.versions()}
        rows = [_moved(row, numbers) for row in reversed(catalog.releases(name))]
    if as_json:
        show({"system": name, "history": rows}, True)
        return
    from streams.commands.bundle_text import history_line

    lines = [history_line(row) for row in rows] or ["no alias was ever moved"]
    show({name: "\n".join([lines[0], *(f"{'':>26}{line}" for line in lines[1:])])}, False)


def _moved(row: "Release", numbers: dict[str, str]) -> dict[str, Any]:
    from streams.commands.bundle_text import moment

    return {
        "since": moment(row.since_us),
        "until": None if row.until_us is None else moment(row.until_us),
        "alias": row.role,
        "bundle": numbers.get(row.bundle, row.bundle[:12]),
        "by": row.by,
        "why": row.why,
        "ended_by": row.ended,
    }


def promote(
    spec: Spec,
    which: Which,
    why: Why = "",
    by: By = None,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Let a bundle act from now on: aligners write it into frames, workers load and switch.

    It is registered, a copy is kept where workers look for it, and becomes the champion.

    Example: rehearse topics create nav2d && rehearse bundle promote nav2d nav2d
    """
    with errors():
        system = spec_of(spec)
        folder, manifest = find_bundle(which)
        check_fit(system, folder)
        place = cluster_of(bootstrap, extra, "operator")
        version = release(system, folder, manifest, *place, by=by or _user(), why=why)
    named = f"{manifest.name}@{version}"
    show({"released": manifest.digest, "version": named, "system": system.system}, as_json)


def rollback(
    spec: Spec,
    why: Why = "",
    by: By = None,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Go back to the bundle that acted before the present one.

    Example: rehearse bundle rollback autoscale
    """
    with errors():
        system, catalog = spec_of(spec), _catalog()
        before = catalog.before(system.system)
        folder, _ = find_bundle(before.digest)
        check_fit(system, folder)
        place = cluster_of(bootstrap, extra, "operator")
        _act(catalog, system, before.digest, *place, by or _user(), why)
    show({"released": before.digest, "system": system.system}, as_json)


def check_fit(spec: SystemSpec, folder: Path) -> None:
    """Raises `BundleError` unless the bundle loads, signed where it must be, and fits the spec."""
    from planner.session import load_bundle

    load_bundle(folder, provider="cpu").check(spec)


def release(
    spec: SystemSpec,
    folder: Path,
    manifest: Manifest,
    bootstrap: str,
    extra: dict[str, str],
    by: str = "operator",
    why: str = "",
) -> int:
    """Register a bundle and let it act: the catalog's champion, and a record on `S.control`."""
    catalog = _catalog()
    _, version = _register(catalog, folder, manifest, by)
    _act(catalog, spec, manifest.digest, bootstrap, extra, by, why)
    return version


def _act(
    catalog: "Catalog",
    spec: SystemSpec,
    digest: str,
    bootstrap: str,
    extra: dict[str, str],
    by: str,
    why: str,
) -> None:
    """Moves `champion` and tells the workers; neither, where one of them cannot be done."""
    control = Control("release", 0, bundle=digest, by=by)

    def tell() -> None:
        say(spec, control, bootstrap, extra)

    said: dict[str, Any] = {"at_us": now_us(), "by": by, "why": why}
    catalog.promote(spec.system, digest, fits=True, confirm=tell, **said)


def _register(
    catalog: "Catalog", folder: Path, manifest: Manifest, by: str | None
) -> tuple[Path, int]:
    """Checks the bundle by running it, keeps it, and gives its folder and version."""
    from planner.session import load_bundle

    kept = keep(folder, manifest, home_bundles())
    loaded = load_bundle(kept, provider="cpu").manifest
    if loaded.digest != manifest.digest:
        raise BundleError(f"{kept}: field digest: it was changed meanwhile; do it again")
    row = _row(kept, manifest)
    return kept, catalog.register(row, at_us=row.created_us, by=by or _user())


def _row(folder: Path, manifest: Manifest) -> "Bundle":
    from schemas.catalog import Bundle

    seed = manifest.lineage.get("seed")
    return Bundle(
        digest=manifest.digest,
        name=manifest.name,
        system=manifest.system,
        interface_hash=manifest.interface_hash,
        objective_hash=manifest.objective_hash,
        path=str(folder.absolute()),
        command=str(manifest.lineage.get("command", "")),
        seed=seed if isinstance(seed, int) else None,
        metrics=dict(manifest.metrics),
        created_us=now_us(),
    )


def _catalog() -> "Catalog":
    from schemas.catalog import Catalog  # SQLAlchemy takes half a second

    catalog = Catalog(catalog_url())
    catalog.create()
    return catalog


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "operator"
