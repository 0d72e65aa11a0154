"""What a demo runs: its options, a folder and a spec of its own, and the load."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from infra.traces import Trace, generate_trace, read_trace
from schemas.system import SystemSpec, load_spec, parse_spec, spec_path
from schemas.yaml_lines import read_text
from streams.baselines import Split, split

DATA_FILE: Final = "worldcup98_requests_per_minute.parquet"
NAV2D_TICKS: Final = 300  # half a minute at 10 Hz


@dataclass(frozen=True)
class DemoOptions:
    """What `rehearse demo` was asked for."""

    system: str = "autoscale"
    trace: Path | None = None
    time_column: str | None = None
    value_column: str | None = None
    day: int | None = None
    ticks: int | None = None
    seed: int = 0
    bundles: tuple[Path, ...] = ()
    plant_options: Mapping[str, Any] = field(default_factory=dict)
    keep_topics: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything a run needs, before anything is started."""

    spec: SystemSpec
    spec_file: Path
    folder: Path
    ticks: int | None
    plant: dict[str, Any]
    window: Split | None
    facts: dict[str, Any]


def set_scene(options: DemoOptions, home: Path) -> Scene:
    """A run folder with its own spec (topics of its own), and the load where the plant has one.

    Raises `ValueError` where an option says something of a load that there is not.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    template = load_spec(options.system)
    _check(options, template)
    name = f"{template.system}-{stamp}-{os.getpid()}"
    folder = home / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    text = read_text(spec_path(options.system))
    text = "\n".join(
        f"system: {name}" if line.startswith("system:") else line for line in text.splitlines()
    )
    spec_file = folder / "spec.yaml"
    spec_file.write_text(text + "\n")
    spec = parse_spec(text, str(spec_file))
    facts: dict[str, Any] = {"system": template.system, "spec": spec.spec_hash}
    plant = dict(options.plant_options)
    window = None
    ticks = options.ticks
    if spec.plant is not None and spec.plant.kind == "cluster":
        trace, facts["load"] = choose_trace(options)
        window = split(trace, options.day)
        plant["trace"] = write_trace(window.scored, folder / "load.parquet")
    elif ticks is None:
        ticks = NAV2D_TICKS
    return Scene(spec, spec_file, folder, ticks, plant, window, facts)


def _check(options: DemoOptions, spec: SystemSpec) -> None:
    if "trace" in options.plant_options:
        raise ValueError(
            f"-o trace={options.plant_options['trace']}: name the load with --trace FILE"
        )
    load = ("trace", "day", "time_column", "value_column")
    given = [f"--{name.replace('_', '-')}" for name in load if getattr(options, name) is not None]
    if given and (spec.plant is None or spec.plant.kind != "cluster"):
        raise ValueError(
            f"{given[0]} is of a load, and {spec.system} has none: leave it out, or choose "
            "--system autoscale"
        )
    if options.trace is None and given and given[-1] != "--day":
        raise ValueError(f"{given[-1]} is of a file: name it with --trace FILE")


def choose_trace(options: DemoOptions) -> tuple[Trace, str]:
    """The load, and where it comes from: --trace, the recorded data at hand, or the generator."""
    path = options.trace
    data = os.environ.get("REHEARSE_DATA")
    if path is None and data and (Path(data) / DATA_FILE).is_file():
        path = Path(data) / DATA_FILE
    if path is None:
        days, seed = 14, options.seed
        return generate_trace(days=days, seed=seed), f"generated traffic, {days} days, seed {seed}"
    return read_trace(path, options.time_column, options.value_column), path.name


def write_trace(trace: Trace, path: Path) -> Path:
    """A trace as the plant reads it: time and requests per bin."""
    rates = trace.rates
    times = trace.start_us + (
        pl.arange(0, rates.shape[-1], eager=True) * round(trace.bin_seconds * 1e6)
    )
    table = pl.DataFrame(
        {"time": times.cast(pl.Datetime("us")), "requests": rates * trace.bin_seconds}
    )
    table.write_parquet(path)
    return path
