"""The report of an evaluation: one page that says at a glance how far a bundle can be trusted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infra.report import Card, Page
from models.data import Sequences
from models.evaluation import figures
from models.evaluation.drift import LEVEL, Drift
from models.evaluation.recalibrate import BAR
from models.evaluation.result import Evaluation
from models.evaluation.scores import average
from models.evaluation.sections import Section
from models.evaluation.worst import typical_windows, worst_episodes, worst_windows


def write_report(
    path: Path,
    found: Evaluation,
    data: Sequences,
    drift: Drift | None,
    facts: Mapping[str, Any],
    more: Sequence[Section] = (),
) -> Path:
    """Writes the page; returns its path.

    Args:
        data: what `found` was found on.
        facts: where the figures are from, name and value.
        more: further sections, such as of an evaluation against a simulator.
    """
    page = Page(
        f"Rehearse: {facts.get('system', 'a bundle')}, judged on held-out data",
        f"In {len(found.windows):,} windows the bundle saw what happened for a while, and then "
        f"foresaw up to {found.horizons[-1]} ticks under the actions that were really taken. "
        "What it foresaw stands beside what came.",
    )
    page.cards(_cards(found, drift))
    for section in (*_predictions(found), *_spreads(found), *_drift(drift), *_worst(found, data)):
        add(page, section)
    for section in more:
        add(page, section)
    page.section("Where the figures are from")
    left = ", ".join(map(str, found.left_out)) or "none"
    page.facts({**facts, "windows": len(found.windows), "horizons left out": left})
    return page.write(path)


def add(page: Page, section: Section) -> None:
    """One section onto the page."""
    page.section(section.title, section.text)
    if section.figure is not None:
        page.figure(section.figure, section.height)
    page.table(section.rows)


def _cards(found: Evaluation, drift: Drift | None) -> list[Card]:
    k = found.verdict_at
    ratios = found.of_persistence[k - 1, :-1]
    known = ratios[np.isfinite(ratios)]
    cards = [
        Card(
            "worse" if found.worse else "better",
            f"than persistence, {k} ticks ahead"
            + (f": {', '.join(found.worse)}" if found.worse else ", in every channel that moves"),
            "bad" if found.worse else "good",
        )
    ]
    if len(known):
        cards.append(Card(f"{known.mean():.2f} ×", f"persistence's error, {k} ticks ahead"))
    cards.append(
        Card(
            f"{found.within(found.before):.0%}",
            f"of coverages within {100 * BAR:.0f} points, as predicted",
        )
    )
    if found.after is not None:
        right = found.within(found.after)
        cards.append(
            Card(f"{right:.0%}", "of them, recalibrated", "good" if right > 0.9 else "plain")
        )
    if drift is not None:
        end = slice(drift.full, None)
        fixed, adaptive = (float(average(x[end].ravel())) for x in (drift.fixed, drift.adaptive))
        cards.append(
            Card(
                f"{fixed:.0%} / {adaptive:.0%}",
                f"of {LEVEL:.0%} held under drift, fixed / adaptive",
            )
        )
    if found.ends.get("auroc") is not None:
        cards.append(Card(f"{found.ends['auroc']:.2f}", "AUROC of the end of an episode"))
    return cards


def _predictions(found: Evaluation) -> list[Section]:
    fan, tall = figures.fans(found, typical_windows(found))
    rise, high = figures.growth(found)
    ratio = [
        {
            "channel": name,
            **{f"k={k}": _ratio(found.of_persistence[k - 1, c]) for k in found.horizons},
        }
        for c, name in enumerate(found.foreseen.names)
    ]
    return [
        Section(
            "What was foreseen, and what came",
            "One column per window, from one of the best foreseen on the left to one of the worst "
            "twentieth on the right. Black: what happened. Bands hold 50, 80 and 95 % of the "
            "futures; dotted: 80 % after recalibration.",
            fan,
            height=tall,
        ),
        Section(
            "Error against horizon",
            "Root mean square error of the mean future, in the channel's units. Below the dashed "
            "line the model knows more than that all stays as it is. The table is the ratio of "
            "the two.",
            rise,
            ratio,
            high,
        ),
        *_ends(found),
    ]


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"


def _ends(found: Evaluation) -> list[Section]:
    if not found.ends.get("ends"):
        return []
    rows = [{name.replace("_", " "): _cell(value) for name, value in found.ends.items()}]
    text = (
        "How probable the model held the end of an episode at each tick. An AUROC of 0.5 is "
        "guessing, 1 tells every end apart; base is who always says how frequent ends are."
    )
    return [Section("The end of an episode", text, rows=rows)]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _spreads(found: Evaluation) -> list[Section]:
    curve, tall = figures.reliability(found)
    pit, high = figures.pits(found)
    fitted = "the bundle's own factors" if found.stored else "factors fitted on the other windows"
    text = (
        "How many truths an interval holds against how many it promises, one line per horizon, on "
        f"windows that {fitted} have not seen. On the diagonal spreads are honest; above it they "
        "are too wide, below too narrow."
    )
    crps = [
        {
            "channel": name,
            **{
                f"k={k}": f"{_ratio(found.crps[k - 1, c] / found.still[k - 1, c])}"
                if found.still[k - 1, c] > 0
                else "–"
                for k in found.horizons
            },
        }
        for c, name in enumerate(found.foreseen.names)
    ]
    return [
        Section("Are the spreads honest?", text, curve, figures.told(found), tall),
        Section(
            "Where truths fall within the futures (PIT)",
            "Flat at 1 where spreads are honest; a hill in the middle: too wide; walls at the "
            "sides: too narrow; a slope: a bias. The table is the CRPS, which counts error and "
            "spread together, as a share of persistence's.",
            pit,
            crps,
            high,
        ),
    ]


def _drift(drift: Drift | None) -> list[Section]:
    if drift is None:
        return []
    text = (
        f"{drift.entities} sequences as in the running loop, one tick ahead. From the shaded ticks "
        f"on the sensors are noisier, and nobody tells the model. A fixed factor no longer holds "
        f"its {LEVEL:.0%}; one that follows its own misses does."
    )
    return [Section("When the system drifts", text, figures.drifting(drift), height=320)]


def _worst(found: Evaluation, data: Sequences) -> list[Section]:
    odd = worst_windows(found, data)
    if not odd:
        return []
    text = (
        "The windows with the largest CRPS, as a multiple of what is usual at the same ticks, each "
        "in the channel where it is worst; below, the episodes that are worst on average."
    )
    plot, rows = figures.worst(found, odd), worst_episodes(found, data)
    return [Section("What it foresaw worst", text, plot, rows, 330)]
