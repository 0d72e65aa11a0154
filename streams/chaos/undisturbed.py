"""The beliefs of a run without faults: the recorded frames once more through `step`, in memory.

The only place where the checker's side meets the loop's code, and it is handed to the checker.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from planner.budget import FreeBudget
from planner.session import Bundle, load_bundle
from schemas.frames import Frame
from schemas.system import SystemSpec
from streams.belief import Row
from streams.decide import step


def undisturbed(
    spec: SystemSpec, folders: Sequence[Path]
) -> Callable[[list[Frame], str], dict[tuple[int, int], str]]:
    """A replay under the bundles in `folders`: (cohort, tick) → digest of the belief after it."""

    def replay(frames: list[Frame], digest: str) -> dict[tuple[int, int], str]:
        bundle = _bundle(folders, digest)
        rows: dict[int, Row] = {}
        found = {}
        for frame in frames:
            row, _ = step(spec, bundle, rows.get(frame.cohort), frame, FreeBudget(0))
            rows[frame.cohort] = row
            found[frame.cohort, frame.tick] = row.digest
        return found

    return replay


def _bundle(folders: Sequence[Path], digest: str) -> Bundle | None:
    if not digest:
        return None
    for folder in folders:
        bundle = load_bundle(folder, "cpu")
        if bundle.digest == digest:
            return bundle
    raise ValueError(f"bundle {digest} is in none of {[str(folder) for folder in folders]}")
