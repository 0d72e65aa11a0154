"""A bundle's manifest: what is in the folder, proved by digests, and what it was made for.

`models` writes manifests with `seal`, the planner reads them with `read_manifest`; both use one
definition of the digest: SHA-256 over the canonical JSON of everything but the digest itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from infra.storage import Place, child
from planner.bounded import TooLargeError, read_at_most
from planner.graphs import MOST_BYTES, GraphError, check_graph

FORMAT = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
TRUST = "REHEARSE_TRUST"  # environment: a file of public keys, one of which must have signed
MOST_MANIFEST, MOST_FILES = 4 << 20, 32
GRAPHS = ("believe.onnx", "imagine.onnx", "actor.onnx", "drive.onnx", "cost.onnx")
"""The graphs of a bundle; the first two are required. Without `actor.onnx` there is no actor,
without `drive.onnx` nobody knows where the actor would go, and without `cost.onnx` the gate has no
learned critic."""
INT8 = "imagine.int8.onnx"
"""`imagine` with its products in int8; there only where it chooses as well."""


class BundleError(ValueError):
    """A bundle that cannot be used; the message names file, field and remedy."""


class FileEntry(msgspec.Struct, frozen=True):
    """One file of a bundle: its SHA-256 in hexadecimal, and its size in bytes."""

    sha256: str
    bytes: int


class Recalibration(msgspec.Struct, frozen=True):
    """Conformal factors: how far central intervals must be stretched to hold what they promise.

    `levels` [L] and `horizons` [K] (ticks ahead), both ascending; `factors` [L,K,O], each the
    factor of both half-widths about the median (`planner.conformal.stretched`); `windows` is how
    many held-out windows they were fitted on.
    """

    levels: tuple[float, ...]
    horizons: tuple[int, ...]
    factors: tuple[tuple[tuple[float, ...], ...], ...]
    windows: int

    def __post_init__(self) -> None:
        for name in ("levels", "horizons"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"{name} must be given, and ascend")
        if not (self.levels[0] > 0 and self.levels[-1] < 1 <= self.horizons[0]):
            raise ValueError("levels must lie between 0 and 1, horizons be at least 1")
        rows = [row for level in self.factors for row in level]
        shape = len(self.levels), len(self.levels) * len(self.horizons)
        if (len(self.factors), len(rows)) != shape or len({len(row) for row in rows}) != 1:
            raise ValueError("factors must be [levels, horizons, columns]")
        if not all(0 <= factor < math.inf for row in rows for factor in row):
            raise ValueError("factors must be finite and not negative")


class Calibration(msgspec.Struct, frozen=True):
    """What training measured on held-out data.

    `innovation_band` is a quantile of the innovation, 99.9 % where the workflow says nothing else,
    `channel_scale` [O] the typical spread of each observation column in raw units, `discount` the
    factor per tick that the value was trained with, `recalibration` how much wider the predicted
    spreads have to be; none in bundles that were made before there was one, or from too little
    data. `max_uncertainty` is a limit on the disagreement beside that of the spec's gate: a
    quantile of what it is on held-out data, where the workflow asks for one.
    """

    innovation_band: float
    channel_scale: tuple[float, ...]
    discount: float = 1.0
    recalibration: Recalibration | None = None
    max_uncertainty: float | None = None


class Manifest(msgspec.Struct, frozen=True):
    """The contents of `manifest.json`; sizes as in `planner.session.Bundle`."""

    format: int
    name: str
    system: str
    created: str
    interface_hash: str
    objective_hash: str
    columns: tuple[str, ...]
    action_columns: tuple[str, ...]
    hidden: int
    latent: int
    members: int
    files: dict[str, FileEntry]
    digest: str
    calibration: Calibration
    actor_trusted: bool = False
    lineage: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    graphs: dict[str, Any] = {}
    """Of each file: opset, precision, sizes, parity, time per call (`models.facts`)."""


def digest_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of `manifest` without its `digest`, in hexadecimal."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `manifest.json`: `content` plus format, files with their digests, and its digest.

    Args:
        folder: holds the finished graphs; every `*.onnx` in it is listed.
        content: the fields of `Manifest` except `format`, `files` and `digest`, as plain JSON.
    """
    files = {path.name: _entry(path) for path in sorted(folder.glob("*.onnx"))}
    manifest: dict[str, Any] = {**content, "format": FORMAT, "files": files}
    manifest["digest"] = digest_of(manifest)
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / SIGNATURE).unlink(missing_ok=True)  # it was of another manifest
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle folder; every listed file is read and compared with its digest.

    Raises:
        BundleError: a file or field is missing, malformed, or not what the digest says.
    """
    return read_bundle(folder)[0]


def read_bundle(folder: Path, trusted: Path | None = None) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of a bundle folder, and its files: these very bytes were checked.

    `trusted` is a file of public keys, one of which must have signed; else `REHEARSE_TRUST` may
    name one.

    Raises:
        BundleError: as `read_manifest`, and where nobody who is trusted signed it.
    """
    path = folder / MANIFEST
    text = _bytes(path, MOST_MANIFEST, "give a bundle folder")
    manifest = parse_manifest(path, text)
    if keys := trusted or os.environ.get(TRUST):
        _check_signature(path, text, Path(keys).expanduser())
    return manifest, _checked_files(folder, manifest)


