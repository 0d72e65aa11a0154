"""The bundles at hand: folders that hold them, the one that a person means, and what is in it."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from planner.manifest import MANIFEST, SIGNATURE, BundleError, Manifest, read_manifest

SHIPPED = Path(__file__).with_name("bundles")
"""The folder of the bundles that come with the package."""

SHORTEST = 6
"""Characters that a digest may be shortened to; fewer could be a name."""


def folders_of(roots: Sequence[Path]) -> Iterator[Path]:
    """Bundle folders: each root that is one, and those inside each root, by name."""
    for root in roots:
        if (root / MANIFEST).is_file():
            yield root
        else:
            yield from (path.parent for path in sorted(root.glob(f"*/{MANIFEST}")))


def list_bundles(roots: Sequence[Path]) -> dict[Path, Manifest | str]:
    """Every bundle folder of `roots`: its manifest, or what is wrong with it."""
    found: dict[Path, Manifest | str] = {}
    for folder in folders_of(roots):
        try:
            found[folder] = read_manifest(folder)
        except BundleError as error:
            found[folder] = str(error)
    return found


def find_bundle(which: str, roots: Sequence[Path]) -> tuple[Path, Manifest]:
    """The bundle that a person means: a folder, a name, or the beginning of a digest.

    Raises `BundleError` when there is none, or several, or when it is damaged.
    """
    if Path(which).is_dir():
        return Path(which), read_manifest(Path(which))
    found = []
    for folder, manifest in list_bundles(roots).items():
        if isinstance(manifest, str):  # damaged: of no concern, unless it is the one meant
            if which == folder.name:
                raise BundleError(manifest)
        elif which in (folder.name, manifest.name) or (
            len(which) >= SHORTEST and manifest.digest.startswith(which)
        ):
            found.append((folder, manifest))
    if len({manifest.digest for _, manifest in found}) == 1:
        return found[0]
    known = ", ".join(str(folder) for folder, _ in found) or "none"
    raise BundleError(f"{which}: {len(found)} bundles fit ({known}); give one folder")


def summary(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """What a bundle was made from, how good it is, and what it needs, as plain values."""
    return {
        "folder": str(folder),
        "name": manifest.name,
        "digest": manifest.digest,
        "system": manifest.system,
        "created": manifest.created,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "sizes": f"hidden {manifest.hidden}, latent {manifest.latent}, members {manifest.members}",
        "interface_hash": manifest.interface_hash,
        "objective_hash": manifest.objective_hash,
        "actor_trusted": manifest.actor_trusted,
        "lineage": manifest.lineage,
        "metrics": manifest.metrics,
    }


def keep(folder: Path, manifest: Manifest, home: Path, roots: Sequence[Path]) -> Path:
    """Where workers find the bundle: its folder if that is in `roots`, else a copy in `home`.

    A reader of `home` finds the whole copy or none.
    """
    known = {path.resolve() for path in folders_of(roots)}
    if folder.resolve() in known:
        return folder
    kept = home / f"{manifest.name}-{manifest.digest[:12]}"
    if not kept.exists():
        home.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".bundle-", dir=home))
        for name in (*manifest.files, MANIFEST):
            shutil.copy2(folder / name, made / name)
        if (folder / SIGNATURE).exists():
            shutil.copy2(folder / SIGNATURE, made / SIGNATURE)
        made.chmod(0o755)
        made.rename(kept)
    return kept
