"""An explanation as a page: the fan of futures over what happened, the what-ifs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go

from infra.report import COLOURS, Card, Mood, Page
from streams.explain_text import (
    apart_text,
    band,
    belief_text,
    better_text,
    did_text,
    equal_text,
    gate_lines,
    happened_lines,
    number,
    values,
    why_text,
    within,
)

Content = Mapping[str, Any]
_REAL: Final = "#1a1d21"
SHOWN: Final = 12  # channels that have a figure of their own
CLICKED: Final = ("second best", "actor")  # futures that are drawn when their name is clicked


def write_report(path: Path, found: Content) -> Path:
    """Writes the page of one explanation; returns its path."""
    page = Page(
        f"Why {found['entity']} did this",
        f"{found['system']}, tick {found['tick']}, {found['time']} UTC, action "
        f"{found['action_id']}. The tick was decided again from the log, with everything watched.",
    )
    page.cards(_cards(found))
    page.section("In short")
    page.facts(
        {
            "did": did_text(found),
            "why": why_text(found),
            "gate": "; ".join(gate_lines(found)),
            "belief": belief_text(found),
            "equal": equal_text(found),
            "happened": "; ".join(happened_lines(found)),
        }
    )
    _what_if(page, found)
    _fan(page, found)
    _since(page, found)
    for search in found["plan"]["searches"]:
        _search(page, search, found["plan"]["made_at"])
    _belief(page, found)
    page.section("Where the figures come from")
    names = ("recording", "system", "cohort", "tick", "time_us", "made_on", "computed_on")
    bundle = {"bundle": found["decision"]["bundle"] or "none"}
    page.facts({**{name: found[name] for name in names}, **bundle})
    return page.write(path)


def _cards(found: Content) -> list[Card]:
    made, equal, real = found["decision"], found["equal"], found["happened"]
    mood: Mood = "good" if equal else "bad"
    cards = [Card(made["mode"], made["words"])]
    if made["action"] is not None:
        for name, value in list(made["action"].items())[:3]:
            cards.append(Card(number(value), _labelled(found, name)))
    cards.append(
        Card("bit for bit" if equal else f"{found['differences']} differ", "as logged", mood)
    )
    if found["futures"]:
        decided = found["futures"][0]
        cards.append(Card(number(decided["mean"]), "expected return, with what comes after"))
    if real.get("earned") is not None:
        earned, steps = real["earned"], len(real["ticks"])
        fits = within(earned, real["expected"])
        label = f"earned in {steps} ticks; expected {band(real['expected'])}"
        cards.append(Card(number(earned), label, "good" if fits else "plain"))
    return cards


def _what_if(page: Page, found: Content) -> None:
    futures = found["futures"]
    if not futures:
        page.section("What if", "Nothing can be imagined without a model and a belief.")
        return
    seconds = found["horizon"] * found["tick_s"]
    page.section(
        "What if",
        f"Return over {found['horizon']} ticks ({seconds:g} s) and what is expected behind them. "
        f"All were imagined in the same {found['futures_of_each']} futures (members of the model "
        "× noise), so differences are of actions, not of luck. Bars: 10 to 90 %; the mark: 50 %.",
    )
    figure = go.Figure()
    for i, one in enumerate(futures):
        low, middle, high = one["returned"]
        if middle is None:
            continue
        above, below = [high - middle], [middle - low]
        bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
        marker = {"size": 11, "color": COLOURS[i % len(COLOURS)]}
        figure.add_scatter(x=[middle], y=[one["name"]], error_x=bars, marker=marker)
    figure.update_layout(showlegend=False, xaxis_title="return")
    figure.update_yaxes(autorange="reversed")
    page.figure(figure, 110 + 38 * len(futures))
    page.table([_row(one, one is futures[0], found) for one in futures])
    if found["left_out"]:
        page.facts({"left out": "; ".join(found["left_out"])})


def _row(one: Content, first: bool, found: Content) -> dict[str, str]:
    row = {
        "what if": f"{one['name']}: {one['words']}",
        "action now": ", ".join(number(v[0]) for v in one["actions"].values()),
        "mean return": number(one["mean"]),
        "10 … 90 %": _whole(band(one["returned"])),
        "against decided": "" if first else _whole(apart_text(one)),
        "better in": "" if first else better_text(one),
    }
    if any(other["hard"] for other in found["futures"]):
        row["hard constraints broken"] = f"{number(one['hard'])} ticks"
    return row


def _whole(text: str) -> str:
    """A text that is not broken into lines."""
    return text.replace(" ", "\u00a0")


def _fan(page: Page, found: Content) -> None:
    """Each channel and action over time: futures, and what was observed."""
    futures, real = found["futures"], found["happened"]
    if not futures and not real["ticks"]:
        return
    page.section(
        "The fan of futures, over what happened",
        "Blue: the futures of what was decided, the middle one and 10 to 90 %; dotted: the middle "
        "one of other choices. Black: what was observed and applied. Behind the dashed line "
        "another action was in force than the one shown, so the futures are no forecast there.",
    )
    after = [step * found["tick_s"] for step in range(found["horizon"] + 1)]
    seen = [(tick - found["tick"]) * found["tick_s"] for tick in real["ticks"]]
    columns = list(real["observed"])
    for name in columns[:SHOWN]:
        figure = go.Figure()
        for i, one in enumerate(futures):
            _future(figure, after[1:], one, one["channels"][name], i)
        begun = found["belief"]["observed"][name]["value"]
        _observed(figure, [0.0, *seen], [begun, *real["observed"][name]], "observed", "linear")
        _finish(page, figure, found, name)
    if len(columns) > SHOWN:
        page.facts({"left out": f"{len(columns) - SHOWN} more channels, which --json has"})
    for name, applied in real["applied"].items():
        figure = go.Figure()
        for i, one in enumerate(futures):
            held = [*one["actions"][name], one["actions"][name][-1]]
            figure.add_scatter(x=after, y=held, **_style(one["name"], i, "hv"))
        held = [*applied, *applied[-1:]]
        _observed(figure, after[: len(held)], held, "applied", "hv")
        _finish(page, figure, found, name)


def _style(name: str, i: int, shape: str) -> dict[str, Any]:
    """Of the line of the future `i`: the first stands out, some are there to be clicked on."""
    line = {"color": COLOURS[i % len(COLOURS)], "width": 2.4, "shape": shape}
    if i:
        line |= {"width": 1.6, "dash": "dot"}
    visible = "legendonly" if name in CLICKED else True
    return {"name": name, "mode": "lines", "line": line, "visible": visible}


def _observed(
    figure: go.Figure, times: list[float], seen: list[float | None], name: str, shape: str
) -> None:
    line = {"color": _REAL, "width": 1.6, "shape": shape}
    figure.add_scatter(x=times, y=seen, name=name, mode="lines", line=line)


def _future(
    figure: go.Figure, times: list[float], one: Content, spread: list[list[float]], i: int
) -> None:
    """One what-if of one channel; the first with its band."""
    if not i:
        upper, lower = ([step[which] for step in spread] for which in (2, 0))
        hidden: dict[str, Any] = {"line": {"width": 0}, "mode": "lines", "hoverinfo": "skip"}
        figure.add_scatter(x=times, y=upper, showlegend=False, **hidden)
        filled = {"name": "10 to 90 %", "fill": "tonexty", "fillcolor": "rgba(0,114,178,.18)"}
        figure.add_scatter(x=times, y=lower, **filled, **hidden)
    style = _style(one["name"], i, "linear")
    figure.add_scatter(x=times, y=[step[1] for step in spread], **style)


def _finish(page: Page, figure: go.Figure, found: Content, name: str) -> None:
    other = found["happened"].get("other_actions_from")
    if other is not None:
        since = (other - found["tick"]) * found["tick_s"]
        figure.add_vline(x=since, line={"color": "#9aa2ab", "dash": "dash"})
    figure.update_layout(
        yaxis_title=_labelled(found, name),
        xaxis_title="s after the decision",
        legend_traceorder="normal",
    )
    page.figure(figure, 310)


def _labelled(found: Content, name: str) -> str:
    """A column with its unit."""
    unit = found["units"].get(name, "")
    return f"{name}, {unit}" if unit not in ("", "1") else name


def _since(page: Page, found: Content) -> None:
    since = found["plan"].get("since")
    if not since:
        return
    page.section(
        "Since the plan was made",
        f"Its age in ticks: {found['plan']['ticks_ago']}. What it expected of this tick, and what "
        "was seen.",
    )
    page.table(
        [
            {
                "channel": name,
                "expected, 10 … 90 %": band(item["expected"]),
                "seen": number(item["seen"]),
            }
            for name, item in since.items()
        ]
    )


def _search(page: Page, search: Content, tick: int) -> None:
    made = (
        "when its actions were out, for the ticks to come" if search["ahead"] else "for its action"
    )
    page.section(
        f"The search: {search['tier']}",
        f"{search['planner']}, at tick {tick}, {made}; sequences of {search['horizon']} ticks. "
        "Under 'action now' stands what is done at the tick asked about. Finalists are judged "
        "under all members of the model, with noise where the tier is wide; without it, returns "
        "may be higher than above.",
    )
    page.table(
        [
            {
                "finalist": one["name"],
                "action now": ", ".join(map(number, one["sequence"][search["step"]])),
                "return": number(one["returned"]),
                "10 … 90 %": band(one["quantiles"]),
                "": "chosen" if one["chosen"] else one["why"],
            }
            for one in search["finalists"]
        ]
    )
    page.table(
        [
            {
                "iteration": i,
                "candidates": f"{one['candidates']:,}",
                "return, 10 … 90 %": band(one["returned"]),
                "elites": len(one["elites"]),
                "broke hard constraints": one["hard"],
                "no number": one["broken"],
            }
            for i, one in enumerate(search["iterations"], 1)
        ]
    )
    last = search["iterations"][-1]
    page.table(
        [
            {
                "rank": candidate["rank"] + 1,
                "action now": ", ".join(map(number, candidate["action"])),
                "return": number(candidate["returned"]),
                "member": candidate["member"],
                "ahead of its companions": number(candidate["ahead"]),
                "": "elite" if candidate["elite"] else candidate["why"],
            }
            for candidate in [*last["elites"][:5], *last["rejected"]]
        ]
    )
    _cloud(page, search)


def _cloud(page: Page, search: Content) -> None:
    """The returns of all candidates over what each does at the tick asked about."""
    figure = go.Figure()
    for i, one in enumerate(search["iterations"]):
        figure.add_scatter(
            x=[action[0] for action in one["actions"]], y=one["returns"], mode="markers",
            marker={"size": 5, "opacity": 0.55}, name=f"iteration {i + 1}",
        )  # fmt: skip
    chosen = next(one for one in search["finalists"] if one["chosen"])
    now = chosen["sequence"][search["step"]][0]
    figure.add_scatter(
        x=[now], y=[chosen["returned"]], mode="markers", name="chosen",
        marker={"size": 13, "symbol": "star", "color": _REAL},
    )  # fmt: skip
    figure.update_layout(xaxis_title=f"{search['actions'][0]} now", yaxis_title="return")
    page.figure(figure, 320)


def _belief(page: Page, found: Content) -> None:
    belief = found["belief"]
    text = belief_text(found)
    page.section("What was seen, and what was expected next", f"{text[:1].upper()}{text[1:]}.")
    expected = found["decision"]["expected_next"]
    page.table(
        [
            {
                "channel": name,
                "value": number(item["value"]),
                "unit": found["units"].get(name, ""),
                "age": "" if item["age_s"] is None else f"{number(item['age_s'])} s",
                "next, expected": number(expected[name][0]),
                "spread": number(expected[name][1]),
            }
            for name, item in belief["observed"].items()
        ]
    )
    if found["decision"]["gate"] or found["decision"]["proposal"] != found["decision"]["action"]:
        page.section("The gate")
        made = found["decision"]
        page.facts(
            {
                "in force": values(made["in_force"]),
                "proposed": values(made["proposal"]),
                "fallback": values(made["fallback"]),
                "let out": "nothing" if made["action"] is None else values(made["action"]),
                **{item["reason"]: item["words"] for item in made["gate"]},
            }
        )
