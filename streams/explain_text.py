"""An explanation as text: who decided, why, what else there was, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams.explain_words import STATUS

Content = Mapping[str, Any]
_WIDE = 13


def text_of(found: Content) -> str:
    """The explanation that `streams.explain` gave, for somebody on call."""
    where = f"tick {found['tick']}, {found['system']}"
    lines = [
        f"{found['entity']} at {found['time']} ({where}), action {found['action_id']}",
        *_part("did", did_text(found)),
        *_part("why", why_text(found), *_since(found)),
        *_part("gate", *gate_lines(found)),
        *_part("belief", belief_text(found)),
        *_part("equal", equal_text(found)),
    ]
    searches = found["plan"]["searches"]
    for search in searches:
        lines += _part("searched", *_search(search, search is searches[-1]))
    lines += _part("what if", *_what_if(found))
    lines += _part("happened", *happened_lines(found))
    return "\n".join(lines)


def did_text(found: Content) -> str:
    """Who decided, what, and from which value."""
    made = found["decision"]
    what = "nothing" if made["action"] is None else values(made["action"])
    return f"{made['mode']}: {what}; in force was {values(made['in_force'])}"


def why_text(found: Content) -> str:
    """Which plan proposed, or why none did."""
    plan, made = found["plan"], found["decision"]
    if plan["made_at"] is None:
        return f"{made['words']}. {plan['words'].capitalize()}"
    age = plan["ticks_ago"]
    ticks = "tick" if age == 1 else "ticks"
    since = f", {age} {ticks} ago (tick {plan['made_at']}), for {plan['length']}" if age else ""
    proposed = "" if made["proposed_by"] == made["mode"] else f"; proposed: {made['proposed_by']}"
    return f"{made['words']}; the plan was {plan['words']}{since}{proposed}"


def _since(found: Content) -> list[str]:
    since = found["plan"].get("since")
    if not since:
        return []
    beyond = [
        f"{name} {number(item['seen'])} ({band(item['expected'])})"
        for name, item in since.items()
        if not within(item["seen"], item["expected"])
    ]
    told = f"of {len(since)} channels {len(beyond)} came out beyond the 10 to 90 % expected then"
    return [": ".join([told, *([", ".join(beyond)] if beyond else [])])]


def gate_lines(found: Content) -> list[str]:
    """What the gate said, with its numbers."""
    made, lines = found["decision"], []
    for item in found["decision"]["gate"]:
        more = ""
        if item["reason"] == "uncertain":
            limit = number(made["max_uncertainty"])
            more = f" (uncertainty {number(made['uncertainty'])}, limit {limit})"
        if item["reason"] == "override":
            more = f" ({values(made['override'])})"
        lines.append(f"{item['reason']}: {item['words']}{more}")
    if made["action"] != made["proposal"]:
        lines.append(f"proposed was {values(made['proposal'])}")
    return lines or ["let the proposal out as it was"]


def belief_text(found: Content) -> str:
    """Whether the belief is trusted, and what it rests on."""
    belief = found["belief"]
    if not belief["hidden"]:
        return "none: no model decided"
    missing = [name for name, item in belief["observed"].items() if item["value"] is None]
    ages = [item["age_s"] for item in belief["observed"].values() if item["age_s"] is not None]
    parts = [
        "trusted" if belief["trusted"] else "rebuilt at this tick, not trusted yet",
        f"innovation {number(belief['innovation'])} (band {number(belief['band'])})",
        f"oldest observation {number(max(ages, default=None))} s",
    ]
    return "; ".join([*parts, *([f"not seen: {', '.join(missing)}"] if missing else [])])


def equal_text(found: Content) -> str:
    """Whether it came out as it was logged; where not, what differs, and on which machines."""
    if found["equal"]:
        return "decided again from the log: the same, bit for bit"
    made = found["made_on"]
    where = made.get("machine", "a machine that the log does not name")
    first = found["first_differences"][0]
    return (
        f"NOT the same: {found['differences']} values differ, the first {first['column']} at tick "
        f"{first['tick']} (recorded {first['recorded']}, now {first['replayed']}). It was made on "
        f"{where}, with {values(made.get('versions', {})) or 'versions that the log does not name'}"
        f"; this is {found['computed_on']}. What follows is what this machine makes of it"
    )


def _search(search: Content, last: bool) -> list[str]:
    lines = []
    for number_, one in enumerate(search["iterations"], 1):
        hard = f", {one['hard']} broke hard constraints" if one["hard"] else ""
        hard += f", {one['broken']} with no number" if one["broken"] else ""
        lines.append(
            f"{search['tier']} ({search['planner']}), iteration {number_}: {one['candidates']} "
            f"candidates of {search['horizon']} ticks, return {band(one['returned'])}, "
            f"{len(one['elites'])} elites{hard}"
        )
        if number_ == len(search["iterations"]):
            lines += [
                f"  rejected: {_at(search, c['action'])}, {number(c['returned'])}: {c['why']}"
                for c in one["rejected"][:2]
            ]
    for one in search["finalists"]:
        verdict = one["why"] or ("CHOSEN" if last else "the best, and searched on from it")
        action = _at(search, one["sequence"][search["step"]])
        lines.append(f"final: {one['name']}, {action}, {number(one['returned'])}: {verdict}")
    return lines


def _at(search: Content, action: list[float]) -> str:
    return values(dict(zip(search["actions"], action, strict=True)))


def _what_if(found: Content) -> list[str]:
    if not found["futures"]:
        return ["nothing can be imagined without a model and a belief", *found["left_out"]]
    wide = max(len(one["name"]) for one in found["futures"])
    seconds = found["horizon"] * found["tick_s"]
    over = f"over {found['horizon']} ticks ({seconds:g} s), in the same {found['futures_of_each']}"
    lines = [f"{over} futures each: mean return (10 … 90 %), against what was decided"]
    for one in found["futures"]:
        apart = ""
        if one is not found["futures"][0]:
            apart = f"  {apart_text(one)}{better_text(one, ', better in ')}"
        hard = f"  breaks hard constraints for {one['hard']:.3g} ticks" if one["hard"] else ""
        worth = f"{number(one['mean']):>9} ({band(one['returned'])})"
        lines.append(f"{one['name']:<{wide}}  {worth}{apart}{hard}")
        if one["name"] not in ("decided", "hold", "fallback", "actor"):
            lines.append(f"{'':<{wide}}  {one['words']}")
    return [*lines, *found["left_out"]]


def apart_text(one: Content) -> str:
    """How far a future's return is from that of what was decided."""
    if one["difference"] is None:
        return "?"
    if _same(one):
        return "the same"
    return f"{one['difference']:+.4g} ({band(one['differences'], '+')})"


