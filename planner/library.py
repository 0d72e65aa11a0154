"""The bundles at hand: folders that hold them, and where those are kept that somebody released."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.home import home_bundles
from planner.manifest import MANIFEST, SIGNATURE, BundleError, Manifest, read_manifest

SHIPPED = Path(__file__).with_name("bundles")
"""The folder of the bundles that come with the package."""


def bundle_roots() -> list[Path]:
    """Every folder that holds bundles: the shipped ones, then that of the home folder."""
    return [root for root in (SHIPPED, home_bundles()) if root.is_dir()]


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


def keep(folder: Path, manifest: Manifest, home: Path) -> Path:
    """Where workers find the bundle for good: its folder if it is shipped, else a copy in `home`.

    The copy is named after name and digest. Where it was trained, the next training would replace
    it. A reader of `home` finds the whole copy or none.

    Raises:
        BundleError: what lies under that name is another bundle, or damaged.
    """
    if folder.resolve().parent == SHIPPED.resolve():
        return folder
    kept = home / f"{manifest.name}-{manifest.digest[:12]}"
    if not kept.exists():
        _copy(folder, manifest, kept)
    if folder.resolve() != kept.resolve() and read_manifest(kept).digest != manifest.digest:
        raise BundleError(f"{kept}: field digest: it holds another bundle; move it away")
    return kept


def _copy(folder: Path, manifest: Manifest, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".bundle-", dir=kept.parent))
    try:
        for name in (*manifest.files, MANIFEST):
            shutil.copy2(folder / name, made / name)
        if (folder / SIGNATURE).exists():
            shutil.copy2(folder / SIGNATURE, made / SIGNATURE)
        made.chmod(0o755)
        made.rename(kept)
    except OSError:
        if not kept.exists():  # else somebody else has just kept the same one
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
