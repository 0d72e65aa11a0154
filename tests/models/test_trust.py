"""An actor is trusted when every member finds it better, and from most beliefs."""

from models.trust import Trial


def _trial(actor: float, wins: float, last_wins: float | None = None) -> Trial:
    share = (wins,) * 4 + (wins if last_wins is None else last_wins,)
    return Trial((actor,) * 5, (-2.0,) * 5, (-1.5,) * 5, share)


def test_better_than_the_log_from_most_beliefs() -> None:
    assert _trial(-1.0, 0.8).trusted
    assert not _trial(-3.0, 0.8).trusted
    assert not _trial(-1.0, 0.2).trusted


def test_one_member_that_disagrees_is_enough() -> None:
    assert not _trial(-1.0, 0.8, last_wins=0.4).trusted
