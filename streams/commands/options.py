"""Options that several commands share, how results are printed, and how errors end a command."""

import contextlib
import errno
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from confluent_kafka import KafkaException

from infra.home import default_catalog, home_folder
from infra.home import home_bundles as home_bundles
from infra.kafka import client_config, is_away, wait_ready
from infra.log import Log
from infra.plants.base import option_value
from infra.settings import kafka_settings
from infra.signals import interrupting
from infra.signals import stopping as stopping
from planner.library import SHIPPED
from planner.library import bundle_roots as bundle_roots
from planner.manifest import MANIFEST
from planner.naming import find_bundle
from schemas.plain_json import json_line
from schemas.roles import Role
from schemas.system import SystemSpec, load_spec
from schemas.topics import WorkerRole
from streams.supervise import STATUS_AGAIN, STATUS_AWAY, TryAgain

_AWAY: Final = "Is the broker up? Try again when it is."
_REFUSALS: Final = {
    "authorization failed": "Give this user its rights with: rehearse topics create SPEC",
    "Message size too large": "Raise max.message.bytes of the topic, or `cohorts` in the spec.",
}
"""What brokers say when they refuse for good, and what helps."""

ANSWER_S = 10.0  # for which a cluster may be silent before a command gives up

Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="A shipped system (autoscale, nav2d) or a YAML file.")
]
Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        metavar="HOST:PORT,…",
        help="Kafka to use; without it, the embedded broker is started.",
    ),
]
Extra = Annotated[
    list[str] | None,
    typer.Option(
        "-X",
        metavar="KEY=VALUE",
        help="A setting of librdkafka, e.g. security.protocol=SASL_SSL; or @FILE with such lines, "
        "where passwords are not seen in `ps`.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65_535,
        help="Prometheus may scrape this port; 0: any free one, which the log names.",
    ),
]
MetricsHost = Annotated[
    str, typer.Option(help="Address that it is served on; 0.0.0.0: to other machines as well.")
]
Bundles = Annotated[
    list[str] | None,
    typer.Option(
        "--bundle",
        metavar="BUNDLE",
        help="Acts until a release: a folder, URL, NAME, NAME@3, NAME@champion or digest; may be "
        "repeated. Default: shipped.",
    ),
]

PlantOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="NAME=VALUE", help="Of the plant; may be repeated."),
]
Ticks = Annotated[int | None, typer.Option(min=1, help="Stop after so many ticks.")]
Shadow = Annotated[
    bool, typer.Option("--shadow", help="Decide and log; publish no action: how to start.")
]
Twin = Annotated[
    bool,
    typer.Option(
        "--twin", help="A second worker, that answers where the first does not in time: see README."
    ),
]
ClockName = Annotated[
    Literal["wall", "event"],
    typer.Option("--clock", help="Real time, or the time that the readings' watermarks say."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="Where models run; the CPU where CUDA cannot be used, which is said."),
]
CatalogUrl = Annotated[
    str | None,
    typer.Option("--catalog", help="SQLAlchemy URL of the catalog; default: SQLite at home."),
]
From = Annotated[int | None, typer.Option("--from", metavar="US", help="Event time.")]
To = Annotated[int | None, typer.Option("--to", metavar="US", help="Event time.")]


def extra_settings(pairs: list[str] | None) -> dict[str, str]:
    """The librdkafka settings in the environment, and those given as KEY=VALUE or @FILE."""
    return kafka_settings(pairs or [])


def ways_of(pairs: list[str]) -> dict[str, str]:
    """Topics given as FROM=TO."""
    found = {}
    for pair in pairs:
        source, sign, target = pair.partition("=")
        if not (source and sign and target):
            raise typer.BadParameter(f"{pair!r}: write it as FROM=TO", param_hint="--repartition")
        found[source] = target
    return found


def worker_role(shadow: bool, twin: bool) -> WorkerRole:
    """What a worker is to the system."""
    if shadow and twin:
        raise ValueError("--shadow publishes nothing, and a twin does: choose one of them")
    return "shadow" if shadow else "twin" if twin else "first"


def plant_options(pairs: list[str] | None) -> dict[str, Any]:
    """Options given as NAME=VALUE, values as in a spec: `robots=50`, `set={m: 1.5}`."""
    options: dict[str, Any] = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"{pair!r}: write it as NAME=VALUE", param_hint="--option")
        try:
            options[name] = option_value(value)
        except ValueError as error:
            raise typer.BadParameter(f"{pair!r}: {error}", param_hint="--option") from error
    return options


