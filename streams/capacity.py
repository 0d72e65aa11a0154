"""How many processes, partitions and bytes a fleet takes: arithmetic on costs that were measured.

Every stage costs CPU time per frame (a cohort at a tick) and per unit of work in it. The constants
are those of one machine, in the one table below; another machine's come from its own benches, by
`fitted`. What is not in here: the plant, replicas of the broker, a twin (it costs what the workers
do, and a standby what the aligner does), and disks.
"""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Final, NamedTuple

from schemas.topics import MOST_COHORT_PARTITIONS, MOST_ROW_BYTES

FULL: Final = 0.6
"""Of a core that a process is planned to use; above it, what waits grows faster than the load."""


class Cost(NamedTuple):
    """CPU microseconds of a stage: for each frame, and for each unit of work in it."""

    frame_us: float
    unit_us: float

    def cores(self, frames_per_s: float, units_per_s: float) -> float:
        """Cores that so much work keeps busy."""
        return (self.frame_us * frames_per_s + self.unit_us * units_per_s) / 1e6


class Size(NamedTuple):
    """Bytes of a record: of itself, and for each entity in it."""

    record: float
    entity: float


@dataclass(frozen=True)
class Costs:
    """What one machine takes. Units: a reading for `align`, a decision for the others.

    imagine_us: for each tick that is imagined for one candidate, beyond what a decision takes;
    broker: all that a frame's way from the aligner to the sink asks of the broker, for each
    decision; broker_reading_us: for a reading, written and read.
    """

    align: Cost
    worker: Cost
    sink: Cost
    broker: Cost
    broker_reading_us: float
    imagine_us: float
    reading_bytes: float
    frame: Size
    action: Size  # with key and headers: one record for each entity
    trajectory: Size
    row: Size


MEASURED: Final = Costs(
    align=Cost(0.0, 3.7),
    worker=Cost(10_859.0, 15.1),
    sink=Cost(901.0, 7.5),
    broker=Cost(3_863.0, 12.3),
    broker_reading_us=11.4,
    imagine_us=1.4,
    reading_bytes=170.0,
    frame=Size(2_064, 94),
    action=Size(520, 0),
    trajectory=Size(5_600, 290),
    row=Size(220, 235),
)
"""nav2d on two shared cores with the broker beside, 2026-11-27.

Worker: `rehearse bench decide`'s rounds with cohorts of 200 and 800, `fitted`; sink and broker:
with cohorts of 50 and 200, before frames were made cheaper for the worker; `align`, frames
included: `rehearse bench align` with cohorts of 50, JSON; sizes: of records made. Cohorts of 400,
which were not used, took 40.6 µs of worker a decision where 42.2 are predicted, 20.4 of broker for
22.0, and 10.6 of sink for 9.7.
"""


@dataclass(frozen=True)
class Fleet:
    """What is to be controlled.

    entities: all of them;  hz: ticks a second;  sensors: readings of an entity in each tick;
    planned: the share of decisions that are planned anew;  rollouts: ticks imagined for such a one
    (candidates × horizon × iterations);  cohort: entities of a cohort, at most.
    """

    entities: int
    hz: float
    sensors: int = 1
    planned: float = 0.0
    rollouts: int = 0
    cohort: int = 400

    def __post_init__(self) -> None:
        if self.entities < 1 or self.hz <= 0 or self.sensors < 1 or self.cohort < 1:
            raise ValueError("entities, hz, sensors and cohort must be above 0")
        if not 0 <= self.planned <= 1:
            raise ValueError(
                f"planned is a share of the decisions: {self.planned} is not in 0 to 1"
            )


@dataclass(frozen=True)
class Capacity:
    """What a fleet takes; rates are per second, `..._cores` are cores kept busy.

    systems: specs that the entities must be dealt out to, since one system's workers share at most
    `MOST_COHORT_PARTITIONS` partitions;  partitions: of the frames, in all systems.
    """

    readings_per_s: float
    decisions_per_s: float
    cohorts: int
    frames_per_s: float
    aligner_cores: float
    worker_cores: float
    sink_cores: float
    broker_cores: float
    aligners: int
    workers: int
    sinks: int
    systems: int
    partitions: int
    broker_in_bytes_per_s: float
    changelog_bytes_per_s: float
    core_hours_per_hour: float
    cost_per_hour: float


def capacity(fleet: Fleet, price: float = 0.0, costs: Costs = MEASURED) -> Capacity:
    """What `fleet` takes at `price` for a core and hour. Raises `ValueError` for a large cohort.

    Processes are planned for `FULL` of a core, and so are the cores that are paid for.
    """
    if costs.row.record + costs.row.entity * fleet.cohort > MOST_ROW_BYTES:
        most = int((MOST_ROW_BYTES - costs.row.record) / costs.row.entity)
        raise ValueError(f"a cohort of {fleet.cohort} entities: {most} are the most")
    cohorts = ceil(fleet.entities / fleet.cohort)
    frames, decisions = cohorts * fleet.hz, fleet.entities * fleet.hz
    readings = decisions * fleet.sensors
    imagined = decisions * fleet.planned * fleet.rollouts
    aligner = costs.align.cores(frames, readings)
    worker = costs.worker.cores(frames, decisions) + costs.imagine_us * imagined / 1e6
    sink = costs.sink.cores(frames, decisions)
    broker = costs.broker.cores(frames, decisions) + costs.broker_reading_us * readings / 1e6
    workers = _processes(worker)
    systems = ceil(workers / MOST_COHORT_PARTITIONS)
    changelog = _bytes(costs.row, frames, decisions)
    written = (costs.frame, costs.trajectory, costs.row)
    actions = decisions * (costs.action.record + costs.action.entity)
    cores = (aligner + worker + sink + broker) / FULL
    return Capacity(
        readings_per_s=readings,
        decisions_per_s=decisions,
        cohorts=cohorts,
        frames_per_s=frames,
        aligner_cores=aligner,
        worker_cores=worker,
        sink_cores=sink,
        broker_cores=broker,
        aligners=max(systems, _processes(aligner)),
        workers=workers,
        sinks=max(systems, _processes(sink)),
        systems=systems,
        partitions=min(cohorts, systems * MOST_COHORT_PARTITIONS),
        broker_in_bytes_per_s=readings * costs.reading_bytes
        + actions
        + sum(_bytes(size, frames, decisions) for size in written),
        changelog_bytes_per_s=changelog,
        core_hours_per_hour=cores,
        cost_per_hour=cores * price,
    )


def report(fleet: Fleet, price: float = 0.0) -> dict[str, float]:
    """`capacity` by name, rounded for people."""
    found = asdict(capacity(fleet, price))
    return {name: round(value, 2 if value < 100 else None) for name, value in found.items()}


def fitted(one: tuple[int, float], other: tuple[int, float]) -> Cost:
    """A stage's cost from two measurements: entities of a cohort, and CPU microseconds a unit.

    The cost of a unit is `unit_us + frame_us / entities`. Raises `ValueError` for equal cohorts.
    """
    (few, dear), (many, cheap) = sorted((one, other))
    if few == many:
        raise ValueError("two measurements with cohorts of different size are needed")
    frame_us = (dear - cheap) / (1 / few - 1 / many)
    return Cost(frame_us, cheap - frame_us / many)


def _processes(cores: float) -> int:
    return max(1, ceil(cores / FULL))


def _bytes(size: Size, frames_per_s: float, entities_per_s: float) -> float:
    return size.record * frames_per_s + size.entity * entities_per_s
