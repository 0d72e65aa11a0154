"""`rehearse bundle …`: which models there are, whether they are whole, and which one acts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from planner.library import find_bundle, keep, list_bundles, summary
from planner.manifest import MANIFEST, BundleError, Manifest
from schemas.messages import Control
from schemas.system import SystemSpec
from streams.commands.options import (
    Bootstrap,
    Extra,
    Json,
    Spec,
    bundle_roots,
    catalog_url,
    cluster_of,
    errors,
    home_bundles,
    show,
    spec_of,
)
from streams.control import now_us, say

app = typer.Typer(no_args_is_help=True, help="Released models.")
Which = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A folder, a name, or the beginning of a digest.")
]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Every bundle at hand, and what is wrong with those that cannot be used.

    Example: rehearse bundle list
    """
    result: dict[str, Any] = {}
    with errors():
        for folder, m in list_bundles(bundle_roots()).items():
            result[str(folder)] = f"unusable: {m}" if isinstance(m, str) else _line(m)
    show(result, as_json)


def _line(manifest: Manifest) -> str:
    return f"{manifest.digest[:12]}  {manifest.system}  {manifest.created}"


@app.command("show")
def show_(which: Which, as_json: Json = False) -> None:
    """What a bundle was made from, how good it is, and what it needs.

    Example: rehearse bundle show autoscale
    """
    with errors():
        result = summary(*find_bundle(which, bundle_roots()))
    show(result, as_json)


@app.command()
def verify(
    which: Which,
    spec: Annotated[str | None, typer.Option(help="Also check that it fits this spec.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="File of public keys, one of which must have signed it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every digest, load every graph, and run each once (exit status 1: unusable).

    Example: rehearse bundle verify autoscale --spec autoscale
    """
    from planner.session import load_bundle

    try:
        folder, manifest = find_bundle(which, bundle_roots())
        bundle = load_bundle(folder, provider="cpu", trusted=key)
        if spec is not None:
            bundle.check(spec_of(spec))
    except BundleError as error:
        show({"usable": False, "why": str(error)}, as_json)
        raise typer.Exit(1) from error
    show({"usable": True, "folder": str(folder), "digest": manifest.digest}, as_json)


@app.command()
def sign(
    which: Which,
    key: Annotated[Path, typer.Option(help="Private Ed25519 key, PEM; its .pub is beside it.")],
    new_key: Annotated[bool, typer.Option("--new-key", help="Make it first.")] = False,
    as_json: Json = False,
) -> None:
    """Sign a bundle. Where REHEARSE_TRUST names a file of public keys, only signed ones are loaded.

    Example: rehearse bundle sign .rehearse/bundles/first --key me.key --new-key

    Then: REHEARSE_TRUST=me.pub rehearse run my.yaml
    """
    from planner.signature import make_key, sign_bundle

    with errors():
        folder, manifest = find_bundle(which, bundle_roots())
        if new_key:
            make_key(key)
        written = sign_bundle(folder / MANIFEST, key)
    result = {"signed": manifest.digest, "signature": str(written)}
    show(result | ({"public_key": str(key.with_suffix(".pub"))} if new_key else {}), as_json)


@app.command()
def promote(
    spec: Spec,
    which: Which,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Let a bundle act from now on: aligners write it into frames, workers load and switch.

    One from elsewhere is copied to where workers look for it, the `bundles` of the home folder.

    Example: rehearse topics create nav2d && rehearse bundle promote nav2d nav2d
    """
    with errors():
        system = spec_of(spec)
        folder, manifest = find_bundle(which, bundle_roots())
        check_fit(system, folder)
        folder = keep(folder, manifest, home_bundles(), bundle_roots())
        release(system, folder, manifest, *cluster_of(bootstrap, extra, "operator"))
    show({"released": manifest.digest, "system": system.system}, as_json)


@app.command()
def rollback(
    spec: Spec, bootstrap: Bootstrap = None, extra: Extra = None, as_json: Json = False
) -> None:
    """Go back to the bundle that acted before the present one.

    Example: rehearse bundle rollback autoscale
    """
    with errors():
        from schemas.catalog import Catalog  # SQLAlchemy takes half a second

        system, place = spec_of(spec), cluster_of(bootstrap, extra, "operator")
        catalog = Catalog(catalog_url())
        catalog.create()
        before = catalog.rollback(system.system, at_us=now_us(), by="operator")
        control = Control("release", 0, bundle=before.digest, by="operator")
        say(system, control, *place)
    show({"released": before.digest, "system": system.system}, as_json)


def check_fit(spec: SystemSpec, folder: Path) -> None:
    """Raises `BundleError` unless the bundle loads and fits the spec."""
    from planner.session import load_bundle

    load_bundle(folder, provider="cpu").check(spec)


def release(
    spec: SystemSpec, folder: Path, manifest: Manifest, bootstrap: str, extra: dict[str, str]
) -> None:
    """Write the release to the catalog and to `S.control`."""
    from schemas.catalog import Catalog
    from schemas.catalog_tables import Bundle

    catalog = Catalog(catalog_url())
    catalog.create()
    at_us = now_us()
    row = Bundle(
        digest=manifest.digest,
        name=manifest.name,
        system=spec.system,
        interface_hash=manifest.interface_hash,
        objective_hash=manifest.objective_hash,
        path=str(folder.absolute()),
        command=str(manifest.lineage.get("command", "")),
        metrics=dict(manifest.metrics),
        created_us=at_us,
    )
    catalog.put(row)
    catalog.promote(spec.system, manifest.digest, at_us=at_us, by="operator")
    control = Control("release", 0, bundle=manifest.digest, by="operator")
    say(spec, control, bootstrap, extra)
