"""One tick of a replay as text: who decided what for whom, and what was recorded."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from schemas.clock import tick_time
from schemas.codes import Mode
from schemas.system import SystemSpec
from streams.replay_deck import Played

ROWS: Final = 6  # entities that are shown one by one


def text_of(
    spec: SystemSpec, tick: int, played: list[Played], entity: str | None, differences: int
) -> str:
    """A line about the tick, and one for each of the first entities, or for `entity` alone."""
    when = datetime.fromtimestamp(
        tick_time(tick, spec.epoch_us, spec.period_us) / 1e6, UTC
    ).isoformat(sep=" ", timespec="milliseconds")
    modes = Counter(
        Mode(code).name.lower() for item in played for code in item.decisions.mode.tolist()
    )
    told = ", ".join(f"{count} {name}" for name, count in sorted(modes.items())) or "nobody"
    lines = [f"tick {tick}  {when[:23]}  {told}; {differences} differences so far"]
    for item in played:
        for row, name in enumerate(item.frame.entities):
            if entity in (None, name) and len(lines) <= ROWS:
                lines.append(_entity(spec, item, row, name))
    return "\n".join(lines)


def _entity(spec: SystemSpec, item: Played, row: int, name: str) -> str:
    seen = _pairs(spec.columns, item.frame.values[row])
    made = _pairs(spec.action_columns, item.decisions.action[row])
    mode = Mode(int(item.decisions.mode[row])).name.lower()
    line = f"  {name}: {seen} → {mode} {made}"
    if item.logged is not None:
        recorded = item.logged.decisions.action
        if row < len(recorded) and not np.array_equal(
            recorded[row], item.decisions.action[row], equal_nan=True
        ):
            line += f" (recorded: {_pairs(spec.action_columns, recorded[row])})"
    return line


def _pairs(names: tuple[str, ...], values: npt.NDArray[np.float64]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in zip(names, values, strict=True))
