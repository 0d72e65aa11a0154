"""From what a person asked of `rehearse backtest` to a plant and a policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.plants.base import Plant
from infra.traces import Trace, days, generate_trace, read_trace
from planner.encoded import encoded_plant
from planner.session import Bundle
from schemas.system import SystemSpec
from streams.backtest import Policy, exploring, policies
from streams.bundles import Shelf


@dataclass(frozen=True)
class BacktestSetup:
    """What was asked for."""

    spec: SystemSpec
    trace: Path | None
    day: int | None
    policy: str
    share: float
    seed: int
    bundles: tuple[Path, ...]
    plant: Mapping[str, Any]
    unhurried: bool = False


def prepare(setup: BacktestSetup) -> tuple[Plant, Policy]:
    """The plant and who decides. Raises `ValueError` with the remedy where there is no bundle."""
    options = dict(setup.plant)
    if "trace" in options:
        raise ValueError(f"-o trace={options['trace']}: name the load with --trace FILE")
    if setup.spec.plant is not None and setup.spec.plant.kind == "cluster":
        options["trace"] = load_of(setup)
    elif setup.trace is not None or setup.day is not None:
        name = "--day" if setup.trace is None else "--trace"
        raise ValueError(f"{name} is of a load, and {setup.spec.system} has none: leave it out")
    plant = encoded_plant(setup.spec, **options)
    return plant, policy_of(setup)


def load_of(setup: BacktestSetup) -> Trace:
    """The load: a file or generated traffic, whole or one day of it."""
    if setup.trace is not None:
        trace = read_trace(setup.trace)
    else:
        trace = generate_trace(days=1 if setup.day is None else 14, seed=setup.seed)
    if setup.day is None:
        return trace
    whole = days(trace)
    if not -len(whole) <= setup.day < len(whole):
        raise ValueError(
            f"--day {setup.day}: the trace has {len(whole)} full days: 0 to {len(whole) - 1}"
        )
    return whole[setup.day]


def policy_of(setup: BacktestSetup) -> Policy:
    """Who decides."""
    if setup.policy == "explore":
        return exploring(setup.spec, setup.share, setup.seed)
    bundle: Bundle | None = None
    if setup.policy != "fallback":
        bundle = Shelf(setup.spec, setup.bundles).get(None)
        if bundle is None:
            raise ValueError(
                f"no bundle fits {setup.spec.system}: train one with `rehearse train`, name its "
                "folder with --bundle, or choose --policy fallback"
            )
    return policies(setup.spec, bundle, setup.unhurried)[setup.policy]
