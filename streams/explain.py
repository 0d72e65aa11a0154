"""Why one action: its tick is decided again from the log, with the searches watched.

Nothing is kept for this while the loop runs. What is shown of belief, plan and gate comes out of
the same `respond` and `prepare` that decided then, and is compared with what was logged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.machine import machine
from planner.account import Account, account
from planner.runtime import Provider
from planner.watch import Watch
from planner.what_if import Future, Rehearsal
from schemas.clock import tick_time
from schemas.codes import Mode
from schemas.messages import action_id
from schemas.plain_json import json_line
from schemas.system import SystemSpec
from schemas.trajectories import Decisions
from streams.decide import Answer, prepare, respond, seed_of
from streams.explain_after import after, happened
from streams.explain_find import Asked, date_text, find, moment
from streams.explain_options import alternatives, horizon_of, planned
from streams.explain_words import MODES, gate_words
from streams.replay_compare import Comparison
from streams.replay_deck import Deck, Due, ReplayError

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Again:
    """A tick of a cohort, decided again; `row` is where the entity stands in its frame."""

    due: Due
    answer: Answer
    decisions: Decisions
    watch: Watch
    comparison: Comparison
    row: int

    def accounts(self, spec: SystemSpec, tick: int) -> list[Account]:
        """The searches for the entity that proposed its action at `tick`, the last one last."""
        age = tick - self.due.frame.tick
        found = (search for search in self.watch.of(self.row) if age or not search.ahead)
        return [account(spec, search, self.row, age) for search in found]


def explain(
    recordings: Sequence[Path],
    action: str | None = None,
    *,
    entity: str | None = None,
    at: str | None = None,
    what_if: Sequence[Mapping[str, float]] = (),
    bundles: Sequence[Path] = (),
    provider: Provider = "auto",
) -> dict[str, Any]:
    """All that is known of one decision, as plain JSON values; null is what is no number.

    Args:
        recordings: folders that `rehearse record` or `rehearse backtest --record` made; the first
            that holds the decision counts.
        action: its id; or else `entity` and `at` (see `find_entity`).
        what_if: values by action column, each of which is imagined instead of what was decided.
        bundles: bundle folders, or folders of them, to find the recorded bundle in.

    Returns, beside what names the decision (`action_id`, `entity`, `tick`, `time`, …):
        equal, differences, first_differences, made_on, computed_on: whether the tick that is asked
            about, and the one that made its plan, came out as they were logged, and where;
        decision: who decided, from which proposal, what the gate said, what was expected next;
        belief: of this entity after the frame, and the observations behind it;
        plan: `made_at` (a tick; null: no plan proposed), in `words`, its `searches` (see
            `planner.account`), and `since`: by channel what it expected of this tick, and saw;
        futures: see `planner.what_if.Future`: `decided` first, then `proposal` (where the gate
            changed it), `hold`, `fallback`, `second best`, `actor` and those given; `channels` and
            `actions` by column, quantiles are 10, 50 and 90 %; `left_out`: which are not, and why;
        happened: the log's ticks over the `horizon`: `observed` and `applied` by column, `status`,
            `modes`, `reward`; `as_decided_for` so many ticks the actions were those of `decided`,
            and `inside` of `seen` observed values within its quantiles; `earned` and `expected`.

    Raises:
        RecordingError: the recording is not whole.
        ReplayError: there is no such decision, its bundle is missing, or the log does not reach.
    """
    source, asked = find(recordings, action, entity, at)
    for values in what_if:
        _check(source.spec, values)
    deck = Deck(source, "pinned", source.spec, asked.cohort)
    deck.load(bundles, None, provider)
    try:
        found = _explained(deck, asked, what_if)
    finally:
        deck.close()
    made: dict[str, Any] = json.loads(json_line({"recording": str(source.folder), **found}))
    return made


def _check(spec: SystemSpec, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if name not in spec.action_columns:
            raise ReplayError(
                f"--what-if {name}: no action of {spec.system}; its actions are "
                f"{', '.join(spec.action_columns)}"
            )
        if not np.isfinite(value):
            raise ReplayError(f"--what-if {name}={value}: give a finite number")


def _explained(deck: Deck, asked: Asked, what_if: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    spec = deck.spec
    again = _decide(deck, asked, asked.tick)
    origin = _origin(deck, asked, again)
    accounts = [] if origin is None else origin.accounts(spec, asked.tick)
    horizon = horizon_of(spec, again.answer, again.row, accounts)
    rehearsal, futures, words = None, list[Future](), list[str]()
    bundle, posterior = again.answer.bundle, again.answer.posterior
    if bundle is not None and posterior is not None and _finite(again):
        key = (seed_of(bundle), asked.cohort, asked.tick)
        rehearsal = Rehearsal(spec, bundle, posterior, again.row, key)
        found, words = alternatives(
            spec, again.due.frame, again.answer, again.row, horizon, accounts, what_if
        )
        futures = rehearsal.futures(found)
    real = after(deck, asked.cohort, asked.entity, asked.tick, horizon)
    decided = futures[0] if futures else None
    return {
        "action_id": action_id(spec.system, asked.entity, asked.tick),
        "system": spec.system,
        "entity": asked.entity,
        "cohort": asked.cohort,
        "tick": asked.tick,
        "time_us": tick_time(asked.tick, spec.epoch_us, spec.period_us),
        "time": date_text(tick_time(asked.tick, spec.epoch_us, spec.period_us)),
        "tick_s": spec.period_us / 1e6,
        "units": _units(spec),
        **_equality(again, None if origin is again else origin),
        "decision": _decision(spec, again),
        "belief": _belief(spec, again),
        "plan": _plan(spec, asked, again, origin, accounts),
        "horizon": horizon,
        "futures_of_each": 0 if rehearsal is None else rehearsal.count,
        "futures": [_future(spec, one) for one in futures],
        "left_out": words,
        "happened": happened(spec, bundle, asked.tick, real, decided, rehearsal),
    }


# deciding again


def _decide(deck: Deck, asked: Asked, tick: int) -> Again:
    """The frame of the entity's cohort at `tick`, decided again and compared with the log."""
    spec = deck.spec
    deck.seek(tick)
    while deck.upcoming is not None and deck.upcoming < tick:
        deck.play()
    due = next((due for frame in deck.frames(tick) if (due := deck.due(frame))), None)
    if due is None:
        raise ReplayError(_why_not(deck, asked, tick))
    if asked.entity not in due.frame.entities:
        raise ReplayError(f"{asked.entity} is not in the frame of {moment(spec, tick)}")
    watch = Watch()
    answer = respond(spec, due.bundle, due.row, due.frame, due.budget, watch.planners)
    _, decisions = prepare(spec, due.frame, answer, due.ahead, watch.planners)
    comparison = Comparison(spec, entity=asked.entity)
    assert due.logged is not None  # else a pinned deck has nothing due
    comparison.add(due.frame, due.logged.decisions, decisions)
    row = due.frame.entities.index(asked.entity)
    return Again(due, answer, decisions, watch, comparison, row)


