"""THE loop: encode → believe → plan → gate → publish; a pure `step`, and the agent around it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from planner import latch
from planner.budget import Budget, FreeBudget, RecordedBudget, Spent
from planner.critic import risk
from planner.draft import Plan
from planner.explore import explore
from planner.gate import Gated, gate
from planner.memory import PlannerMemory
from planner.plan import expect, plan, plan_ahead
from planner.planners import PLANNERS, Planners
from planner.session import Bundle, Posterior
from schemas.codes import Flag, Reason, Status
from schemas.frames import Frame
from schemas.system import SystemSpec
from schemas.trajectories import Decisions
from streams.belief import Row, index_of, update
from streams.desk import Desk

Mask = npt.NDArray[np.bool_]

# What the gate noted about the frame, the actuator's grid or the past is no verdict on a proposal.
_NO_VERDICT = np.uint32(~(Reason.LATE | Reason.ROUNDED | Reason.LATCHED) & 0xFFFFFFFF)
_OUT_OF_TIME = FreeBudget(0)


@dataclass(frozen=True)
class Answer:
    """What is decided about a frame, and what planning ahead goes on from.

    row: the belief after the frame, with the planner's memory as of now;  posterior: None without a
    model;  believed [E]: whose belief is planned on;  foreseen [E]: what the critic says, None
    without one;  latched [E]: who was when the gate decided;  made: the plan, with its verdict.
    """

    row: Row
    decisions: Decisions
    bundle: Bundle | None
    posterior: Posterior | None
    believed: Mask
    foreseen: npt.NDArray[np.float64] | None
    latched: Mask
    made: Plan


async def decide(stream: Any, desk: Desk) -> None:
    """Decides every frame of a Faust stream, in order, whatever happens to one of them.

    What leaves here is on its way only: `desk` has actions, trajectory and belief row confirmed one
    after the other before it acknowledges the frame, while the next one is decided.
    """
    async for event in stream.noack().events():
        began_ns = time.monotonic_ns()
        try:
            if desk.sheds(event):
                continue
            frame = desk.open(event)
            row = desk.row(event, frame)
            if is_repeated(row, frame):
                desk.repeated(event)
                continue
            row = await desk.turn(frame, row)
            bundle, budget = desk.bundle(frame), desk.budget(frame)
            try:
                answer = respond(desk.spec, bundle, row, frame, budget)
            except Exception as error:  # a model that fails leaves nobody without an answer
                await desk.report(event, error)
                answer = respond(desk.spec, None, row, frame, budget)
            acted = await desk.act(frame, answer.row, answer.decisions, began_ns)
            await desk.out(acted)
            try:
                row, decisions = prepare(desk.spec, frame, answer, desk.ahead(frame))
            except Exception as error:  # the actions are out, and are logged
                await desk.report(event, error)
                row, decisions = unprepared(desk.spec, frame, answer)
            await desk.publish(event, frame, row, decisions, acted)
        except Exception as error:  # Faust would acknowledge the event and restart the agent
            await desk.reject(event, error)


def is_repeated(row: Row | None, frame: Frame) -> bool:
    """Whether `frame` was done before, or comes from an aligner that another one has replaced."""
    return row is not None and (frame.tick <= row.tick or frame.header.epoch < row.epoch)


def step(
    spec: SystemSpec,
    bundle: Bundle | None,
    row: Row | None,
    frame: Frame,
    budget: Budget | None,
    ahead: Budget | None = None,
) -> tuple[Row, Decisions]:
    """What is believed after `frame`, and what is done about it. Pure: no Kafka, clock, or state.

    Args:
        spec: the system.
        bundle: the model; without one, or with another system's, the fallback acts.
        row: the cohort's row after its last frame; None for the first.
        frame: one cohort at one tick.
        budget: what planning may cost; None: the frame is too late to be planned on.
        ahead: what planning for the ticks after this one may cost; None: it is not done.
    """
    return prepare(spec, frame, respond(spec, bundle, row, frame, budget), ahead)


def respond(
    spec: SystemSpec,
    bundle: Bundle | None,
    row: Row | None,
    frame: Frame,
    budget: Budget | None,
    planners: Planners = PLANNERS,
) -> Answer:
    """The first half of `step`, which somebody waits for: all that is decided about `frame`."""
    if bundle is not None and not (frame.entities and _fits(spec, bundle)):
        bundle = None
    count, late = len(frame.entities), budget is None
    memory = _carry(spec, row, frame, "" if bundle is None else bundle.digest)
    after, posterior = Row.empty(frame, "", 0, 0), None
    believed = np.zeros(count, bool)
    if bundle is not None:
        after, posterior, anchored = update(spec, bundle, row, frame)
        believed = ~anchored
    seed, limit = seed_of(bundle), _OUT_OF_TIME if budget is None else budget
    made = plan(
        spec, bundle, posterior, frame, memory, limit, seed, believed=believed, planners=planners
    )
    if spec.explore is not None:
        made = replace(made, proposal=explore(spec, frame, made.proposal, made.mode))
    foreseen = None
    if bundle is not None and posterior is not None:
        foreseen = risk(spec, bundle, posterior, frame, made)
    latches = latch.rearmed(spec, frame, made.memory.latch)
    latched = latch.closed(spec, latches)
    gated = gated_of(spec, bundle, frame, made, believed, foreseen, latched, late)
    struck = latch.after(spec, frame, latches, gated.blamed)
    changed = (gated.reasons & _NO_VERDICT) != 0
    made = replace(made, memory=made.memory.after_gate(changed, struck))
    after = replace(after, memory=made.memory.arrays())
    decisions = _decisions(spec, frame, after, made, gated, late)
    if spec.gate.latch is not None:  # a replay of a twin that takes over asks for it
        began = {"latch": latch.logged(frame.entities, memory.latch)}
        decisions = replace(decisions, spent={**decisions.spent, **began})
    return Answer(after, decisions, bundle, posterior, believed, foreseen, latched, made)


def gated_of(
    spec: SystemSpec,
    bundle: Bundle | None,
    frame: Frame,
    made: Plan,
    believed: Mask,
    foreseen: npt.NDArray[np.float64] | None,
    latched: Mask,
    late: bool,
) -> Gated:
    """What the gate lets out of a plan for `frame`; arrays as in `Answer`."""
    return gate(
        spec,
        made.proposal,
        made.proposal if bundle is None else made.fallback,  # explored, where that is asked for
        frame,
        frame.applied,
        made.uncertainty,
        before=made.memory.before,
        mode=made.mode,
        believed=believed | (bundle is None),
        risk=foreseen,
        latched=latched,
        model=bundle is not None,
        late=late,
        max_uncertainty=None if bundle is None else bundle.manifest.calibration.max_uncertainty,
    )


def prepare(
    spec: SystemSpec,
    frame: Frame,
    answer: Answer,
    budget: Budget | None,
    planners: Planners = PLANNERS,
) -> tuple[Row, Decisions]:
    """The second half of `step`: what is expected, and plans for the ticks to come.

    The plans go into the row's planner memory. For a frame that was too late to be planned on there
    is neither: the frames behind it wait.
    """
    bundle, posterior = answer.bundle, answer.posterior
    if bundle is None or posterior is None or answer.decisions.spent["late"]:
        return unprepared(spec, frame, answer)
    seed, action = seed_of(bundle), answer.decisions.action
    mean, spread = expect(spec, bundle, posterior, frame, action, seed)
    row, decisions = unprepared(spec, frame, answer, predicted=mean, predicted_std=spread)
    if budget is None:
        return row, decisions
    memory, spent = plan_ahead(
        spec,
        bundle,
        posterior,
        frame,
        answer.made,
        action,
        budget,
        seed,
        believed=answer.believed,
        planners=planners,
    )
    if not spent.sizes:
        return row, decisions
    decisions = replace(decisions, spent={**decisions.spent, "ahead": spent.as_dict()})
    return replace(row, memory=memory.arrays()), decisions


def unprepared(
    spec: SystemSpec, frame: Frame, answer: Answer, **expected: Any
) -> tuple[Row, Decisions]:
    """What `step` gives where nothing is prepared, with what is `expected` beside it."""
    spent = {**answer.decisions.spent, "belief": answer.row.digest}
    reward = realised_reward(spec, frame)
    return answer.row, replace(answer.decisions, reward=reward, spent=spent, **expected)


def seed_of(bundle: Bundle | None) -> int:
    """The seed of all noise under a bundle; cohort, tick and purpose complete the key."""
    return 0 if bundle is None else int(bundle.digest[:15], 16)


def recorded(spent: Mapping[str, Any]) -> tuple[Budget | None, Budget | None]:
    """`budget` and `ahead` for a pinned replay of a frame whose decisions hold `spent`."""
    now = None if spent.get("late") else RecordedBudget(Spent.from_dict(spent))
    ahead = spent.get("ahead")
    return now, None if ahead is None else RecordedBudget(Spent.from_dict(ahead))


def _fits(spec: SystemSpec, bundle: Bundle) -> bool:
    return bundle.manifest.interface_hash == spec.interface_hash


def _carry(spec: SystemSpec, row: Row | None, frame: Frame, bundle: str) -> PlannerMemory:
    """The planner's memory for this frame's entities, without plans of another bundle."""
    if row is None:
        return PlannerMemory.fresh(spec, len(frame.entities)).at(spec, frame.applied)
    memory = PlannerMemory.from_arrays(row.memory)
    joined = (frame.flags & Flag.JOINED) != 0
    if row.entities != frame.entities or joined.any():
        index = index_of(row.entities, frame.entities)
        memory = memory.carry(spec, np.where(joined, -1, index))
    if row.bundle != bundle:
        memory = memory.forget_plans(np.ones(len(frame.entities), bool))
    ours = ~np.isin(frame.status, (Status.EXPIRED, Status.LOCAL_FALLBACK))
    ours &= (frame.flags & Flag.RESET) == 0
    return memory.at(spec, frame.applied, ours=ours, follows=frame.tick == row.tick + 1)


def _decisions(
    spec: SystemSpec, frame: Frame, row: Row, made: Plan, gated: Gated, late: bool
) -> Decisions:
    nothing = np.full((len(frame.entities), len(spec.columns)), np.nan, np.float32)
    return Decisions(
        proposal=made.proposal,
        action=gated.action,
        mode=gated.mode,
        reasons=gated.reasons,
        hidden=row.hidden,
        latent=row.mean,
        predicted=nothing,
        predicted_std=nothing,
        returned=made.returned,
        uncertainty=made.uncertainty,
        innovation=row.innovation,
        reward=np.full(len(frame.entities), np.nan, np.float32),
        tier=made.tier,
        iterations=made.iterations,
        group=made.group,
        bundle=row.bundle,
        spent={**made.spent.as_dict(), "late": late},
    )


def realised_reward(spec: SystemSpec, frame: Frame) -> npt.NDArray[np.float32]:
    """[E] reward of the transition that ends at this tick; NaN where there was none, or no rule."""
    count = len(frame.entities)
    if spec.reward is None:
        return np.full(count, np.nan, np.float32)
    columns = dict(zip(spec.columns, frame.values.T, strict=True))
    columns |= dict(zip(spec.action_columns, frame.applied.T, strict=True))
    begun = (frame.flags & (Flag.JOINED | Flag.RESET)) != 0
    reward = np.broadcast_to(spec.reward.numpy(columns), count)
    return np.where(begun, np.nan, reward).astype(np.float32)