def better_text(one: Content, before: str = "") -> str:
    """In how many futures it earns more than what was decided; nothing where it is the same."""
    return "" if one["difference"] is None or _same(one) else f"{before}{one['better']:.0%}"


def _same(one: Content) -> bool:
    return not any([one["difference"], one["better"], *one["differences"]])


def happened_lines(found: Content) -> list[str]:
    """What came of it, and whether the futures are a forecast of that."""
    real = found["happened"]
    steps = len(real["ticks"])
    if not steps:
        return [f"the log says nothing of it: {real['ended'] or 'no ticks follow'}"]
    became = STATUS.get(real["status"][0], real["status"][0])
    lines = [f"the action: {became}; {steps} ticks after it are in the log"]
    lines += [real["ended"]] if real["ended"] else []
    if "as_decided_for" not in real:
        return lines
    if real["other_actions_from"] is None:
        lines.append("the actions in force were those shown, all along")
    elif real["as_decided_for"] == 0:
        lines.append("another action was in force at once: the futures forecast nothing of this")
    else:
        lines.append(
            f"from tick {real['other_actions_from']} on, after {real['as_decided_for']} as shown, "
            "other actions were in force (there is a new decision at every tick): from there on "
            "the futures are no forecast"
        )
    if real["seen"]:
        lines.append(
            f"as long as they were, {real['inside']} of {real['seen']} observed values lay within "
            "the futures' 10 to 90 %"
        )
    if real["earned"] is None:
        lines.append("what it earned is not known: no rule in the spec, or something was not seen")
    else:
        lines.append(
            f"it earned {number(real['earned'])} in these {steps} ticks; the futures of what was "
            f"decided: {band(real['expected'])}"
        )
    return lines


def _part(name: str, *lines: str) -> list[str]:
    return [f"{name if not i else '':>{_WIDE}}  {line}" for i, line in enumerate(lines)]


def values(named: Mapping[str, Any]) -> str:
    """Names and values, such as `x=1.5 y=?`."""
    told = {k: v if isinstance(v, str) else number(v) for k, v in named.items()}
    return " ".join(f"{name}={value}" for name, value in told.items())


def within(value: float | None, three: list[float | None]) -> bool:
    """Whether `value` lies between the outer two of three quantiles; so does what was not seen."""
    low, _, high = three
    return value is None or low is None or high is None or low <= value <= high


def number(value: float | None) -> str:
    """A number in four digits; `?` for what is none."""
    return "?" if value is None else f"{value:.4g}"


def band(three: list[float | None], sign: str = "") -> str:
    """The outer two of three quantiles."""
    low, _, high = three
    return " … ".join("?" if x is None else f"{x:{sign}.4g}" for x in (low, high))
