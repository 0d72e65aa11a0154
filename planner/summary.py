"""What a person wants to know of a bundle, as plain values; and two of them side by side."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from planner.manifest import Manifest

SIDES = ("metrics", "lineage", "calibration", "graphs")
"""The parts of a manifest that are compared."""


def summary(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """What a bundle was made from, how good it is, and what it needs."""
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
        "graphs": manifest.graphs,
    }


def side_by_side(first: Manifest, second: Manifest) -> dict[str, dict[str, list[Any]]]:
    """Part → field → [first's, second's] of all fields that differ; None where one has none."""
    found: dict[str, dict[str, list[Any]]] = {"manifest": _different(_head(first), _head(second))}
    for part in SIDES:
        found[part] = _different(_plain(first, part), _plain(second, part))
    return {part: fields for part, fields in found.items() if fields}


def flat(content: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a tree of mappings and lists, each with the dotted way to it."""
    if isinstance(content, Mapping):
        items = [(str(key), value) for key, value in content.items()]
    elif isinstance(content, list | tuple) and any(isinstance(v, Mapping | list) for v in content):
        items = [(_label(value, number), value) for number, value in enumerate(content)]
    else:
        yield within, list(content) if isinstance(content, tuple) else content
        return
    for key, value in items:
        yield from flat(value, f"{within}.{key}" if within else key)


def _label(value: Any, number: int) -> str:
    """An entry of a list by its name, where it has one: the same thing on both sides."""
    return str(value["name"]) if isinstance(value, Mapping) and "name" in value else str(number)


def _head(manifest: Manifest) -> dict[str, Any]:
    names = ("name", "system", "created", "interface_hash", "objective_hash", "actor_trusted")
    sizes = ("hidden", "latent", "members")
    return {name: getattr(manifest, name) for name in (*names, *sizes)}


def _plain(manifest: Manifest, part: str) -> Any:
    return msgspec.to_builtins(getattr(manifest, part))


def _different(first: Any, second: Any) -> dict[str, list[Any]]:
    left, right = dict(flat(first)), dict(flat(second))
    names = [*left, *(name for name in right if name not in left)]
    pairs = {name: [left.get(name), right.get(name)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
