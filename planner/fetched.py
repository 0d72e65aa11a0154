"""Bundles by URL: fetched once into the home folder, and read from there as any other."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from infra.home import home_folder
from infra.storage import StorageError, child, found, name_of, put_folder, read
from planner.manifest import (
    MANIFEST,
    MOST_MANIFEST,
    SIGNATURE,
    BundleError,
    parse_manifest,
    size_limits,
)

_MOST_SIGNATURE = 1 << 10


def fetched(url: str) -> Path:
    """The folder here that holds the bundle at a URL; no graph is fetched twice.

    The folder is named by the SHA-256 of manifest and signature, and never changes. What is in it
    was compared with nothing yet: `read_bundle` does that, as everywhere.

    Raises:
        BundleError: no bundle is there, or it cannot be fetched.
    """
    try:
        names = {name_of(one) for one in found(url, ("",), below=False)}
        if MANIFEST not in names:
            raise BundleError(
                f"{url}: there is no {MANIFEST}, so no bundle; an upload that was cut off has "
                "none: write it again"
            )
        kept = {MANIFEST: read(child(url, MANIFEST), MOST_MANIFEST)}
        if SIGNATURE in names:
            kept[SIGNATURE] = read(child(url, SIGNATURE), _MOST_SIGNATURE)
        key = hashlib.sha256(b"".join(kept.values())).hexdigest()[:32]
        folder = home_folder() / "fetched" / key
        if not folder.is_dir():
            _fetch(url, kept, folder)
    except StorageError as error:
        raise BundleError(str(error)) from error
    return folder


def _fetch(url: str, kept: dict[str, bytes], folder: Path) -> None:
    limits = size_limits(url, parse_manifest(child(url, MANIFEST), kept[MANIFEST]))
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder.parent))
    try:
        for name, most in limits.items():
            (made / name).write_bytes(read(child(url, name), most))
        for name, data in kept.items():
            (made / name).write_bytes(data)
        made.chmod(0o755)
        made.rename(folder)
    except OSError as error:
        if isinstance(error, StorageError) or not folder.is_dir():
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def put_bundle(folder: Path, url: str) -> None:
    """Puts a bundle at a URL, signature and manifest last: what is cut off leaves no bundle.

    Raises:
        StorageError: with the remedy.
    """
    put_folder(folder, url, "*.onnx", (SIGNATURE, MANIFEST))
