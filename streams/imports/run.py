"""An import: logs and a mapping in; a recording, or readings on sensor topics, out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.clock import tick_time
from schemas.system import SystemSpec
from streams.imports.frames import Alignment
from streams.imports.gather import Gathered
from streams.plant import Stop
from streams.record import OnProgress
from streams.recording import RecordingError
from streams.recording_maker import RecordingMaker


def make_recording(
    spec: SystemSpec,
    gathered: Gathered,
    folder: Path,
    files: Sequence[Path],
    *,
    stop: Stop | None = None,
    catalog_url: str | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> dict[str, Any]:
    """Aligns what was gathered and writes the frames as a recording.

    Nothing in it was decided: `rehearse replay --mode reinfer` decides on it.

    Returns a summary: `recording`, `frames`, `ticks`, `entities`, `readings`, `counters` (what
    became of readings: out of range, duplicate, …), `from_us`, `to_us`, `complete`.

    Raises:
        RecordingError: the folder holds a recording, or no frame came out.
    """
    maker = RecordingMaker(spec, folder, "import")
    alignment = Alignment(spec, gathered)
    complete = True
    for frame in alignment.frames(on_progress):
        maker.add(frame)
        if stop is not None and stop.is_set():
            complete = False
            break
    if not maker.frames:
        raise RecordingError(
            "no frame came of these readings: are they within the ranges of the spec? "
            f"{alignment.counters}"
        )
    summary = maker.finish(
        complete,
        catalog_url,
        files=[path.name for path in files],
        counters=alignment.counters,
    )
    return {
        "recording": str(folder),
        "frames": summary["frames"],
        "ticks": alignment.last - alignment.first + 1,
        "entities": len(gathered.entities),
        "readings": gathered.readings,
        "counters": alignment.counters,
        "from_us": tick_time(summary["from_tick"], spec.epoch_us, spec.period_us),
        "to_us": tick_time(summary["to_tick"], spec.epoch_us, spec.period_us),
        "bytes": summary["bytes"],
        "complete": complete,
    }
