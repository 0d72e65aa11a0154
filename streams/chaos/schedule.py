"""Which fault strikes whom, when and for how long: a pure function of a seed."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Kind = Literal[
    "kill",
    "pause",
    "rebalance",
    "zombie",
    "twice",
    "broker_restart",
    "broker_kill",
    "broker_pause",
    "poison",
    "store",
    "clock_jump",
    "full_disk",
    "broker_slow",
    "broker_refuses",
]
Clock = Literal["wall", "event"]
START_S: Final = 5.0  # of a whole loop, before the first fault
CALM_S: Final = 12.0  # at the end: what is to recover has recovered by then
GAP_S: Final = 1.0  # between two faults; they may still overlap
SLOW_S: Final = (3.0, 10.0)
LOST_S: Final = (9.5, 12.0)  # for longer than the worker's session of 8 s
SHORT_S: Final = (0.5, 5.0)
_DRAWS: Final = 10_000
KILLS: Final = 3  # of one process; after more in a row its supervisor gives up

_PARTS: Final = ("align", "worker", "sink")
_PLACES: Final = ("sensors", "frames", "control", "actions", "applied", "outcomes", "trajectories")
_JUMPS_US: Final = (-3_600_000_000, -5_000_000, 20_000_000, 3_600_000_000)
# Weights: what is rare in the field and rich in consequences comes as often as a plain kill.
_WEIGHTS: Final[dict[Kind, int]] = {
    "kill": 5,
    "pause": 4,
    "rebalance": 2,
    "zombie": 2,
    "twice": 1,
    "broker_restart": 1,
    "broker_kill": 1,
    "broker_pause": 2,
    "poison": 4,
    "store": 3,
    "clock_jump": 2,
    "full_disk": 2,
}
# What lies between the loop and its broker. These kinds came later: by a generator of their own
# they take the place of others, so that every seed keeps what it had beside them.
NETWORK: Final[tuple[Kind, ...]] = ("broker_slow", "broker_refuses")
_NETWORK_SHARE: Final = 0.12
_ONCE: Final = frozenset({
    "zombie", "rebalance", "twice", "broker_restart", "broker_kill", "full_disk", "clock_jump",
    *NETWORK,
})  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault: it begins `at_s` after the stream began and is over `lasts_s` later.

    target: a process (`align`, `worker`, `sink`), `broker`, a kind of topic (poison) or `device`.
    how: what of several ways: `delete` or `flip` a store, end a member by `term` or `kill`, …
    seed: of what else is random about it;  jump_us: of a device's clock.
    """

    kind: Kind
    target: str
    at_s: float
    lasts_s: float = 0.0
    how: str = ""
    seed: int = 0
    jump_us: int = 0

    @property
    def ends_s(self) -> float:
        """When it is over; what it caused may take longer."""
        return self.at_s + self.lasts_s

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value not in ("", 0, 0.0)}


@dataclass(frozen=True)
class Schedule:
    """All faults of a run, by time, and the clock that it runs under."""

    seed: int
    seconds: float
    clock: Clock
    faults: tuple[Fault, ...]
    twin: bool = False


def make_schedule(
    seed: int,
    seconds: float = 60.0,
    count: int | None = None,
    kinds: Sequence[Kind] = (),
    twin: bool = False,
) -> Schedule:
    """The faults of run `seed`: three to six a minute (or `count`), the last `CALM_S` without any.

    Args:
        seed: equal seeds give equal schedules.
        seconds: of stream; at least `START_S + CALM_S` and two more for each fault.
        kinds: to choose from, equally often where they are of the network; all by default.
        twin: a second worker runs, which is killed and stopped as well.

    Raises:
        ValueError: the run is too short for so many faults, or for these kinds.
    """
    rng = random.Random(seed)
    clock: Clock = rng.choice(("wall", "event"))
    number = count or round(rng.uniform(3.0, 6.0) * max(1.0, seconds / 60.0))
    room = seconds - START_S - CALM_S
    if room < 2.0 * GAP_S * number:
        least = START_S + CALM_S + 2.0 * GAP_S * number
        raise ValueError(f"{number} faults take at least {least:g} s of stream, not {seconds:g}")
    faults: list[Fault] = []
    parts = (*_PARTS, "twin") if twin else _PARTS
    for _ in range(_DRAWS):
        fault = _draw(rng, room, kinds or tuple(_WEIGHTS), parts)
        if _fits(fault, faults, clock, seconds):
            faults.append(fault)
        if len(faults) == number:
            break
    else:
        raise ValueError(f"{number} faults of these kinds do not fit into {seconds:g} s")
    faults.sort(key=lambda fault: fault.at_s)
    if not kinds:
        _strike_network(random.Random(f"network {seed}"), faults, clock, seconds)
    return Schedule(seed, seconds, clock, tuple(faults), twin)


