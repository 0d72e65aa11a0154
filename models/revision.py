"""Which code made something: the commit of the checkout it ran from, else the package's version."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def revision(root: Path = ROOT) -> str:
    """The commit, with `+dirty` where a file that is tracked was changed; else `rehearse VERSION`.

    A repository that only contains the installed package, as a project's own with an environment
    inside it, says nothing of this code.
    """
    if _git(root, "rev-parse", "--show-toplevel") == str(root):
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
        if commit:
            return f"{commit}+dirty" if changed else commit
    try:
        return f"rehearse {version('rehearse')}"
    except PackageNotFoundError:  # a copy of the files, not installed
        return "unknown"


def _git(root: Path, *words: str) -> str:
    """What git says; nothing where there is no git, or no repository."""
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
