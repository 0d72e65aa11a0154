"""The pure step: the same frames give the same beliefs and actions, whoever computes them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.budget import FreeBudget
from planner.gate import envelope
from planner.memory import PlannerMemory
from planner.session import Bundle
from schemas.codes import Flag, Mode, Reason, Status
from schemas.frames import ControlView, Frame, decode_frame, encode_frame
from schemas.system import SystemSpec, load_spec, parse_spec
from schemas.trajectories import Decisions, decode_trajectory, encode_trajectory
from streams.belief import Row, decode_row, encode_row
from streams.decide import is_repeated, realised_reward, recorded, step
from tests.planner.worlds import double_integrator, edited, make_bundle, make_frame
from tests.support import shipped_text

TIERS = {
    "shallow": {"candidates": 10, "horizon": 4, "iterations": 1},
    "deep": {"candidates": 20, "horizon": 6, "iterations": 2},
}
SPEC = parse_spec(shipped_text("nav2d", budget={"tiers": TIERS}))
N = 6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    world = double_integrator(noise=0.05)
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(SPEC.columns)}
    folder = tmp_path_factory.mktemp("bundle")
    return make_bundle(folder, SPEC, world, calibration=calibration)


def frames(ticks: int, count: int = N, seed: int = 3, missing: float = 0.2) -> list[Frame]:
    """Positions, velocities and goals; some readings are missing, but never in the first frame."""
    rng = np.random.default_rng(seed)
    made = []
    values = rng.uniform(-4, 4, (count, len(SPEC.columns)))
    for tick in range(ticks):
        values = values + 0.1 * rng.normal(size=values.shape)
        seen = np.where(rng.random(values.shape) < (missing if tick else 0), np.nan, values)
        made.append(make_frame(SPEC, seen, tick=tick, applied=rng.uniform(-1, 1, (count, 2))))
    return made


def run(
    bundle: Bundle | None, made: list[Frame], row: Row | None = None, spec: SystemSpec = SPEC
) -> tuple[list[Row], list[Decisions]]:
    rows, decided = [], []
    for frame in made:
        row, decisions = step(spec, bundle, row, frame, FreeBudget(1))
        rows.append(row)
        decided.append(decisions)
    return rows, decided


def assert_same(a: Decisions, b: Decisions) -> None:
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)
        else:
            assert value == getattr(b, name), name


def test_the_same_frames_give_the_same_decisions_bit_for_bit(bundle: Bundle) -> None:
    made = frames(5)
    rows, decided = run(bundle, made)
    again_rows, again = run(bundle, [decode_frame(SPEC, encode_frame(SPEC, f)) for f in made])
    assert [row.digest for row in rows] == [row.digest for row in again_rows]
    for a, b in zip(decided, again, strict=True):
        assert_same(a, b)
    assert (decided[-1].mode == Mode.PLAN).all()


def test_a_bundle_limits_how_far_its_members_may_be_apart(tmp_path: Path) -> None:
    gate = SPEC.gate.model_copy(update={"max_uncertainty": None})
    free = SPEC.model_copy(update={"gate": gate})
    world = double_integrator(noise=0.05, gains=(0.5, 0.8, 1.0, 1.2, 1.5))
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(SPEC.columns)}
    made = frames(2)
    unlimited = make_bundle(tmp_path / "a", SPEC, world, calibration=calibration)
    decided = run(unlimited, made, spec=free)[1][-1]
    assert (decided.mode == Mode.PLAN).all()
    middle = float(np.sort(decided.uncertainty)[N // 2 - 1])
    limit = {"max_uncertainty": middle}
    limited = make_bundle(tmp_path / "b", SPEC, world, calibration=calibration | limit)
    answered = run(limited, made, spec=free)[1][-1]
    doubted = answered.uncertainty > middle
    assert 0 < doubted.sum() < N
    np.testing.assert_array_equal((answered.reasons & Reason.UNCERTAIN) != 0, doubted)
    np.testing.assert_array_equal(answered.mode == Mode.FALLBACK, doubted)


def test_acceleration_counts_from_the_last_two_frames(bundle: Bundle) -> None:
    text, old = shipped_text("nav2d", budget={"tiers": TIERS}), "    fallback: 0\n"
    assert text.count(old) == 1
    spec = parse_spec(text.replace(old, f"{old}    accel: {{up: 0.05, down: 0.05}}\n"))
    made = frames(5)
    rows, decided = run(bundle, made, spec=spec)
    for before, now, decisions in zip(made, made[1:], decided[1:], strict=False):
        low, high = envelope(spec, now.applied, before.applied)
        assert ((decisions.action >= low) & (decisions.action <= high)).all()
        assert not decisions.reasons.any()  # plans keep to it of themselves
    bare, alone = run(None, made, spec=spec)  # the fallback does not
    assert [bool((d.action != d.proposal).any()) for d in alone] == [False, *[True] * 4]
    _, gap = step(spec, None, bare[1], made[4], None)  # frames 2 and 3 never came
    np.testing.assert_array_equal(gap.action, gap.proposal)
    _, resumed = run(bundle, made[3:], decode_row(encode_row(rows[2])), spec)
    for a, b in zip(decided[3:], resumed, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("how", ["expired", "local fallback", "reset"])
def test_a_jump_that_was_not_ours_is_not_gone_on_with(how: str) -> None:
    """An actuator's own fallback stopped it: ours may hold it there, whatever it did before."""
    text, old = shipped_text("nav2d", budget={"tiers": TIERS}), "    fallback: 0\n"
    spec = parse_spec(text.replace(old, f"{old}    accel: {{up: 0.2, down: 0.2}}\n"))
    control = ControlView(overrides={"*": {"acceleration[0]": 0.0, "acceleration[1]": 0.0}})
    states = np.tile([5.0, 0, 0, 0, 0, 0], (1, 1))
    first = make_frame(spec, states, tick=0, applied=[[0.9, 0.0]], control=control)
    ours = make_frame(spec, states, tick=1, applied=[[0.0, 0.0]], control=control)
    other = replace(ours, status=np.full(1, Status.EXPIRED, np.uint8))
    if how == "reset":
        other = replace(ours, flags=np.full(1, Flag.RESET, np.uint8))
    elif how == "local fallback":
        other = replace(ours, status=np.full(1, Status.LOCAL_FALLBACK, np.uint8))
    row, _ = step(spec, None, None, first, None)
    assert step(spec, None, row, other, None)[1].action.tolist() == [[0.0, 0.0]]
    gone_on = step(spec, None, row, ours, None)[1].action
    assert gone_on[0, 0] == pytest.approx(-0.7), "as a change of ours would"


