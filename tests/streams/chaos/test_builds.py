"""Each invariant, and a build that breaks it on purpose: the checker finds it by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.codes import Status
from schemas.frames import Frame
from schemas.messages import Action, Applied
from schemas.trajectories import Decisions
from streams.actuator_state import NEVER, ActuatorState, Report
from streams.align import Aligner
from streams.chaos.checker import INVARIANTS
from streams.decide import step
from streams.sink_table import Reports
from tests.streams.chaos.world import ROBOTS, TICKS, Build, Lab, Run


class AppliesAgain(ActuatorState):
    """Forgets which tick it has answered."""

    def offer(self, action: Action, now_us: int, arrived_ns: int = 0) -> Report | None:
        self._last = [NEVER] * len(self._last)
        return super().offer(action, now_us, arrived_ns)


class AnswersBackwards(ActuatorState):
    """Takes what is older than what it has answered."""

    def offer(self, action: Action, now_us: int, arrived_ns: int = 0) -> Report | None:
        older = action.tick - 1
        self._last = [older if last > action.tick else last for last in self._last]
        return super().offer(action, now_us, arrived_ns)


class AppliesLate(ActuatorState):
    """Does not look at `valid_until`."""

    def offer(self, action: Action, now_us: int, arrived_ns: int = 0) -> Report | None:
        patient = msgspec.structs.replace(action, valid_until=2**60)
        return super().offer(patient, now_us, arrived_ns)


class DropsReadings(Aligner):
    """Loses one reading of a sensor in ten, and its tick goes without."""

    def readings(self, sensor: str, entity: Any, time_us: Any, values: Any, *where: Any) -> None:
        keep = np.ones(len(time_us), bool)
        keep[::10] = False
        some = {name: value[keep] for name, value in values.items()}
        super().readings(sensor, entity[keep], time_us[keep], some, *where)


class DropsFrames(Aligner):
    """Loses the frames of one tick."""

    def close(self, now_us: int | None = None) -> Any:
        return [frame for frame in super().close(now_us) if frame.tick != 12]


class CountsAll(Reports):
    """Marks every attempt as the one that was applied."""

    def mark(self, spec: Any, frame: Any) -> Any:
        status, mine = super().mark(spec, frame)
        return status, np.ones_like(mine)


class CountsNone(Reports):
    """Never heard that anything was applied."""

    def add(self, applied: Applied, stamp_ms: int) -> None:
        super().add(msgspec.structs.replace(applied, status=int(Status.EXPIRED)), stamp_ms)


def forgetful(spec: Any, bundle: Any, row: Any, frame: Any, *budgets: Any) -> Any:
    """Loses its belief at a tick, as where a store was lost."""
    return step(spec, bundle, None if frame.tick == 15 else row, frame, *budgets)


def stuck(spec: Any, bundle: Any, row: Any, frame: Any, *budgets: Any) -> Any:
    """Goes on from an older belief, as a worker whose partition was taken away meanwhile."""
    after, decisions = step(spec, bundle, row, frame, *budgets)
    return (row if frame.tick == 15 else after), decisions


def unlimited(spec: Any, bundle: Any, row: Any, frame: Any, *budgets: Any) -> Any:
    """Its gate knows of no rate."""
    after, decisions = step(spec, bundle, row, frame, *budgets)
    far = np.where(frame.tick % 2, spec.action_low, spec.action_high)
    return after, replace(decisions, action=np.broadcast_to(far, decisions.action.shape))


def unbounded(spec: Any, bundle: Any, row: Any, frame: Any, *budgets: Any) -> Any:
    """Its gate knows of no range."""
    after, decisions = step(spec, bundle, row, frame, *budgets)
    return after, replace(decisions, action=decisions.action + 3.0)


def misquoted(frame: Frame, decisions: Decisions) -> Decisions:
    """A worker that logs other actions than it sends."""
    return replace(decisions, action=decisions.action * 0.5 + 0.01)


def silent(frame: Frame, decisions: Decisions) -> Decisions | None:
    """A worker that does not log what it decided at a tick."""
    return None if frame.tick == 15 else decisions


def slow_at(tick: int, us: int) -> Callable[[int], int]:
    return lambda at: us if at == tick else 1_000


BROKEN = [
    (Build(actuator=AppliesAgain), {"once", "first"}),
    (Build(actuator=AnswersBackwards, delayed=15), {"order"}),
    (Build(newest_first=True), {"first"}),
    (Build(actuator=AppliesLate, arrives_us=slow_at(9, 900_000)), {"stale"}),
    (Build(aligner=DropsReadings), {"input"}),
    (Build(aligner=DropsFrames), {"input", "frames"}),
    (Build(step=forgetful), {"belief"}),
    (Build(step=stuck), {"belief"}),
    (Build(step=unlimited), {"envelope"}),
    (Build(step=unbounded), {"envelope"}),
    (Build(reports=CountsAll), {"counted"}),
    (Build(reports=CountsNone), {"counted"}),
    (Build(logs=misquoted), {"trajectory"}),
    (Build(logs=silent), {"trajectory"}),
    (Build(stores=lambda frames: frames[:7] + frames[8:]), {"stored"}),
    (Build(stores=lambda frames: [*frames, frames[7]]), {"stored"}),
    (Build(sheds=(12,), tells=lambda first, end: None), {"input"}),
    (Build(sheds=(12,), tells=lambda first, end: (first, max(first + 1, end - 2))), {"input"}),
    (Build(sheds=(12,), tells=lambda first, end: (min(first + 1, end - 1), end)), {"input"}),
    (Build(sheds=(12,), tells=lambda first, end: (first, end + 10_000)), {"shed", "input"}),
    (Build(sheds=(12,), tells=lambda first, end: (end, first)), {"shed", "input"}),
    (Build(sheds=(12,), counts=False), {"input"}),
    (Build(passes=(12,), tells=lambda first, end: None), {"trajectory", "belief"}),
    (Build(passes=(12,), tells=lambda first, end: (first - 1, end - 1)), {"trajectory", "belief"}),
]


@pytest.mark.parametrize(
    ("build", "broken"),
    BROKEN,
    ids=lambda value: None if isinstance(value, Build) else "+".join(sorted(value)),
)
def test_a_broken_build_is_caught(lab: Lab, build: Build, broken: set[str]) -> None:
    assert set(lab.of_build(build).counts) == broken


def test_each_invariant_has_a_build_that_breaks_it() -> None:
    """`recovery` is found by whoever runs the loop: see `test_run`."""
    assert set().union(*(broken for _, broken in BROKEN)) == set(INVARIANTS) - {"recovery"}


def test_an_actuator_that_gets_an_older_action_late_does_not_answer_it(lab: Lab) -> None:
    verdict = lab.of_build(Build(delayed=15))
    assert verdict.counts == {}
    assert verdict.figures["applied"] == (TICKS - 1) * ROBOTS


# what was passed over


def test_who_applies_nothing_any_more_waits_to_the_end(lab: Lab) -> None:
    verdict = lab.of_build(Build(arrives_us=lambda tick: 900_000 if tick >= 14 else 1_000))
    assert verdict.violations == 0
    assert verdict.figures["applied"] == 14 * ROBOTS
    assert min(verdict.gaps_ms.values()) >= 100 * (TICKS - 14) + 800


def test_readings_that_were_passed_over_and_told_are_no_loss(lab: Lab) -> None:
    verdict = lab.of_build(Build(sheds=(12, 13)))
    assert verdict.counts == {}
    assert verdict.figures["readings_shed"] == 2 * ROBOTS * 2 + ROBOTS // 2 * 2
    assert verdict.reasons["shed"] == verdict.figures["ranges_shed"] > 0


def test_a_range_may_hold_readings_that_are_in_a_frame_all_the_same(lab: Lab) -> None:
    """As after a restart before it, when there was time for all."""
    verdict = lab.of_build(Build(sheds=(12,), tells=lambda first, end: (max(0, first - 9), end)))
    assert verdict.counts == {}
    assert verdict.figures["readings_shed"] <= 3 * ROBOTS


def test_nothing_is_passed_over_under_the_event_clock(lab: Lab) -> None:
    log = Run(lab.spec, lab.bundle, Build(sheds=(12,))).go()
    assert set(lab.verdict(replace(log, clock="event")).counts) == {"shed", "input"}


def test_frames_that_were_passed_over_and_told_need_no_decision(lab: Lab) -> None:
    verdict = lab.of_build(Build(passes=(12, 13)))
    assert verdict.counts == {}
    assert verdict.figures["frames_shed"] == 2 * lab.spec.cohorts
    assert set(verdict.gaps_ms.values()) == {300}


def test_a_run_without_any_applied_action_is_told_from_one_that_held(lab: Lab) -> None:
    verdict = lab.of_build(Build(arrives_us=lambda tick: 900_000))
    assert (verdict.violations, verdict.outcome) == (0, "idle")


def test_late_actions_are_no_violation_where_they_expire(lab: Lab) -> None:
    verdict = lab.of_build(Build(arrives_us=slow_at(9, 900_000)))
    assert verdict.violations == 0
    assert verdict.figures["expired"] == ROBOTS
    assert set(verdict.gaps_ms.values()) == {200}
