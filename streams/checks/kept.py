"""What is kept here: bundles, the catalog, recorded data."""

import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from planner.library import folders_of
from planner.manifest import BundleError, read_manifest
from planner.session import Bundle, load_bundle
from schemas.catalog import Catalog, CatalogError
from schemas.system import SystemSpec, load_spec, shipped_systems
from streams.checks.finding import Finding, Place

DATA_VARIABLE = "REHEARSE_DATA"
DATA_FILES = ("worldcup98_requests_per_minute.parquet",)


def bundles(place: Place) -> Iterator[Finding]:
    """Every bundle verified, loaded and run once; for every spec, whether one fits."""
    usable: list[Bundle] = []
    for folder in folders_of(place.bundle_roots):
        try:
            usable.append(load_bundle(folder, provider="cpu"))
        except BundleError as error:
            remedy = f"remove {folder}, or make it again: rehearse train {_system(folder)}"
            yield Finding("bundles", "problem", str(error), remedy)
    specs = [place.spec] if place.spec else [load_spec(name) for name in shipped_systems()]
    for spec in specs:
        yield _best(spec, usable)


def _system(folder: Path) -> str:
    try:
        return read_manifest(folder).system
    except BundleError:
        return "SPEC"


def _best(spec: SystemSpec, usable: list[Bundle]) -> Finding:
    reasons = []
    for bundle in usable:
        if bundle.manifest.system != spec.system:
            continue
        try:
            bundle.check(spec)
        except BundleError as error:
            reasons.append(str(error))
            continue
        name = f"{spec.system}: bundle {bundle.digest[:12]} verified, fits"
        if bundle.trusted_actor(spec):
            return Finding("bundles", "ok", f"{name}, actor trusted")
        why = (
            "its actor did not pass its evaluation"
            if bundle.objective_matches(spec)
            else "its actor was trained for another objective"
        )
        return Finding("bundles", "ok", f"{name}; {why} and is not used")
    what = "; ".join(reasons) or f"{spec.system}: no bundle at hand"
    remedy = f"rehearse train {spec.system}; until then its fallback acts"
    return Finding("bundles", "warning", what, remedy)


def catalog(place: Place) -> Iterator[Finding]:
    """Whether the catalog opens and is of this version; a database that is absent is not made."""
    url = make_url(place.catalog_url)
    where = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        yield Finding("catalog", "ok", f"none yet; the sink makes it at {where}")
        return
    try:
        opened = Catalog(place.catalog_url)
        opened.create()
        opened.close()
    except (CatalogError, SQLAlchemyError) as error:
        remedy = "check the URL given with --catalog; a damaged SQLite file may be moved away"
        yield Finding("catalog", "problem", f"{where}: {error}", remedy)
        return
    yield Finding("catalog", "ok", f"{where} opens")


def recorded_data(_: Place) -> Iterator[Finding]:
    """The folder of recorded data, where one is named."""
    named = os.environ.get(DATA_VARIABLE)
    if not named:
        yield Finding("data", "ok", f"{DATA_VARIABLE} is not set: the demo generates its load")
        return
    if not Path(named).is_dir():
        what = f"{DATA_VARIABLE} is {named}, which is no folder"
        yield Finding("data", "problem", what, f"set {DATA_VARIABLE} to a folder, or unset it")
        return
    for name in DATA_FILES:
        if (Path(named) / name).is_file():
            yield Finding("data", "ok", f"{Path(named) / name}")
        else:
            what = f"{named} holds no {name}: the demo generates its load"
            yield Finding("data", "warning", what, f"put {name} there, or use --trace FILE")


CHECKS = (bundles, catalog, recorded_data)