def test_a_stored_row_goes_on_as_if_nothing_had_happened(bundle: Bundle) -> None:
    made = frames(6)
    rows, decided = run(bundle, made)
    _, resumed = run(bundle, made[3:], decode_row(encode_row(rows[2])))
    for a, b in zip(decided[3:], resumed, strict=True):
        assert_same(a, b)


class Twice:
    """A budget with its own mind: three iterations for the first group, one for the second."""

    def some(self) -> bool:
        return True

    def more(self, group: int, iteration: int, work: float) -> bool:
        return iteration < (3, 1)[group] if group < 2 else False


def test_a_replay_spends_what_the_log_says(bundle: Bundle) -> None:
    made = frames(3)
    row = run(bundle, made[:2])[0][-1]
    _, live = step(SPEC, bundle, row, made[2], Twice())
    logged = decode_trajectory(SPEC, encode_trajectory(SPEC, made[2], live)).decisions
    _, replayed = step(SPEC, bundle, row, made[2], *recorded(logged.spent))
    assert_same(live, replayed)
    _, other = step(SPEC, bundle, row, made[2], FreeBudget(0))
    assert not np.array_equal(other.action, live.action)


def test_planning_ahead_changes_no_answer_but_the_next(bundle: Bundle) -> None:
    made = frames(4)
    row = run(bundle, made[:2])[0][-1]
    nothing = FreeBudget(0)
    idle, answer = step(SPEC, bundle, row, made[2], nothing)
    busy, same_answer = step(SPEC, bundle, row, made[2], nothing, Twice())
    np.testing.assert_array_equal(answer.action, same_answer.action)
    assert idle.digest == busy.digest
    assert len(same_answer.spent["ahead"]["sizes"]) == 2

    memory = PlannerMemory.from_arrays(busy.memory)
    prepared = memory.planned_at == made[2].tick
    assert prepared.all()
    np.testing.assert_array_equal(memory.sequence[prepared, 0], answer.action[prepared])
    _, following = step(SPEC, bundle, busy, made[3], nothing)
    assert (following.mode[prepared] == Mode.FOLLOW).all()
    np.testing.assert_array_equal(following.proposal[prepared], memory.sequence[prepared, 1])

    logged = decode_trajectory(SPEC, encode_trajectory(SPEC, made[2], same_answer)).decisions
    again, _ = step(SPEC, bundle, row, made[2], *recorded(logged.spent))
    for name, array in busy.memory.items():
        np.testing.assert_array_equal(again.memory[name], array, err_msg=name)


