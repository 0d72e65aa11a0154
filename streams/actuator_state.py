"""What an actuator does about actions: the first of an id counts, and silence has an answer."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.clock import tick_time
from schemas.codes import Mode, Status
from schemas.messages import ALL, Action, Applied, Control, action_id
from schemas.system import SystemSpec

NEVER: Final = -(2**62)  # a tick, or a time in us, before every real one
_FOREVER: Final = 2**62

Row = tuple[float, ...]


class Report(NamedTuple):
    """What became of one action (or of its absence), for `S.applied` and for the plant."""

    slot: int  # index of the entity in `ActuatorState.entities`
    applied: Applied
    changed: bool  # whether the value in force is a new one
    arrived_ns: int = 0  # when its action reached the actuator, on the machine's clock
    mode: int = -1  # the action's `codes.Mode`; -1 without an action


class ActuatorState:
    """The rules of one actuator, without Kafka and without a clock: all times are arguments, us.

    Args:
        spec: the system; its actions give range, kind and local fallback.
        entities: those this actuator serves. None: every entity that an action names.
        start_us: when it starts. Who has not heard anything after `grace_us` falls back.
        grace_us: how long silence is normal at the start; two periods by default.

    A tick is answered once: with the first action of it that arrives, whatever its fate. REFUSED
    and EXPIRED leave in force what was in force, and the report says what that is. The local
    fallback is, per actuator, the spec's `fallback`, and where it names none, the value in force.
    A hold applies it and lets through only actions that change nothing, until it is lifted.
    """

    def __init__(
        self,
        spec: SystemSpec,
        entities: Iterable[str] | None = None,
        *,
        start_us: int = 0,
        grace_us: int | None = None,
    ) -> None:
        self.spec = spec
        self.open = entities is None
        self.entities: list[str] = []
        self.slots: dict[str, int] = {}
        self.counts: dict[str, int] = dict.fromkeys(_COUNTS, 0)
        self.holds: set[str] = set()
        self._pending: list[Control] = []
        self._columns = spec.action_columns
        self._limits = _limits(spec)
        self._safe = tuple(spec.action_safe.tolist())
        self._local = _explicit_fallback(spec)
        self._quiet_until = start_us + (2 * spec.period_us if grace_us is None else grace_us)
        self._values: list[Row] = []
        self._last: list[int] = []  # newest tick that was answered
        self._due = np.empty(0, dtype=np.int64)  # when the entity next needs an answer, us
        self._next_due = _FOREVER
        for entity in entities or ():
            self._add(entity)

    def _add(self, entity: str) -> int:
        slot = self.slots[entity] = len(self.entities)
        self.entities.append(entity)
        self._values.append(self._safe)
        self._last.append(NEVER)
        if slot >= len(self._due):  # grown by halves: adding stays cheap when entities are open
            more = np.full(max(16, slot // 2), _FOREVER, dtype=np.int64)
            self._due = np.concatenate([self._due, more])
        self._set_due(slot, self._quiet_until)
        return slot

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """[entities, A] what is in force now, in the actions' units."""
        return np.array(self._values, dtype=np.float64).reshape(len(self.entities), -1)

    @property
    def last_ticks(self) -> npt.NDArray[np.int64]:
        """[entities] the newest tick that was answered; `NEVER` where none was."""
        return np.array(self._last, dtype=np.int64)

    def waiting(self, tick: int) -> int:
        """How many entities have no answer yet for `tick` (or a later one)."""
        return sum(last < tick for last in self._last)

    def held(self, entity: str) -> bool:
        """Whether an operator's hold covers the entity."""
        return ALL in self.holds or entity in self.holds

    def restore(self, applied: Applied) -> None:
        """Takes over what an earlier run reported, so that no tick of it is applied again."""
        slot = self.slots.get(applied.entity)
        row = self._row(applied.values)
        if slot is None or row is None or applied.tick < self._last[slot]:
            return
        self._values[slot] = row
        self._last[slot] = applied.tick

    def offer(self, action: Action, now_us: int, arrived_ns: int = 0) -> Report | None:
        """What is done about an action that arrived at `now_us`; None: it counts for nothing."""
        slot = self._slot_of(action)
        if slot is None:
            self.counts["foreign"] += 1
            return None
        tick, last = action.tick, self._last[slot]
        if tick <= last:
            self.counts["repeated" if tick == last else "older"] += 1
            return None
        self._last[slot] = tick
        row, changed = self._row(action.values), False
        status = self._verdict(action, slot, row, now_us)
        if status is Status.APPLIED and row is not None:
            changed = row != self._values[slot]
            self._values[slot] = row
            self._set_due(slot, action.valid_until + 1)
        self.counts[_STATUS_NAMES[status]] += 1
        applied = self._applied(slot, tick, status, now_us, action.id)
        return Report(slot, applied, changed, arrived_ns, action.mode)

    def _slot_of(self, action: Action) -> int | None:
        if action.system != self.spec.system:
            return None
        slot = self.slots.get(action.entity)
        return self._add(action.entity) if slot is None and self.open else slot

    def _verdict(self, action: Action, slot: int, row: Row | None, now_us: int) -> Status:
        if row is None or action.mode == Mode.REFUSED:
            return Status.REFUSED
        if now_us > action.valid_until:
            return Status.EXPIRED
        if self.holds and row != self._values[slot] and self.held(action.entity):
            return Status.REFUSED
        return Status.APPLIED

    def _row(self, values: dict[str, float]) -> Row | None:
        """The values in column order, or None where one is absent, strange, or out of range."""
        if len(values) != len(self._columns):
            return None
        try:
            row = tuple([values[name] for name in self._columns])
        except KeyError:
            return None
        for value, (low, high, whole) in zip(row, self._limits, strict=True):
            if not low <= value <= high or (whole and value != int(value)):  # NaN fails as well
                return None
        return row

    def _applied(self, slot: int, tick: int, status: Status, now_us: int, identity: str) -> Applied:
        values = dict(zip(self._columns, self._values[slot], strict=True))
        return Applied(identity, self.entities[slot], tick, values, int(status), now_us)

    # silence

    def due(self, now_us: int) -> list[Report]:
        """The local fallbacks that are due: after `valid_until`, and then once a tick."""
        reports = self.obey(now_us)
        if now_us < self._next_due:
            return reports
        ripe = np.flatnonzero(self._due[: len(self.entities)] <= now_us)
        tick = (now_us - self.spec.epoch_us) // self.spec.period_us
        reports += [self._fall_back(int(slot), tick, now_us) for slot in ripe]
        self._next_due = int(self._due.min(initial=_FOREVER))
        return reports

    def give_up(self, tick: int, now_us: int) -> list[Report]:
        """Local fallback, once and for all, for every entity that has no answer for `tick`."""
        reports = []
        for slot, last in enumerate(self._last):
            if last < tick:
                self._last[slot] = tick
                reports.append(self._fall_back(slot, tick, now_us))
        return reports

    def _fall_back(self, slot: int, tick: int, now_us: int) -> Report:
        before = self._values[slot]
        self._values[slot] = self._fallback_row(before)
        self._set_due(slot, tick_time(tick + 1, self.spec.epoch_us, self.spec.period_us))
        changed = before != self._values[slot]
        identity = action_id(self.spec.system, self.entities[slot], tick)
        self.counts["local_fallback"] += 1
        applied = self._applied(slot, tick, Status.LOCAL_FALLBACK, now_us, identity)
        return Report(slot, applied, changed)

    def _fallback_row(self, now: Row) -> Row:
        return tuple(
            kept if local is None else local for local, kept in zip(self._local, now, strict=True)
        )

    def _set_due(self, slot: int, at_us: int) -> None:
        self._due[slot] = at_us
        self._next_due = min(self._next_due, at_us)

    # the operator

    def control(self, control: Control, now_us: int) -> list[Report]:
        """Obeys `hold` and `resume` from the time they name; other kinds are not for actuators."""
        if control.kind not in ("hold", "resume"):
            return []
        # The last word of a key counts: what was said earlier for later is taken back.
        self._pending = [before for before in self._pending if before.key != control.key]
        self._pending.append(control)
        return self.obey(now_us)

    def obey(self, now_us: int) -> list[Report]:
        """Does what an operator said and whose time has come."""
        reports: list[Report] = []
        if not self._pending:
            return reports
        ripe = [control for control in self._pending if control.time <= now_us]
        self._pending = [control for control in self._pending if control.time > now_us]
        for control in ripe:
            if control.kind == "hold":
                reports += self._hold(control.entity, now_us)
            else:
                self.holds.discard(control.entity)
        return reports

    def _hold(self, name: str, now_us: int) -> list[Report]:
        self.holds.add(name)
        tick = (now_us - self.spec.epoch_us) // self.spec.period_us
        slots: Sequence[int] = range(len(self.entities))
        if name != ALL:
            slots = [self.slots[name]] if name in self.slots else []
        return [self._fall_back(slot, tick, now_us) for slot in slots]


_STATUS_NAMES: Final = {status: status.name.lower() for status in Status}
_COUNTS: Final = (*_STATUS_NAMES.values(), "repeated", "older", "foreign", "malformed")


def _limits(spec: SystemSpec) -> list[tuple[float, float, bool]]:
    columns = (spec.action_low, spec.action_high, spec.action_integer)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _explicit_fallback(spec: SystemSpec) -> list[float | None]:
    """Per action column, what the spec says outright; a default could be worse than no change."""
    return [action.fallback for action in spec.actions.values() for _ in range(action.size)]
