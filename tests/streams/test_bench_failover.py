"""What the fail-over bench makes of reports: gaps of any entity, and ticks without an action."""

from schemas.codes import Status
from schemas.messages import Action, Applied
from streams.bench_failover import LIMITS_MS, Window, held, measure, twice


def report(entity: str, tick: int, at_us: int, status: Status = Status.APPLIED) -> Applied:
    return Applied("id", entity, tick, {}, int(status), at_us)


def test_the_longest_gap_of_any_entity_and_every_tick_that_nobody_answered() -> None:
    steady = [report("a", tick, tick * 100_000) for tick in range(100)]
    gone = [report("b", tick, tick * 100_000) for tick in range(100) if not 40 <= tick < 45]
    silent = [report("b", 42, 4_250_000, Status.LOCAL_FALLBACK)]
    windows = [
        Window("killed", 1_000_000, 2_000_000),
        Window("killed", 3_000_000, 6_000_000),
        Window("joined", 6_000_000, 8_000_000),
    ]
    assert measure([*steady, *gone, *silent], windows) == {
        "killed": {"gap_ms": 350.0, "gaps_ms": [100.0, 600.0], "ticks_lost": 5},
        "joined": {"gap_ms": 100.0, "gaps_ms": [100.0], "ticks_lost": 0},
    }


def test_the_share_of_actions_that_two_workers_sent() -> None:
    sent = [
        Action("i", "s", entity, tick, tick, {}, 0, mode=0, reasons=0, worker=worker)
        for entity, tick, worker in (
            ("a", 1, "one"),
            ("a", 1, "two"),
            ("b", 1, "one"),
            ("b", 1, "one"),
            ("a", 9, "one"),
            ("a", 9, "two"),
        )
    ]
    assert twice(sent, [Window("steady", 0, 5)]) == 0.5
    assert twice([], []) == 0.0


def test_a_limit_missed_and_a_tick_lost_beside_a_twin_are_negative_results() -> None:
    fine = {"gap_ms": 100.0, "ticks_lost": 0, "limit_ms": None}
    result = {
        "first_killed": fine,
        "twin_killed": fine,
        "restarted": {"gap_ms": 2_900.0, "ticks_lost": 20, "limit_ms": LIMITS_MS["restarted"]},
        "restored": {"ms": 4_900.0, "limit_ms": LIMITS_MS["restored"]},
        "session_s": 8.0,
    }
    assert held(result)
    assert not held({**result, "first_killed": {**fine, "ticks_lost": 1}})
    assert not held({**result, "restored": {"ms": 5_001.0, "limit_ms": LIMITS_MS["restored"]}})
