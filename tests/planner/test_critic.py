"""The learned critic: the worst of members and ticks, of what is proposed; absent where it must."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.budget import FreeBudget
from planner.critic import risk
from planner.draft import Plan
from planner.manifest import BundleError
from planner.memory import PlannerMemory
from planner.plan import plan
from planner.session import Bundle, Posterior
from schemas.codes import Mode
from schemas.frames import Frame
from schemas.system import SystemSpec, parse_spec
from tests.planner.worlds import double_integrator, make_bundle, make_frame
from tests.support import shipped_text

GAINS = (0.5, 1.0, 0.75, 1.0, 0.25)  # the worst member feels all of it


def spec_with(ticks: int = 3) -> SystemSpec:
    return parse_spec(shipped_text("nav2d", gate={"critic": {"max_risk": 0.5, "ticks": ticks}}))


SPEC = spec_with()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    world = double_integrator(gains=GAINS, risk=np.array([0.5, 0.0]))
    return make_bundle(tmp_path_factory.mktemp("critic"), SPEC, world)


def situation(bundle: Bundle, mode: Mode, proposal: Any) -> tuple[Frame, Posterior, Plan]:
    frame = make_frame(SPEC, np.zeros((2, 6)), tick=7)
    flat = np.zeros((2, 6), np.float32)
    posterior = bundle.believe(flat, np.zeros((2, 2), np.float32), flat[:, :2], flat, flat + 1)
    memory = PlannerMemory.fresh(SPEC, 2)
    made = plan(SPEC, bundle, posterior, frame, memory, FreeBudget(0), 1)
    sequence = np.zeros_like(made.memory.sequence)
    sequence[0, :4, 0] = [0.1, 0.2, 0.4, 0.9]  # from tick 6 on
    memory = replace(
        made.memory,
        sequence=sequence,
        planned_at=np.array([6, 6]),
        length=np.array([4, 4], np.int32),
    )
    modes = np.full(2, mode, np.uint8)
    return frame, posterior, replace(made, proposal=proposal, mode=modes, memory=memory)


@pytest.mark.parametrize(
    ("ticks", "mode", "expected"),
    [
        (1, Mode.FOLLOW, 0.1),
        (2, Mode.FOLLOW, 0.2),
        (3, Mode.PLAN, 0.45),  # what the plan comes to
        (3, Mode.ACTOR, 0.1),  # as if it stayed
    ],
)
def test_it_looks_at_what_follows(bundle: Bundle, ticks: int, mode: Mode, expected: float) -> None:
    frame, posterior, made = situation(bundle, mode, np.array([[0.2, 1.0], [0.0, 1.0]]))
    found = risk(spec_with(ticks), bundle, posterior, frame, made)
    assert found is not None
    assert found == pytest.approx([expected, 0.0], abs=1e-6)


def test_what_is_not_finite_is_for_the_gate_to_find(bundle: Bundle) -> None:
    frame, posterior, made = situation(bundle, Mode.ACTOR, np.array([[np.nan, np.inf], [1.0, 0.0]]))
    found = risk(SPEC, bundle, posterior, frame, made)
    assert found is not None
    assert found == pytest.approx([0.0, 0.5])


def test_without_a_critic_there_is_no_risk(bundle: Bundle, tmp_path: Path) -> None:
    frame, posterior, made = situation(bundle, Mode.PLAN, np.ones((2, 2)))
    assert risk(parse_spec(shipped_text("nav2d")), bundle, posterior, frame, made) is None
    bare = make_bundle(tmp_path, SPEC, double_integrator())
    assert not bare.foresees
    assert risk(SPEC, bare, posterior, frame, made) is None
    with pytest.raises(BundleError, match=r"no cost\.onnx; ask foresees first"):
        bare.cost(*[np.zeros((1, 1, 1), np.float32)] * 4)


def test_a_critic_of_other_constraints_is_not_asked(bundle: Bundle) -> None:
    frame, posterior, made = situation(bundle, Mode.PLAN, np.ones((2, 2)))
    other = parse_spec(
        shipped_text("nav2d", gate={"critic": {"max_risk": 0.5}}).replace("<= 15", "<= 14")
    )
    assert risk(other, bundle, posterior, frame, made) is None