def test_the_belief_does_not_depend_on_budget_or_control(bundle: Bundle) -> None:
    made = frames(4)
    held = ControlView(holds=("*",), budget="shallow")
    touched = [replace(f, header=replace(f.header, control=held)) for f in made]
    plain = run(bundle, made)[0]
    other = run(bundle, touched)[0]
    assert [row.digest for row in plain] == [row.digest for row in other]
    row = None
    for frame, expected in zip(made, plain, strict=True):
        row, _ = step(SPEC, bundle, row, frame, None)
        assert row.digest == expected.digest


def test_first_frame_falls_back_and_says_why(bundle: Bundle) -> None:
    _, decided = run(bundle, frames(2))
    assert (decided[0].mode == Mode.FALLBACK).all()
    assert (decided[0].reasons & Reason.NO_BELIEF).all()
    assert not (decided[1].reasons & Reason.NO_BELIEF).any()


def test_late_frames_update_the_belief_and_are_not_planned_on(bundle: Bundle) -> None:
    made = frames(4)
    row = run(bundle, made[:3])[0][-1]
    after, late = step(SPEC, bundle, row, made[3], None)
    assert (late.reasons & Reason.LATE).all()
    assert not (late.mode == Mode.PLAN).any()
    assert (late.tier == -1).all()
    assert recorded(late.spent) == (None, None)
    assert np.isnan(late.predicted).all()  # which takes half of the time
    assert np.isfinite(late.action).all()
    assert after.tick == 3
    assert after.digest != row.digest


def test_without_a_bundle_the_fallback_brakes() -> None:
    made = frames(3, missing=0.0)
    rows, decided = run(None, made)
    assert rows[-1].bundle == ""
    assert (decided[-1].mode == Mode.FALLBACK).all()
    assert (decided[-1].reasons & Reason.NO_MODEL).all()
    velocity = made[-1].values[:, 2:4]
    np.testing.assert_allclose(decided[-1].action, np.clip(-2.0 * velocity, -1, 1))


