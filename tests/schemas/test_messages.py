"""Messages, their ids, and the topic table."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import Reason, names
from schemas.context import context_values
from schemas.messages import Action, Applied, Control, DeadLetter, action_id, decode, encode
from schemas.system import load_spec
from schemas.topics import TABLE, cohort_of, cohort_partitions, murmur2, topics_of

ACTION = Action("id", "nav2d", "r1", 3, 300_000, {"acceleration[0]": 0.5}, 400_000, 0, 2)


NESTED = b'{"id":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
"""Deeper than any decoder goes."""


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"id": "\xff"}', NESTED])
def test_whatever_is_no_message_is_one_kind_of_error(data: bytes) -> None:
    for kind in (Action, Applied, Control):
        with pytest.raises(msgspec.DecodeError):
            decode(kind, data)


def test_messages_survive() -> None:
    assert decode(Action, encode(ACTION)) == ACTION
    applied = Applied("id", "r1", 3, {"acceleration[0]": 0.5}, 2, 301_000)
    assert decode(Applied, encode(applied)) == applied
    assert (ACTION.mode_name, applied.status_name) == ("plan", "applied")


def test_a_wrong_field_is_named() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.tick"):
        decode(Action, encode(ACTION).replace(b'"tick":3', b'"tick":"x"'))


@given(st.text(), st.text(), st.integers(0, 2**40))
def test_an_action_id_depends_on_system_entity_and_tick(a: str, b: str, tick: int) -> None:
    identity = action_id(a, b, tick)
    assert len(identity) == 16
    assert identity == action_id(a, b, tick)
    assert identity != action_id(a, b, tick + 1)
    assert identity != action_id(a, b + "x", tick)


def test_a_resume_takes_the_place_of_its_hold() -> None:
    hold, resume = Control("hold", 1, "r1"), Control("resume", 2, "r1")
    assert hold.key == resume.key == "hold/r1"
    assert Control("hold", 1).key == "hold/*"
    assert Control("release", 1, bundle="abc").key == "release/*"


@given(st.binary(max_size=100), st.one_of(st.none(), st.binary(max_size=100)))
def test_a_dead_letter_keeps_the_bytes(value: bytes, key: bytes | None) -> None:
    letter = DeadLetter.of(("t", 1, 2), "malformed", "not JSON", key, value)
    assert decode(DeadLetter, encode(letter)) == letter


@pytest.mark.parametrize(
    ("text", "expected"),
    # from the test of Kafka's own client (Utils.murmur2), as unsigned numbers
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(text: str, expected: int) -> None:
    assert murmur2(text.encode()) == expected % 2**32


def test_cohorts_are_used_evenly() -> None:
    counts = [0] * 16
    for i in range(16_000):
        counts[cohort_of(f"robot-{i}", 16)] += 1
    assert min(counts) > 850
    assert max(counts) < 1_150


def test_every_kind_of_topic_is_created_once() -> None:
    for name in ("autoscale", "nav2d"):
        spec = load_spec(name)
        topics = topics_of(spec)
        assert len({t.name for t in topics}) == len(topics)
        assert {t.kind for t in topics} == set(TABLE) - {"raw"}  # nothing is encoded there
        cohort_topics = [t for t in topics if TABLE[t.kind].spread == "cohort"]
        assert {t.partitions for t in cohort_topics} == {cohort_partitions(spec)}


def test_reasons_have_names_in_order() -> None:
    assert names(Reason.RATE | Reason.RANGE) == ["RANGE", "RATE"]
    assert names(Reason(0)) == []


def test_context_is_a_clock_face() -> None:
    midnight_thursday, noon_monday = 0, (4 * 24 + 12) * 3_600_000_000
    values = context_values(("time_of_day", "day_of_week"), midnight_thursday)
    assert values[:2].tolist() == [0.0, 1.0]
    again = context_values(("time_of_day", "day_of_week"), noon_monday)
    assert again[:2] == pytest.approx([0.0, -1.0], abs=1e-12)
    expected = 2 * 3.141592653589793 * 0.5 / 7
    assert again[2:] == pytest.approx([math.sin(expected), math.cos(expected)])
