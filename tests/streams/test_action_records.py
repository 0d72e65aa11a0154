"""Records made beforehand are those that would be made on the spot."""

import msgspec
import numpy as np
import pytest

from planner.budget import FreeBudget
from schemas.codes import Mode
from schemas.frames import Frame
from schemas.messages import Action, action_id
from schemas.system import load_spec
from schemas.trajectories import Decisions
from streams.action_records import ActionRecords
from streams.decide import step
from tests.planner.worlds import make_frame

SPEC = load_spec("nav2d")


def decided(tick: int) -> tuple[Frame, Decisions]:
    frame = make_frame(SPEC, np.zeros((3, 6)), tick=tick)
    return frame, step(SPEC, None, None, frame, FreeBudget(0))[1]


@pytest.mark.parametrize("expected", [7, 8])
def test_what_was_expected_changes_nothing(expected: int) -> None:
    frame, decisions = decided(7)
    fresh, other = (ActionRecords(SPEC, "worker-1", 2) for _ in range(2))
    other.expect(frame.cohort, expected, frame.entities)
    assert fresh.make(frame, decisions, 9) == other.make(frame, decisions, 9)


def test_entities_that_came_unexpected_are_answered() -> None:
    frame, decisions = decided(7)
    records = ActionRecords(SPEC, "worker-1", 2)
    records.expect(frame.cohort, 7, frame.entities[:2])
    assert [record.key for record in records.make(frame, decisions, 9)] == [
        b"e000",
        b"e001",
        b"e002",
    ]


def test_an_action_says_what_was_decided_and_by_whom() -> None:
    frame, decisions = decided(7)
    decisions.action[1] = (0.25, -1.0)
    records = ActionRecords(SPEC, "worker-1", 2).make(frame, decisions, 9)
    action = msgspec.json.decode(records[1].value or b"", type=Action)
    assert action.id == action_id("nav2d", "e001", 7)
    assert dict(records[1].headers or ())["ce_id"] == action.id.encode()
    assert action.values == {"acceleration[0]": 0.25, "acceleration[1]": -1.0}
    assert (action.entity, action.tick, action.mode) == ("e001", 7, Mode.FALLBACK)
    assert (action.worker, action.attempt, action.decided) == ("worker-1", 2, 9)
    assert action.time == frame.header.time_us
    assert action.valid_until > action.time + 2 * SPEC.period_us