def peek(folder: Path, field: str) -> str | None:
    """A field of a manifest that may be damaged; None where it cannot be read."""
    try:
        text = _bytes(folder / MANIFEST, MOST_MANIFEST, "")
        return str(json.loads(text)[field])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _check_signature(path: Path, text: bytes, keys: Path) -> None:
    from planner.signature import SignatureError, check_signature, read_signature

    try:
        check_signature(text, read_signature(path), keys)
    except (SignatureError, OSError) as error:
        raise BundleError(f"{path.parent}: {error}") from error


def parse_manifest(path: Place, text: bytes) -> Manifest:
    """The manifest in `text`, whose own digest was checked. Raises `BundleError`."""
    try:
        content = json.loads(text)
        manifest = msgspec.convert(content, Manifest)
        digest = digest_of(content)
    except (ValueError, RecursionError) as error:  # both of json and of msgspec
        raise BundleError(f"{path}: {error}; export the bundle again") from error
    if manifest.format != FORMAT:
        raise BundleError(
            f"{path}: field format: {manifest.format} is not {FORMAT}; this version reads no other"
        )
    if digest != manifest.digest:
        raise BundleError(f"{path}: field digest: the manifest was changed; fetch the bundle again")
    return manifest


def _bytes(path: Path, most: int, remedy: str) -> bytes:
    """All of a file, read once. Raises `BundleError`."""
    try:
        return read_at_most(path, most)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except TooLargeError as error:
        raise BundleError(f"{error}; fetch the bundle again") from error


def _entry(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def size_limits(folder: Place, manifest: Manifest) -> dict[str, int]:
    """The files that a bundle has, and how many bytes each may have. Raises `BundleError`."""
    field = f"{child(folder, MANIFEST)}: field files"
    missing = [name for name in GRAPHS[:2] if name not in manifest.files]
    if missing:
        raise BundleError(f"{field}: {missing[0]} is not listed; export the bundle again")
    if len(manifest.files) > MOST_FILES:
        raise BundleError(f"{field}: {len(manifest.files)} files; {MOST_FILES} are the most")
    for name in manifest.files:
        if Path(name).name != name:
            raise BundleError(f"{field}: {name!r} is not a plain file name")
    return {name: _most(entry) for name, entry in sorted(manifest.files.items())}


def _most(entry: FileEntry) -> int:
    return min(max(entry.bytes, 0), MOST_BYTES)


def _checked_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    names = size_limits(folder, manifest)
    return {name: _checked(folder / name, manifest.files[name]) for name in names}


def _checked(path: Path, entry: FileEntry) -> bytes:
    if not path.is_file():
        raise BundleError(f"{path}: the file is missing; fetch the bundle again")
    data = _bytes(path, _most(entry), "fetch the bundle again")
    if len(data) != entry.bytes:
        raise BundleError(
            f"{path}: {len(data)} bytes instead of {entry.bytes}; fetch the bundle again"
        )
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(f"{path}: its SHA-256 is not the manifest's; fetch the bundle again")
    try:
        check_graph(data)
    except GraphError as error:
        raise BundleError(f"{path}: {error}") from error
    return data