def test_an_entity_that_is_latched_stays_with_the_fallback_until_rearmed(tmp_path: Path) -> None:
    limits = {"max_uncertainty": 0.5, "latch": {"count": 2, "of": 2, "on": ["uncertain"]}}
    spec = parse_spec(shipped_text("nav2d", budget={"tiers": TIERS}, gate=limits))
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(SPEC.columns)}
    world = double_integrator(noise=0.05, gains=(0.98, 0.99, 1.0, 1.01, 1.02))
    sure = make_bundle(tmp_path / "a", spec, world, calibration=calibration)
    unsure = make_bundle(
        tmp_path / "b", spec, world, calibration=calibration | {"max_uncertainty": 1e-9}
    )
    made = frames(9)
    rows, decided = run(unsure, made[:4], spec=spec)  # the first tick anchors: two more, and closed
    latched = [(d.reasons & Reason.LATCHED != 0).all() for d in decided]
    assert latched == [False, False, False, True]
    assert (decided[3].reasons & Reason.UNCERTAIN).all(), "the checks before it still look"
    rows, decided = run(sure, made[4:7], rows[-1], spec)
    assert all((d.reasons & Reason.LATCHED).all() for d in decided)
    assert all((d.mode == Mode.FALLBACK).all() for d in decided)
    assert set(decided[-1].spent["latch"]) == set(made[0].entities)
    assert not PlannerMemory.from_arrays(rows[-1].memory).gated.any(), "a latch is no verdict"
    logged = decode_trajectory(spec, encode_trajectory(spec, made[6], decided[-1])).decisions
    assert logged.spent["latch"] == decided[-1].spent["latch"]

    header = replace(made[7].header, control=ControlView(rearms={"e001": 1}))
    frame = decode_frame(spec, encode_frame(spec, replace(made[7], header=header)))
    _, answer = step(spec, sure, decode_row(encode_row(rows[-1])), frame, FreeBudget(1))
    assert answer.mode.tolist() == [Mode.PLAN if i == 1 else Mode.FALLBACK for i in range(N)]
    assert not answer.reasons[1]


def test_what_the_critic_foresees_decides_who_falls_back(tmp_path: Path) -> None:
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(SPEC.columns)}
    world = double_integrator(noise=0.05, risk=np.array([-0.5, 0.0]))
    watched = make_bundle(tmp_path, SPEC, world, calibration=calibration)
    free = run(watched, frames(2))[1][1]
    assert (free.mode == Mode.PLAN).all()
    foreseen = np.maximum(-0.5 * free.proposal[:, 0], 0.0)
    middle = float(np.unique(foreseen)[-2:].mean())  # between the two largest
    limit = {"critic": {"max_risk": middle}}
    spec = parse_spec(shipped_text("nav2d", budget={"tiers": TIERS}, gate=limit))
    decided = run(watched, frames(2), spec=spec)[1]
    risky = foreseen > middle
    assert 0 < risky.sum() < N
    np.testing.assert_array_equal((decided[1].reasons & Reason.SAFETY) != 0, risky)
    np.testing.assert_array_equal(decided[1].mode == Mode.FALLBACK, risky)
    again = run(watched, frames(2), spec=spec)[1]
    for a, b in zip(decided, again, strict=True):
        assert_same(a, b)


def test_a_bundle_of_another_interface_is_not_used(bundle: Bundle) -> None:
    other = edited("nav2d", ("unit: m/s²", "unit: ft/s²"))
    row, decisions = step(other, bundle, None, frames(1)[0], FreeBudget(1))
    assert row.bundle == ""
    assert (decisions.reasons & Reason.NO_MODEL).all()


def test_a_new_bundle_anchors_and_forgets_the_old_plans(bundle: Bundle, tmp_path: Path) -> None:
    other = make_bundle(tmp_path, SPEC, double_integrator(noise=0.05), name="other")
    made = frames(4)
    rows, _ = run(bundle, made[:3])
    after, decisions = step(SPEC, other, rows[-1], made[3], FreeBudget(1))
    assert (decisions.mode == Mode.FALLBACK).all()
    assert (decisions.reasons & Reason.NO_BELIEF).all()
    assert after.bundle == other.digest
    assert decisions.bundle == other.digest
    assert (after.memory["planned_at"] < 0).all()