def _why_not(deck: Deck, asked: Asked, tick: int) -> str:
    where = f"{asked.entity} at {moment(deck.spec, tick)}"
    if deck.logged(tick, asked.cohort) is None:
        return f"{where}: no decision was logged; the worker was away, or the frame was rejected"
    return (
        f"{where}: lies before the first key frame of the recording, so the belief before it is "
        "not known. Record again from 64 ticks earlier: rehearse record --from"
    )


def _origin(deck: Deck, asked: Asked, again: Again) -> Again | None:
    """The tick at which the plan was made that proposed; None: no plan, or the log begins later."""
    if again.answer.made.mode[again.row] not in (Mode.PLAN, Mode.FOLLOW):
        return None
    made_at = int(again.answer.made.memory.planned_at[again.row])
    if made_at == asked.tick:
        return again
    try:
        found = _decide(deck, asked, made_at)
    except ReplayError:  # the followed actions themselves are in a key frame's row
        return None
    # Where it comes out otherwise than it did, its search may be of others.
    return found if found.accounts(deck.spec, asked.tick) else None


def _finite(again: Again) -> bool:
    posterior = again.answer.posterior
    assert posterior is not None
    parts = (posterior.h, posterior.mean, posterior.std)
    return all(bool(np.isfinite(part[again.row]).all()) for part in parts)


# the parts of the answer


def _units(spec: SystemSpec) -> dict[str, str]:
    """The unit of each column that has one."""
    names = {channel.name: channel.unit for channel in spec.channels}
    names |= {name: action.unit for name, action in spec.actions.items()}
    columns = (*spec.observed_columns, *spec.action_columns)
    return {column: names.get(column.partition("[")[0], "") for column in columns}


def _equality(again: Again, origin: Again | None) -> dict[str, Any]:
    """Whether the decision came out as it was logged, and on what machines."""
    comparisons = [again.comparison, *([] if origin is None else [origin.comparison])]
    assert again.due.logged is not None
    spent = again.due.logged.decisions.spent
    listed = [one.as_dict() for comparison in comparisons for one in comparison.listed]
    names = ("worker", "attempt", "machine", "provider", "threads", "versions")
    return {
        "equal": not any(comparison.differences for comparison in comparisons),
        "differences": sum(comparison.differences for comparison in comparisons),
        "first_differences": listed[:10],
        "made_on": {name: spent[name] for name in names if name in spent},
        "computed_on": machine(),
    }


