"""`rehearse bundle …`: which models there are, whether they are whole, and how they differ."""

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.storage import Place, child, placed, write
from planner.library import bundle_roots, list_bundles
from planner.manifest import INT8, MANIFEST, SIGNATURE, BundleError, Manifest
from planner.naming import find_bundle, opened
from planner.summary import side_by_side, summary
from streams.commands import releases
from streams.commands.options import Json, catalog_url, errors, show, spec_of
from streams.commands.releases import Which

app = typer.Typer(no_args_is_help=True, help="Released models.")
Key = Annotated[
    Path | None, typer.Option(help="File of public keys, one of which must have signed it.")
]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Every bundle at hand, with version and aliases, and what is wrong with unusable ones.

    Example: rehearse bundle list
    """
    result: dict[str, Any] = {}
    with errors():
        names = _names()
        for folder, m in list_bundles(bundle_roots()).items():
            result[str(folder)] = f"unusable: {m}" if isinstance(m, str) else _line(m, names)
    show(result, as_json)


def _names() -> dict[str, str]:
    """Digest → `NAME@VERSION (aliases)` of each registered bundle."""
    with opened(catalog_url()) as catalog:
        if catalog is None:
            return {}
        aliases = catalog.aliases()
        return {
            row.digest: " ".join([f"{row.name}@{row.version}", *aliases.get(row.digest, ())])
            for row in catalog.versions()
        }


def _line(manifest: Manifest, names: dict[str, str]) -> str:
    known = names.get(manifest.digest, "not registered")
    return f"{manifest.digest[:12]}  {manifest.system}  {manifest.created}  {known}"


@app.command("show")
def show_(which: Which, as_json: Json = False) -> None:
    """What a bundle was made from, how good it is, and what it needs.

    Example: rehearse bundle show autoscale
    """
    with errors():
        folder, manifest = find_bundle(which)
        result = summary(folder, manifest)
        result["registered"] = _names().get(manifest.digest, "no")
        if not as_json:
            from streams.commands.bundle_text import readable

            result = readable(result)
    show(result, as_json)


@app.command()
def diff(first: Which, second: Which, as_json: Json = False) -> None:
    """Two bundles side by side: what differs in metrics, lineage, calibration and graphs.

    Example: rehearse bundle diff nav2d autoscale
    """
    with errors():
        found = [find_bundle(which) for which in (first, second)]
        apart = side_by_side(*(manifest for _, manifest in found))
        names = [f"{folder.name} {manifest.digest[:12]}" for folder, manifest in found]
        if as_json:
            show({"first": names[0], "second": names[1], "differences": apart}, True)
            return
        from streams.commands.bundle_text import print_sides

        print_sides(names, apart)


@app.command()
def verify(
    which: Which,
    spec: Annotated[str | None, typer.Option(help="Also check that it fits this spec.")] = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Check every digest, load every graph, and run each once (exit status 1: unusable).

    Example: rehearse bundle verify autoscale --spec autoscale
    """
    from planner.session import load_bundle

    try:
        folder, manifest = find_bundle(which)
        bundle = load_bundle(folder, provider="cpu", trusted=key)
        if spec is not None:
            bundle.check(spec_of(spec))
    except BundleError as error:
        show({"usable": False, "why": str(error)}, as_json)
        raise typer.Exit(1) from error
    show({"usable": True, "folder": str(folder), "digest": manifest.digest}, as_json)


@app.command("time")
def time_(which: Which, as_json: Json = False) -> None:
    """How long a call of each graph takes on this machine, on one thread; of int8 as well.

    Example: rehearse bundle time nav2d
    """
    with errors():
        from planner.session import load_bundle
        from planner.timing import time_graphs

        folder, manifest = find_bundle(which)
        timed: dict[str, Any] = time_graphs(load_bundle(folder, provider="cpu"))
        if INT8 in manifest.files:
            coarse = load_bundle(folder, provider="cpu", precision="int8")
            timed["imagine int8"] = time_graphs(coarse)["imagine"]
    show({"folder": str(folder), "timed": timed}, as_json)


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
        folder, manifest = find_bundle(which)
        if new_key:
            make_key(key)
        written: Place = sign_bundle(folder / MANIFEST, key)
        if isinstance(where := placed(which), str):
            written = child(where, SIGNATURE)
            write(written, (folder / SIGNATURE).read_bytes())
            (folder / SIGNATURE).unlink()  # what was fetched stays as it was fetched
    result = {"signed": manifest.digest, "signature": str(written)}
    show(result | ({"public_key": str(key.with_suffix(".pub"))} if new_key else {}), as_json)


for command in (releases.add, releases.alias, releases.promote, releases.rollback):
    app.command()(command)
app.command("history")(releases.history)
