"""A finding: what a check saw, how bad it is, and what helps."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from schemas.system import SystemSpec

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: `remedy` is a command or a sentence; always there for a problem."""

    check: str
    level: Level
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Place:
    """What is examined: this machine, the folders in use, and a cluster and a spec where given."""

    home: Path
    bundle_roots: Sequence[Path] = ()
    catalog_url: str = "sqlite://"
    spec: SystemSpec | None = None
    bootstrap: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


Check = Callable[[Place], Iterable[Finding]]


def examine(checks: Sequence[Check], place: Place) -> Iterator[Finding]:
    """The findings of all checks; one that fails itself is a problem, and the others go on."""
    for check in checks:
        try:
            yield from check(place)
        except Exception as error:
            what = f"this check failed: {type(error).__name__}: {error}"
            yield Finding(check.__name__, "problem", what, "report it with the whole output")


def worst(findings: Sequence[Finding]) -> Level:
    """The level of the worst finding."""
    levels = {finding.level for finding in findings}
    if "problem" in levels:
        return "problem"
    return "warning" if "warning" in levels else "ok"
