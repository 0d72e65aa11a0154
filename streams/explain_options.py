"""What could have been done instead at a decision, as sequences that the gate would let out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from planner.account import Account
from planner.draft import YOUNG
from planner.memory import NEVER
from planner.policy import actor, driven
from planner.sequences import executable
from planner.what_if import Alternative
from schemas.codes import Mode
from schemas.frames import Frame
from schemas.system import SystemSpec
from streams.decide import Answer, gated_of
from streams.explain_words import gate_words

F64 = npt.NDArray[np.float64]
_PLANNED = (Mode.PLAN, Mode.FOLLOW)


def horizon_of(spec: SystemSpec, answer: Answer, row: int, accounts: Sequence[Account]) -> int:
    """Ticks to look ahead: as far as the plan that proposed did, else as the longest tier does."""
    if accounts:
        return accounts[-1].horizon
    if int(answer.made.mode[row]) in _PLANNED:
        return int(answer.made.memory.length[row])
    return max(tier.horizon for tier in spec.budget.tiers.values())


def alternatives(
    spec: SystemSpec,
    frame: Frame,
    answer: Answer,
    row: int,
    horizon: int,
    accounts: Sequence[Account],
    what_if: Sequence[Mapping[str, float]],
) -> tuple[list[Alternative], list[str]]:
    """What was decided, first, and what else could have been; and in words what there was not.

    Args:
        frame, answer, row: the decision, and where the entity stands in it.
        horizon: T of the sequences.
        accounts: of the searches behind the plan that proposed, the last one last.
        what_if: values by action column, as an operator would have set them.
    """
    options = _Options(spec, frame, answer, row, horizon)
    found, left_out = [options.decided()], list[str]()
    final, made = Mode(int(answer.decisions.mode[row])), Mode(int(answer.made.mode[row]))
    if final != made or not np.array_equal(answer.made.proposal[row], options.action):
        proposed = options.proposal()
        if not np.array_equal(proposed.sequence, found[0].sequence):  # more than rounded
            found.append(proposed)
    if np.isnan(frame.applied[row]).any():
        left_out.append("hold: the value in force was not known")
    else:
        found.append(options.held("hold", "the value in force, held", frame.applied[row]))
    action = answer.made.fallback[row]
    found.append(options.held("fallback", "the fallback's value of this tick, held", action))
    second = accounts[-1].second if accounts else None
    if not accounts:
        left_out.append("second best: there is no search behind this")
    elif second is None:
        left_out.append("second best: all finalists of the search are the same sequence")
    else:
        found.append(options.second(second.name, second.sequence))
    if final != Mode.ACTOR and (driving := options.actor()) is not None:
        found.append(driving)
    for values in what_if:
        one, words = options.given(values)
        found += [] if one is None else [one]
        left_out += [] if one is not None else [words]
    return found, left_out


class _Options:
    """Sequences [T,A] for one entity from the value in force on."""

    def __init__(
        self, spec: SystemSpec, frame: Frame, answer: Answer, row: int, horizon: int
    ) -> None:
        self.spec, self.frame, self.answer = spec, frame, answer
        self.row, self.horizon = row, horizon
        self.action: F64 = answer.decisions.action[row]
        self.made = answer.made
        self.mode = Mode(int(answer.decisions.mode[row]))

    def decided(self) -> Alternative:
        """What left the gate, and after it what was planned."""
        if self.mode == Mode.REFUSED:
            applied, safe = self.frame.applied[self.row], self.made.fallback[self.row]
            held = np.where(np.isnan(applied), safe, applied)
            return self.held("decided", "nothing was published: the value in force, held", held)
        if self.mode in _PLANNED:
            sequence = self.made.memory.ahead(self.frame.tick, self.horizon)[self.row].copy()
            sequence[0] = self.action
            return self._sequence(
                "decided", "the plan, from the action that left the gate", sequence
            )
        driving = self.actor() if self.mode == Mode.ACTOR else None
        if driving is not None:
            words = "the actor: what it would go on to do"
            sequence = driving.sequence.copy()
            sequence[0] = self.action
            return self._sequence("decided", words, sequence)
        return self.held("decided", "the action that left the gate, held", self.action)

    def proposal(self) -> Alternative:
        """What the gate changed."""
        words = "what was proposed to the gate"
        first = np.where(np.isfinite(self.made.proposal), self.made.proposal, self.made.fallback)
        if int(self.made.mode[self.row]) in _PLANNED:
            sequence = self.made.memory.ahead(self.frame.tick, self.horizon)[self.row].copy()
            sequence[0] = first[self.row]
            return self._sequence("proposal", words + ", as far as it can be executed", sequence)
        return self.held("proposal", words + ", held, as far as it can be", first[self.row])

    def second(self, name: str, sequence: F64) -> Alternative:
        """The second best finalist of the search that made the plan, from this tick on."""
        since = self.frame.tick - int(self.made.memory.planned_at[self.row])
        later = np.minimum(since + np.arange(self.horizon), len(sequence) - 1)
        return self._sequence("second best", f"of the finalists: {name}", sequence[later])

    def actor(self) -> Alternative | None:
        """What the actor would do; None where none is trusted."""
        bundle, posterior = self.answer.bundle, self.answer.posterior
        assert bundle is not None  # else nothing is imagined
        assert posterior is not None
        first = actor(self.spec, bundle, posterior)
        if first is None or not np.isfinite(first[self.row]).all():
            return None
        if not bundle.drives:
            return self.held("actor", "the actor's action, held", first[self.row])
        sequence = driven(self.spec, bundle, posterior, first, self.horizon)[self.row]
        return self._sequence("actor", "what the actor would do, now and after", sequence)

    def given(self, values: Mapping[str, float]) -> tuple[Alternative | None, str]:
        """`values` as an operator's, through the gate of this tick; None where it refuses."""
        name = ", ".join(f"{column}={value:g}" for column, value in values.items())
        control, entity = self.frame.header.control, self.frame.entities[self.row]
        asked = {**control.override_of(entity), **values}
        overrides = {**control.overrides, entity: asked}
        header = replace(self.frame.header, control=replace(control, overrides=overrides))
        frame, late = replace(self.frame, header=header), self.answer.decisions.spent["late"]
        answer = self.answer
        gated = gated_of(
            *(self.spec, answer.bundle, frame, self.made, answer.believed),
            *(answer.foreseen, answer.latched, late),
        )
        noted = [w for w in gate_words(int(gated.reasons[self.row])) if w["reason"] != "override"]
        said = "; ".join(item["words"] for item in noted) or "let out as it is"
        if not gated.published[self.row]:
            return None, f"{name}: the gate would have refused it ({said})"
        out = gated.action[self.row]
        let = ", ".join(
            f"{c}={v:.4g}" for c, v in zip(self.spec.action_columns, out.tolist(), strict=True)
        )
        words = f"by hand, held over the horizon. The gate: {said} ({let})"
        return self.held(name, words, out), ""

    def held(self, name: str, words: str, value: F64) -> Alternative:
        """One value over the horizon."""
        return self._sequence(name, words, np.repeat(value[None], self.horizon, axis=0))

    def _sequence(self, name: str, words: str, sequence: F64) -> Alternative:
        applied, before = (
            self.frame.applied[self.row][None],
            self.made.memory.before[self.row][None],
        )
        possible = executable(self.spec, applied, sequence[None, None], before)
        return Alternative(name, words, possible[0, 0])


def planned(spec: SystemSpec, frame: Frame, answer: Answer, row: int, late: bool) -> str:
    """Why no plan proposed."""
    entity, control, memory = frame.entities[row], frame.header.control, answer.made.memory
    if answer.bundle is None:
        return "no plan: there was no bundle that fits the spec, so the fallback decided"
    if late:
        return "no plan: the frame came too late to be planned on"
    if not answer.believed[row]:
        return "no plan: the belief was rebuilt at this tick, and is not planned on"
    if control.holds_entity(entity) or control.override_of(entity):
        return "no plan: an operator had this entity in hand"
    if memory.planned_at[row] == NEVER:
        return "no plan: the budget did not reach this entity, and it had no plan to follow"
    age, length = int(memory.age(frame.tick)[row]), int(memory.length[row])
    if age > YOUNG * length:
        return (
            f"no plan: the budget did not reach this entity, and its last plan, {age} ticks old, "
            f"was past {YOUNG:.0%} of its {length} ticks"
        )
    innovation, band = float(answer.row.innovation[row]), answer.bundle.innovation_band
    return (
        "no plan: the budget did not reach this entity, and its last plan was given up, as the "
        f"world did not do what was expected (innovation {innovation:.3g}, band {band:.3g})"
    )
