"""What operators said, as of a tick: the last word of a key counts, also after a restart."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.messages import ALL, Control
from streams.align_control import ControlLog


def said(*records: Control) -> ControlLog:
    log = ControlLog()
    for record in records:
        log.add(record)
    return log


def test_a_record_counts_from_its_time_on() -> None:
    log = said(Control("hold", 100, "r1"))
    assert log.at(99).holds == ()
    assert log.at(100).holds == ("r1",)


def test_a_resume_without_a_time_lifts_a_hold_that_has_one() -> None:
    log = said(Control("hold", 100), Control("resume", 0))
    assert log.at(500).holds == ()


def test_a_hold_after_a_resume_holds() -> None:
    log = said(Control("hold", 0), Control("resume", 0), Control("hold", 0))
    assert log.at(0).holds == (ALL,)


def test_an_override_without_values_ends_it() -> None:
    log = said(Control("override", 0, "r1", values={"a": 1.0}))
    assert log.at(5).overrides == {"r1": {"a": 1.0}}
    log.add(Control("override", 0, "r1"))
    assert log.at(5).overrides == {}


def test_the_last_rearm_of_each_is_told_with_when_it_was_said() -> None:
    log = said(
        Control("rearm", 0, "r1", said=7), Control("rearm", 5, said=9), Control("rearm", 8, said=11)
    )
    assert [log.at(time).rearms for time in (4, 5, 8)] == [
        {"r1": 7},
        {ALL: 9, "r1": 7},
        {ALL: 11, "r1": 7},
    ]
    view = log.at(5)
    assert (view.rearm_of("r1"), view.rearm_of("r2")) == (9, 9)
    assert (log.at(0).rearm_of("r1"), log.at(0).rearm_of("r2")) == (7, 0)


def test_the_newest_release_acts() -> None:
    log = said(Control("release", 0, bundle="a"), Control("release", 50, bundle="b"))
    assert (log.at(49).bundle, log.at(50).bundle) == ("a", "b")


@given(
    st.lists(
        st.tuples(st.sampled_from(["hold", "resume"]), st.integers(0, 20), st.sampled_from("ab")),
        max_size=12,
    ),
    st.lists(st.integers(0, 25), max_size=5),
)
def test_when_it_was_asked_before_does_not_matter(
    words: list[tuple[str, int, str]], asked: list[int]
) -> None:
    records = [Control(kind, time, entity) for kind, time, entity in words]  # type: ignore[arg-type]
    restarted, log = said(*records), ControlLog()
    for record in records:
        log.add(record)
        for time in asked:
            log.at(time)
    assert [log.at(t) for t in range(25)] == [restarted.at(t) for t in range(25)]
    for entity in "ab":
        last = [record.kind for record in records if record.entity == entity][-1:]
        assert (entity in log.at(25).holds) == (last == ["hold"])
