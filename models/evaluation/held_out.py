"""How good a bundle is on data it was not trained on: errors beside persistence, and spread."""

import numpy as np
import numpy.typing as npt

from models.data import Sequences
from models.evaluation import recalibrate
from models.evaluation.foresee import LEVELS, Foreseen, foresee, joined
from models.evaluation.result import BAND, Evaluation
from models.evaluation.scores import average, histogram
from models.evaluation.termination import ending, judge_ends
from models.evaluation.violations import cost_of, judge_violations
from models.evaluation.windows import (
    LEAST,
    WARM,
    Believed,
    Windows,
    draw_windows,
    filtered,
    imagined,
)
from planner.manifest import Recalibration
from planner.session import Bundle
from schemas.system import SystemSpec

HORIZONS = (1, 5, 10, 20, 50)
ENOUGH = 32
"""Windows that must reach a horizon for it to be judged, where any horizon has as many."""
CHUNK = 128
"""Windows that are imagined at once, so that memory does not grow with their number."""
F64 = npt.NDArray[np.float64]


def evaluate(
    bundle: Bundle,
    spec: SystemSpec,
    data: Sequences,
    *,
    horizons: tuple[int, ...] = HORIZONS,
    windows: int = 1024,
    futures: int = 16,
    seed: int = 0,
    band: float = BAND,
) -> Evaluation:
    """Filters windows of held-out sequences, then imagines on under the actions that were taken.

    Everything goes through the exported graphs, so what is measured is what will run.

    Args:
        horizons: in ticks, ascending.
        windows: how many windows, drawn evenly over `data`.
        futures: sampled futures per member and window.
        band: share of the innovations that lies within the band.

    Raises:
        ValueError: the data have no sequence that is long enough, or but a short one.
    """
    rng = np.random.default_rng([seed, 17])
    drawn = draw_windows(data, rng, windows, max(horizons))
    _some_to_judge(data, drawn)
    reached = _reached(drawn, horizons)
    drawn = drawn.shortened(WARM + reached[-1])
    belief = filtered(bundle, drawn.obs[:, :WARM], drawn.action[:, :WARM])
    scale = _spread(data.obs)
    judged = np.append(scale[: len(spec.observed_columns)], _spread(data.reward[:, None]))
    foreseen, ends, costs = _foresee(bundle, spec, drawn, belief, judged, futures, rng)
    everyone = np.ones(len(drawn), bool)
    fitted = recalibrate.fit(foreseen, drawn.fitting, reached, len(spec.columns))
    stored = _usable(bundle)
    best = stored or fitted
    rest = ~drawn.fitting
    return Evaluation(
        horizons=reached,
        left_out=tuple(k for k in horizons if k not in reached),
        columns=spec.observed_columns,
        coverage=recalibrate.judge(foreseen, everyone, drawn.block),
        before=recalibrate.judge(foreseen, rest, drawn.block),
        after=recalibrate.judge(foreseen, rest, drawn.block, best) if best else None,
        recalibration=fitted,
        stored=stored,
        ends=judge_ends(spec, ends, drawn),
        violations=None if costs is None else judge_violations(spec, costs, drawn, reached),
        innovation_band=float(np.quantile(belief.innovations, band)),
        channel_scale=scale,
        windows=drawn,
        foreseen=foreseen,
        **_means(foreseen),
    )


def _some_to_judge(data: Sequences, windows: Windows) -> None:
    """Raises `ValueError` where all windows belong to the part that recalibration is fitted on."""
    if not windows.fitting.all():
        return
    lengths = np.diff(data.segments, axis=1)[:, 0]
    usable = lengths[lengths >= LEAST]
    if len(usable) == 1 and usable[0] < 2 * LEAST:
        raise ValueError(
            f"{len(data)} rows, {usable[0]} of them in the longest unbroken sequence; needed are "
            f"{2 * LEAST} in one, or {LEAST} in each of two: log longer runs, or more entities"
        )
    raise ValueError(
        f"{len(windows)} window{'s' * (len(windows) > 1)}, all of them drawn from the part that "
        "recalibration is fitted on: ask for more"
    )


def _foresee(
    bundle: Bundle,
    spec: SystemSpec,
    windows: Windows,
    belief: Believed,
    scale: F64,
    futures: int,
    rng: np.random.Generator,
) -> tuple[Foreseen, F64, F64 | None]:
    """What was foreseen of channels and reward, `[T, B]` of ends, and of broken constraints where
    a head tells; a chunk at a time.
    """
    seen, ends, costs = [], [], []
    cost = cost_of(bundle)
    for first in range(0, len(windows), CHUNK):
        rows = slice(first, first + CHUNK)
        chunk = windows.of(rows)
        sampled = imagined(bundle, belief.of(rows), chunk.action[:, WARM:], futures, rng, cost)
        seen.append(foresee(spec, sampled, chunk, scale, rng))
        ends.append(ending(spec, sampled, chunk))
        if sampled.cost is not None:
            costs.append(sampled.cost.mean(1, dtype=np.float64))
    return joined(seen), np.concatenate(ends, 1), np.concatenate(costs, 1) if costs else None


def _spread(values: npt.NDArray[np.float32]) -> F64:
    """`[C]` standard deviation of `[R, C]`; 1 where nothing moves or is known."""
    centred = values.astype(np.float64) - average(values)
    spread = np.sqrt(average(centred**2))
    return np.where(spread > 1e-9, spread, 1.0)


def _reached(windows: Windows, horizons: tuple[int, ...]) -> tuple[int, ...]:
    """The horizons that enough windows reach; where none has enough, those that any reaches."""
    counts = {k: int(np.isfinite(windows.alive[:, WARM + k - 1]).sum()) for k in horizons}
    enough = tuple(k for k in horizons if counts[k] >= ENOUGH)
    return enough or tuple(k for k in horizons if counts[k])


def _usable(bundle: Bundle) -> Recalibration | None:
    """The bundle's own factors, where they know the levels that are judged."""
    stored = bundle.manifest.calibration.recalibration
    return stored if stored is not None and set(LEVELS) <= set(stored.levels) else None


def _means(foreseen: Foreseen) -> dict[str, F64]:
    """Averages over windows, `[T, C]` each, of those where truth and present are both known."""
    known = np.isfinite(foreseen.truth) & np.isfinite(foreseen.now)

    def mean(x: npt.NDArray[np.floating]) -> F64:
        return average(np.where(known, x, np.nan).astype(np.float64), 1)

    return {
        "counts": known.sum(1).astype(np.float64),
        "rmse": np.sqrt(mean(foreseen.error**2)),
        "persistence": np.sqrt(mean(foreseen.still**2)),
        "bias": mean(foreseen.error),
        "crps": mean(foreseen.crps),
        "nll": mean(foreseen.nll),
        "still": mean(np.abs(foreseen.still)),
        "pit": np.stack([histogram(x) for x in foreseen.pit], 1),
    }