def _decision(spec: SystemSpec, again: Again) -> dict[str, Any]:
    made, frame, decisions = again.answer.made, again.due.frame, again.decisions
    row, bundle = again.row, again.answer.bundle
    mode, names = Mode(int(decisions.mode[row])), spec.action_columns

    def by_action(values: F64) -> dict[str, float]:
        return dict(zip(names, values[row].tolist(), strict=True))

    limits = [spec.gate.max_uncertainty]
    limits += [] if bundle is None else [bundle.manifest.calibration.max_uncertainty]
    control = frame.header.control
    return {
        "mode": mode.name.lower(),
        "words": MODES[mode],
        "proposed_by": Mode(int(made.mode[row])).name.lower(),
        "proposal": by_action(made.proposal),
        "action": None if mode == Mode.REFUSED else by_action(decisions.action),
        "in_force": by_action(frame.applied),
        "fallback": by_action(made.fallback),
        "gate": gate_words(int(decisions.reasons[row])),
        "override": control.override_of(again.due.frame.entities[row]),
        "uncertainty": float(made.uncertainty[row]),
        "max_uncertainty": min((x for x in limits if x is not None), default=None),
        "returned": decisions.returned[row],
        "gain": float(made.gain[row]),
        "expected_next": {
            name: [float(mean), float(spread)]
            for name, mean, spread in zip(
                spec.columns, decisions.predicted[row], decisions.predicted_std[row], strict=True
            )
        },
        "tier": _tier(spec, int(decisions.tier[row])),
        "iterations": int(decisions.iterations[row]),
        "bundle": decisions.bundle,
    }


def _tier(spec: SystemSpec, number: int) -> str | None:
    return None if number < 0 else list(spec.budget.tiers)[number]


def _belief(spec: SystemSpec, again: Again) -> dict[str, Any]:
    row, frame, after_it = again.row, again.due.frame, again.answer.row
    bundle, ages = again.answer.bundle, frame.ages[again.row]
    channels = {channel.name: float(age) for channel, age in zip(spec.channels, ages, strict=True)}
    seen = {}
    for column, value in zip(spec.columns, frame.values[row], strict=True):
        age = channels.get(column.partition("[")[0])
        seen[column] = {"value": float(value), "age_s": age}
    return {
        "digest": after_it.digest,
        "trusted": bool(again.answer.believed[row]),
        "innovation": float(after_it.innovation[row]),
        "band": None if bundle is None else bundle.innovation_band,
        "strikes": int(after_it.strikes[row]),
        "observed": seen,
        "hidden": after_it.hidden[row],
        "mean": after_it.mean[row],
        "std": after_it.std[row],
    }


def _plan(
    spec: SystemSpec, asked: Asked, again: Again, origin: Again | None, accounts: list[Account]
) -> dict[str, Any]:
    """Which plan proposed, the searches behind it, and what came between them and this tick."""
    row, memory = again.row, again.answer.made.memory
    mode = Mode(int(again.answer.made.mode[row]))
    if mode not in (Mode.PLAN, Mode.FOLLOW):
        words = planned(spec, again.due.frame, again.answer, again.row, again.due.budget is None)
        return {"made_at": None, "words": words, "searches": []}
    made_at = int(memory.planned_at[row])
    out: dict[str, Any] = {
        "made_at": made_at,
        "ticks_ago": asked.tick - made_at,
        "length": int(memory.length[row]),
        "searches": [_search(spec, one) for one in accounts],
    }
    if origin is None:
        words = "the recording does not reach back to the tick at which it was made"
    elif origin is again:
        words = "made at this tick"
    elif accounts[-1].ahead:
        words = "made ahead, when the actions of its tick were out"
    else:
        words = "made at an earlier tick"
    since = (
        {} if origin is None or origin is again else {"since": _since(spec, asked, again, origin)}
    )
    return out | {"words": words} | since


def _since(spec: SystemSpec, asked: Asked, again: Again, origin: Again) -> dict[str, Any]:
    """What the plan expected of this tick when it was made, and what was seen."""
    bundle, posterior = origin.answer.bundle, origin.answer.posterior
    assert bundle is not None  # it planned
    assert posterior is not None
    key = (seed_of(bundle), asked.cohort, origin.due.frame.tick)
    rehearsal = Rehearsal(spec, bundle, posterior, origin.row, key)
    age = asked.tick - origin.due.frame.tick
    sequence = origin.accounts(spec, asked.tick)[-1].answer.sequence
    steps = _first(sequence, age)
    expected = rehearsal.spread(steps)[age - 1]
    seen = again.due.frame.values[again.row]
    return {
        column: {"expected": expected[i], "seen": float(seen[i])}
        for i, column in enumerate(spec.observed_columns)
    }


def _first(sequence: F64, steps: int) -> F64:
    """The first `steps` of `sequence` [T,A]; behind its end the last action repeats."""
    return sequence[np.minimum(np.arange(steps), len(sequence) - 1)]


def _search(spec: SystemSpec, one: Account) -> dict[str, Any]:
    content = asdict(one)
    content["actions"] = list(spec.action_columns)
    return content


def _future(spec: SystemSpec, one: Future) -> dict[str, Any]:
    content = asdict(one)
    content["channels"] = dict(
        zip(spec.observed_columns, one.channels.transpose(1, 0, 2), strict=True)
    )
    content["actions"] = dict(zip(spec.action_columns, one.sequence.T, strict=True))
    del content["sequence"]
    return content
