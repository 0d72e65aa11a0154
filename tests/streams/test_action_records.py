"""Records made beforehand are those that would be made on the spot."""

from dataclasses import replace
from hashlib import blake2b

import msgspec
import numpy as np
import pytest

from planner.budget import FreeBudget
from schemas.codes import Mode
from schemas.frames import Frame
from schemas.messages import Action, action_id, encode
from schemas.system import SystemSpec, load_spec, parse_spec
from schemas.trajectories import Decisions
from streams.action_records import ActionRecords
from streams.bench_systems import Case, spec_text
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


def odd(tick: int) -> tuple[SystemSpec, Frame, Decisions]:
    """Names that JSON escapes, numbers of all kinds, an entity that is refused."""
    spec = parse_spec(spec_text(Case(4, 1, 10, 1), "odd"), "odd")
    names = ('a "b"', "é\\%d", ',"tick":', '"values":{}', "plain")
    frame = replace(make_frame(spec, np.zeros((5, 6)), tick=tick), entities=names)
    decisions = step(spec, None, None, frame, FreeBudget(0))[1]
    decisions.action[:] = [(0.1, -0.0), (1e-7, 1e22), (np.nan, np.inf), (1, 2), (5e-324, 1 / 3)]
    decisions.mode[3], decisions.iterations[1], decisions.tier[1] = Mode.REFUSED, 7, 0
    decisions.reasons[2] = 5
    return spec, frame, decisions


@pytest.mark.parametrize("only", [None, frozenset({"plain", ',"tick":'}), frozenset[str]()])
def test_the_bytes_are_those_of_the_message(only: frozenset[str] | None) -> None:
    spec, frame, decisions = odd(-3)
    made = ActionRecords(spec, 'w"1', 2).make(frame, decisions, 9, only)
    wanted = []
    for i, entity in enumerate(frame.entities):
        if i == 3 or (only is not None and entity not in only):
            continue
        action = Action(
            action_id(spec.system, entity, -3),
            spec.system,
            entity,
            -3,
            frame.header.time_us,
            dict(zip(spec.action_columns, decisions.action[i].tolist(), strict=True)),
            frame.header.time_us + 2 * spec.period_us + spec.lateness_us + spec.deadline_us,
            int(decisions.mode[i]),
            int(decisions.reasons[i]),
            'w"1',
            2,
            "one" if i == 1 else "",
            int(decisions.iterations[i]),
            "",
            9,
        )
        wanted.append((entity.encode(), encode(action)))
    assert [(record.key, record.value) for record in made] == wanted
    assert len(made) == (4 if only is None else len(only))
    for record in made:
        said = msgspec.json.decode(record.value or b"")
        assert dict(record.headers or ())["ce_id"] == said["id"].encode()


def test_ids_are_digests_of_system_entity_and_tick() -> None:
    wanted = blake2b(b"nav2d\0robot\0-12", digest_size=8).hexdigest()
    assert action_id("nav2d", "robot", -12) == wanted


def test_nobody_is_answered_in_an_empty_frame() -> None:
    frame = make_frame(SPEC, np.zeros((0, 6)), tick=7)
    decisions = step(SPEC, None, None, frame, FreeBudget(0))[1]
    assert ActionRecords(SPEC, "w", 0).make(frame, decisions, 9) == []