def test_hold_and_override_are_the_operators(bundle: Bundle) -> None:
    made = frames(3)
    row = run(bundle, made[:2])[0][-1]
    control = ControlView(holds=("e001",), overrides={"e002": {"acceleration[0]": 0.25}})
    frame = replace(made[2], header=replace(made[2].header, control=control))
    _, decisions = step(SPEC, bundle, row, frame, FreeBudget(1))
    assert decisions.mode[1] == Mode.HOLD
    assert decisions.reasons[1] & Reason.HOLD
    np.testing.assert_array_equal(decisions.action[1], frame.applied[1])
    assert decisions.mode[2] == Mode.OVERRIDE
    assert decisions.action[2, 0] == 0.25
    assert decisions.mode[0] == Mode.PLAN


def test_entities_that_leave_and_come_do_not_disturb_the_others(bundle: Bundle) -> None:
    made = frames(3)
    row = run(bundle, made[:2])[0][-1]
    stay = np.array([0, 2, 3, 5])
    fewer = Frame(
        header=made[2].header,
        entities=(*(made[2].entities[i] for i in stay), "z"),
        values=np.vstack([made[2].values[stay], made[1].values[:1]]),
        ages=np.zeros((5, len(SPEC.channels)), np.float32),
        applied=np.vstack([made[2].applied[stay], [[np.nan, np.nan]]]),
        status=np.zeros(5, np.uint8),
        flags=np.array([0, 0, 0, 0, Flag.JOINED], np.uint8),
    )
    full, _ = step(SPEC, bundle, row, made[2], FreeBudget(0))
    after, decisions = step(SPEC, bundle, row, fewer, FreeBudget(1))
    np.testing.assert_allclose(after.hidden[:4], full.hidden[stay], rtol=1e-5, atol=1e-6)
    assert after.memory["planned_at"].shape == (5,)
    assert decisions.mode[4] == Mode.FALLBACK
    assert decisions.reasons[4] & Reason.NO_BELIEF


def test_an_empty_cohort_has_an_empty_answer(bundle: Bundle) -> None:
    frame = make_frame(SPEC, np.zeros((0, len(SPEC.columns))))
    row, decisions = step(SPEC, bundle, None, frame, FreeBudget(1))
    assert decisions.action.shape == (0, 2)
    assert decode_row(encode_row(row)).entities == ()


def test_repeated_ticks_and_lower_epochs_are_recognised() -> None:
    made = frames(3)
    row = run(None, made[:2])[0][-1]
    assert is_repeated(row, made[0])
    assert is_repeated(row, made[1])
    assert not is_repeated(row, made[2])
    assert not is_repeated(None, made[0])
    newer = replace(row, epoch=1)
    assert is_repeated(newer, made[2])
    assert not is_repeated(newer, replace(made[2], header=replace(made[2].header, epoch=1)))


def test_rewards_are_those_of_the_spec_and_absent_where_an_episode_begins() -> None:
    spec = load_spec("nav2d")
    frame = frames(1, missing=0.0)[0]
    reward = realised_reward(spec, replace(frame, flags=np.array([0, 1, 2, 0, 0, 0], np.uint8)))
    distance = np.hypot(*(frame.values[:, 0:2] - frame.values[:, 4:6]).T)
    np.testing.assert_allclose(reward[[0, 3, 4, 5]], -distance[[0, 3, 4, 5]], rtol=1e-6)
    assert np.isnan(reward[1:3]).all()


def test_exploration_moves_the_fallback_inside_the_range() -> None:
    spec = edited(
        "nav2d", ("fallback: {kind: brake", "explore: {share: 1.0}\nfallback: {kind: brake")
    )
    made = frames(1, missing=0.0)[0]
    _, plain = step(SPEC, None, None, made, FreeBudget(0))
    _, varied = step(spec, None, None, made, FreeBudget(0))
    assert not np.array_equal(plain.action, varied.action)
    assert (np.abs(varied.action) <= 1).all()
    np.testing.assert_array_equal(varied.action, step(spec, None, None, made, None)[1].action)