def _strike_network(rng: random.Random, faults: list[Fault], clock: Clock, seconds: float) -> None:
    """Has faults of the network begin in place of some."""
    for place, old in enumerate(faults):
        kind = rng.choice(NETWORK) if rng.random() < _NETWORK_SHARE else None
        if kind is not None:
            target, lasts, how, _ = _details(rng, kind, ())
            new = Fault(kind, target, old.at_s, round(lasts, 2), how, rng.randrange(2**31))
            if _fits(new, faults[:place] + faults[place + 1 :], clock, seconds):
                faults[place] = new


def _draw(rng: random.Random, room: float, kinds: Sequence[Kind], parts: Sequence[str]) -> Fault:
    kind = rng.choices(kinds, [_WEIGHTS.get(kind, 2) for kind in kinds])[0]
    at_s = START_S + rng.uniform(0.0, room)
    target, lasts, how, jump = _details(rng, kind, parts)
    return Fault(kind, target, round(at_s, 2), round(lasts, 2), how, rng.randrange(2**31), jump)


def _details(rng: random.Random, kind: Kind, parts: Sequence[str]) -> tuple[str, float, str, int]:
    """Target, seconds, way and jump of a fault."""
    short = rng.uniform(*SHORT_S)
    match kind:
        case "kill":
            return rng.choice(parts), 0.0, "", 0
        case "pause":
            target = rng.choice(parts)
            lost = target in ("worker", "twin") and rng.random() < 0.4
            return target, rng.uniform(*LOST_S) if lost else short, "", 0
        case "rebalance":
            return "worker", rng.uniform(6.0, 12.0), rng.choice(("term", "kill")), 0
        case "zombie":  # a second member joins, the first sleeps through its session, and wakes up
            return "worker", 7.0 + rng.uniform(*LOST_S), rng.choice(("term", "kill")), 0
        case "twice":
            return "worker", 4.0, rng.choice(("same folder", "other folder")), 0
        case "broker_restart" | "broker_kill" | "broker_pause":
            return "broker", short, "", 0
        case "poison":
            return rng.choice(_PLACES), 0.0, "", 0
        case "store":
            return "worker", 0.0, rng.choice(("delete", "flip")), 0
        case "clock_jump":
            return "device", 2.0, "", rng.choice(_JUMPS_US)
        case "full_disk":
            return rng.choice(("sink", "worker")), rng.uniform(3.0, 8.0), "", 0
        case "broker_slow" | "broker_refuses":
            return "broker", *_of_network(rng, kind, short), 0


def _of_network(rng: random.Random, kind: Kind, short: float) -> tuple[float, str]:
    """Seconds and way of a fault between the loop and its broker."""
    if kind == "broker_slow":
        return rng.uniform(*SLOW_S), rng.choice(("late", "narrow"))
    lasts = rng.uniform(*LOST_S) if rng.random() < 0.3 else short
    return lasts, rng.choice(("cut", "held", "half-open"))


def _fits(fault: Fault, others: Sequence[Fault], clock: Clock, seconds: float) -> bool:
    """Whether a fault can join the others: in time, not too close, and nothing too often."""
    if fault.ends_s > seconds - CALM_S:
        return False
    if any(abs(fault.at_s - other.at_s) < GAP_S for other in others):
        return False
    if fault.kind in _ONCE and any(other.kind == fault.kind for other in others):
        return False
    # Under the event clock the newest time that was read is the time: no device may be ahead.
    if clock == "event" and fault.jump_us > 0:
        return False
    deadly = ("kill", "store", "full_disk")
    same = [o for o in others if o.kind in deadly and o.target == fault.target]
    return fault.kind not in deadly or len(same) < KILLS


__all__ = [
    "CALM_S", "NETWORK", "START_S", "Clock", "Fault", "Kind", "Schedule", "make_schedule",
]  # fmt: skip