def spec_of(name: str) -> SystemSpec:
    """The spec named on the command line."""
    return load_spec(name)


def cluster_of(
    bootstrap: str | None, extra: list[str] | None, role: Role = "admin"
) -> tuple[str, dict[str, str]]:
    """The cluster to use: its bootstrap servers, and librdkafka's settings given for it.

    One that was named is asked first, so that whoever is not let in hears it at once and why. Where
    the embedded broker asks for passwords, those of `role` are used, unless others were given.
    """
    given = extra_settings(extra)
    if bootstrap:
        wait_ready(client_config(bootstrap, given), ANSWER_S)
        return bootstrap, given
    from infra.broker import start
    from streams.commands.console import console

    broker = start(progress=lambda text: console.print(f"[dim]{text}[/]"))
    return broker.bootstrap, {**broker.settings(role), **given}


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result: one JSON object, or name and value lines for people."""
    if as_json:
        sys.stdout.write(json_line(result) + "\n")
        sys.stdout.flush()
        return
    from rich.console import Console

    out = Console()
    for name, value in _lines(result):
        out.print(f"[bold]{name:>24}[/]  {value}", highlight=False)


def _lines(result: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, those of what lies deeper behind the names that lead there."""
    for name, value in result.items():
        if isinstance(value, Mapping) and value:
            yield from _lines(value, f"{within}{name} ")
        elif isinstance(value, Mapping):
            yield f"{within}{name}", "–"
        else:
            several = isinstance(value, list | tuple)
            yield f"{within}{name}", ", ".join(map(str, value)) if several else str(value)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Turn the errors that a user can mend into one message and exit status 2.

    What a new start mends ends with status 75 instead, and where no broker answers it is 69: a
    supervisor acts upon both.
    """
    try:
        yield
    except typer.Exit:  # a command that has said why
        raise
    except (OSError, ValueError, RuntimeError, KafkaException) as error:
        from rich.text import Text

        from streams.commands.console import console

        console.print(Text.assemble(("error ", "bold red"), _plainly(error)), soft_wrap=True)
        raise typer.Exit(_status(error)) from error


def _status(error: Exception) -> int:
    if is_away(error):
        return STATUS_AWAY
    return STATUS_AGAIN if isinstance(error, TryAgain) else 2


def _plainly(error: Exception) -> str:
    text = str(error)
    refused = next((remedy for said, remedy in _REFUSALS.items() if said in text), "")
    if isinstance(error, KafkaException) and error.args and hasattr(error.args[0], "str"):
        return f"Kafka: {error.args[0].str()}. {refused or _AWAY}"
    if refused and "rehearse topics" not in text:  # it may come with a remedy of its own
        return f"{text}. {refused}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}the disk is full: free some, or name another folder; then start again"
    return str(error) or type(error).__name__


@contextlib.contextmanager
def metrics_at(port: int | None, host: str) -> Iterator[None]:
    """Serve what this process counts to Prometheus, where a port is given."""
    from streams.metrics import serving

    with serving(port, host) as found:
        if found is not None:
            Log("metrics").info("served", url=f"http://{host}:{found}/metrics")
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM end the command through its clean-up, which a second one does not stop."""
    try:
        with interrupting():
            yield
    except KeyboardInterrupt:
        from streams.commands.console import console

        console.print("stopped; nothing of this run is left running")
        raise typer.Exit(130) from None


def acting_bundles(given: list[str] | None) -> list[Path]:
    """Where the bundle that acts until a release comes from: as given, else the shipped ones.

    What somebody trained or copied into the home folder acts only once it is released.

    Raises `ValueError` where one that was named is not there, or damaged.
    """
    return [_acting(folder) for folder in given or ()] or [SHIPPED]


def _acting(which: str) -> Path:
    """A folder of bundles as it is; one bundle, named in any way, as its folder, whole."""
    folder = Path(which)
    if which and folder.is_dir() and not (folder / MANIFEST).exists():
        return folder
    try:
        return find_bundle(which)[0]
    except ValueError as error:
        raise ValueError(f"--bundle {error}") from error


def catalog_url() -> str:
    """The catalog that `REHEARSE_CATALOG` names, else that in the home folder."""
    home_folder().mkdir(parents=True, exist_ok=True)
    return default_catalog()
