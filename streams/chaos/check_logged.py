"""What was decided is logged: a trajectory per frame, its rows in Parquet once, its belief true."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.frames import Frame
from schemas.trajectories import Trajectory
from streams.chaos.check_actions import applied_values
from streams.chaos.facts import Facts, Findings

Replay = Callable[[list[Frame], str], Mapping[tuple[int, int], str]]
"""Frames in order, and a bundle's digest → (cohort, tick) → the digest of an undisturbed belief."""
_TWIN: Final = "twin-"  # as a run names them


def check_trajectories(facts: Facts, findings: Findings) -> dict[str, int]:
    """Every frame was decided, on what it says, and each action is that of its worker's row."""
    decided = {(t.frame.cohort, t.frame.tick) for _, t in facts.trajectories}
    missing = facts.frames.keys() - decided
    over = {place for place in missing if facts.was_shed(facts.places[place])}
    for place in missing - over:
        findings.add("trajectory", f"cohort {place[0]}, tick {place[1]}: never decided")
    dead = 0
    rows = _rows_by_attempt(facts)
    for (entity, tick), sent in facts.actions.items():
        for action in sent:
            logged = rows.get((entity, tick, action.worker, action.attempt))
            dead += logged is None  # the worker died before it could send the trajectory
            if logged is not None and action.values not in logged:
                text = f"{entity}, tick {tick}: {action.values} was sent, {logged} logged"
                findings.add("trajectory", text)
    counts = {"attempts": len(facts.trajectories), "unlogged_actions": dead}
    return {**counts, "frames_shed": len(over)}


def _rows_by_attempt(facts: Facts) -> dict[tuple[str, int, str, int], list[dict[str, float]]]:
    """(entity, tick, worker, attempt) → the actions logged for it."""
    names = facts.log.spec.action_columns
    found: dict[tuple[str, int, str, int], list[dict[str, float]]] = defaultdict(list)
    for _, t in facts.trajectories:
        who = (str(t.decisions.spent.get("worker", "")), int(t.decisions.spent.get("attempt", 0)))
        for entity, values in zip(t.frame.entities, t.decisions.action.tolist(), strict=True):
            found[entity, t.frame.tick, *who].append(dict(zip(names, values, strict=True)))
    return found


def check_rows(facts: Facts, findings: Findings) -> dict[str, int]:
    """Every row of every attempt is in Parquet exactly once; one of them counts where applied."""
    expected = Counter(
        (entry.partition, entry.offset, entity)
        for entry, t in facts.trajectories
        for entity in t.frame.entities
    )
    stored = Counter((r["partition"], r["offset"], r["entity"]) for r in facts.log.rows)
    for place in expected.keys() - stored.keys():
        findings.add("stored", f"trajectory {place} is not in Parquet")
    for place, times in stored.items():
        if place not in expected:
            findings.add("stored", f"the row {place} in Parquet is in no trajectory")
        elif times > 1:
            findings.add("stored", f"trajectory {place} is in Parquet {times} times")
    return {"rows": len(facts.log.rows), **_check_counted(facts, findings)}


def _check_counted(facts: Facts, findings: Findings) -> dict[str, int]:
    held = {
        (entry.partition, entry.offset)
        for entry, t in facts.trajectories
        if t.decisions.spent.get("held")  # a twin's, which sent nothing
    }
    by_tick: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in facts.log.rows:
        if (row["partition"], row["offset"]) not in held:
            by_tick[row["entity"], row["tick"]].append(row)
        elif row["counted"]:
            findings.add("counted", f"{row['entity']}, {row['tick']}: what was held back counts")
    applied, unlogged = applied_values(facts), 0
    for key, rows in by_tick.items():
        counted = [row for row in rows if row["counted"]]
        if counted and key not in applied:
            findings.add("counted", f"{key}: a row counts, but nothing was applied")
        elif any(_values(facts, row) != applied[key] for row in counted):
            findings.add("counted", f"{key}: {applied[key]} was applied, another row counts")
    for key, values in applied.items():
        rows = by_tick.get(key, [])
        alike = [row for row in rows if _values(facts, row) == values]
        times = sum(row["counted"] for row in rows)
        unlogged += not alike  # planned again otherwise after its worker had died
        if alike and times != 1:
            findings.add("counted", f"{key}: applied, and {times} rows count")
    return {"counted": sum(bool(r["counted"]) for r in facts.log.rows), "unlogged": unlogged}


def _values(facts: Facts, row: Mapping[str, Any]) -> dict[str, float]:
    return {name: row[f"action:{name}"] for name in facts.log.spec.action_columns}


def check_beliefs(facts: Facts, findings: Findings, replay: Replay) -> dict[str, int]:
    """Every attempt had the belief that an undisturbed replay of the same frames has.

    Frames that were passed over are not in it. One of them may have been decided all the same, by a
    worker that began again before it: then either belief will do. A twin has beliefs of its own,
    and passes over what its own time does not allow.
    """
    bundles = Counter(t.decisions.bundle for _, t in facts.trajectories)
    if not bundles:
        return {"beliefs": 0}
    bundle = bundles.most_common(1)[0][0]
    over = frozenset(key for key, place in facts.places.items() if facts.was_shed(place))
    decided: dict[bool, set[tuple[int, int]]] = defaultdict(set)
    for _, t in facts.trajectories:
        decided[_is_twins(t)].add((t.frame.cohort, t.frame.tick))
    ways = {twin: {over, over - decided[twin]} for twin in (False, True)}
    replays = {
        left: replay([frame for key, frame in facts.frames.items() if key not in left], bundle)
        for left in ways[False] | ways[True]
    }
    for entry, t in facts.trajectories:
        place = (t.frame.cohort, t.frame.tick)
        if place not in facts.frames:
            findings.add("belief", f"{entry.place}: decided on a frame that does not count")
        elif t.decisions.spent.get("belief") not in {
            replays[left].get(place) for left in ways[_is_twins(t)]
        }:
            text = f"cohort {place[0]}, tick {place[1]}, {_who(t)}: not that of a replay"
            findings.add("belief", text)
    return {"beliefs": len(facts.trajectories)}


def _is_twins(trajectory: Trajectory) -> bool:
    return str(trajectory.decisions.spent.get("worker", "")).startswith(_TWIN)


def _who(trajectory: Trajectory) -> str:
    spent = trajectory.decisions.spent
    return f"{spent.get('worker')} attempt {spent.get('attempt')}"
