"""Of several aligners of the same cohorts, the one that claimed last speaks, and all know which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.messages import Control
from streams.align_seat import Seat
from streams.align_share import Share

HALVES = (Share(1, 2), Share(2, 2))


def seat(me: str, share: Share = HALVES[0], least: int = 0) -> Seat:
    return Seat(share, 4, me, least)


def test_a_claim_counts_when_it_is_read() -> None:
    one = seat("one", least=3)
    claim = one.claim()
    assert (claim.kind, claim.entity, claim.epoch, claim.key) == ("align", "1/2", 3, "align/1/2")
    assert one.pending
    assert not one.holds
    one.heard(claim)
    assert one.holds
    assert not one.pending
    assert one.epoch == 3


def test_a_later_claim_of_the_same_cohorts_overtakes() -> None:
    one, other = seat("one"), seat("other", Share())
    one.heard(first := one.claim())
    other.heard(first)
    second = other.claim()
    one.heard(second)
    other.heard(second)
    assert (one.overtaken, one.holds, one.holder) == (True, False, "other")
    assert (other.overtaken, other.holds, other.epoch) == (False, True, 1)


def test_claims_of_other_cohorts_concern_nobody() -> None:
    one, other = seat("one"), seat("other", HALVES[1])
    one.heard(one.claim())
    one.heard(other.claim())
    one.heard(Control("align", 0, "1/0", by="a", epoch=9))
    one.heard(Control("align", 0, "3/2", by="a", epoch=9))
    one.heard(Control("align", 0, "?", by="a", epoch=9))
    one.heard(Control("align", 0, by="a"))
    assert one.holds


def test_shares_have_each_cohort_once() -> None:
    for of in range(1, 5):
        held = [Share(part, of).cohorts(7).tolist() for part in range(1, of + 1)]
        assert [sum(parts) for parts in zip(*held, strict=True)] == [1] * 7
    with pytest.raises(ValueError, match="no part 3 of 2"):
        Share(3, 2)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["claim", "read", "read"]))))
def test_one_at_most_speaks_among_those_who_have_read_everything(
    steps: list[tuple[int, str]],
) -> None:
    """Three aligners claim when they like, and read the log of claims each at its own pace."""
    seats, read = [seat(str(i)) for i in range(3)], [0, 0, 0]
    log: list[Control] = []
    for who, what in steps:
        if what == "claim" and not seats[who].pending and not seats[who].holds:
            log.append(seats[who].claim())
        elif what == "read" and read[who] < len(log):
            seats[who].heard(log[read[who]])
            read[who] += 1
        # Of those who speak at one time, each has an epoch of its own: all but one are dropped.
        epochs = [s.epoch for s in seats if s.holds]
        assert len(set(epochs)) == len(epochs)
    for who, one in enumerate(seats):
        for claim in log[read[who] :]:
            one.heard(claim)
    assert sum(one.holds for one in seats) == (1 if log else 0)
