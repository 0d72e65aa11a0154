"""Which source a run is of: its commit, where there is one, and a digest of what lies there."""

import hashlib
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("infra", "planner", "schemas", "streams")
_SHORT: Final = 10


@dataclass(frozen=True)
class Source:
    """`commit`: abbreviated, empty outside of git; `source`: digest of all modules.

    clean: everything under git's eyes is as in the commit.
    """

    commit: str
    source: str
    clean: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def source(root: Path = ROOT) -> Source:
    """The source in `root`, as it lies there now."""
    commit = _git(root, "rev-parse", f"--short={_SHORT}", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=normal")
    return Source(commit or "", _digest(root), bool(commit) and changed == "")


def _digest(root: Path) -> str:
    found = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            found.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return found.hexdigest()[:_SHORT]


def _git(root: Path, *arguments: str) -> str | None:
    """What git says; None where there is none, or `root` is not the top of a repository."""
    if not (root / ".git").exists():  # an installed package inside somebody else's repository
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
