"""`rehearse broker …` and `rehearse topics …`."""

import sys
from typing import Annotated

import typer

from infra import broker as embedded
from infra.broker import Broker, secret_folder
from infra.kafka import client_config
from infra.secure import settings_file
from schemas.asyncapi import document, document_yaml
from schemas.plain_json import json_line
from schemas.roles import ROLES
from schemas.topics import TABLE, topics_of
from streams.commands.console import console
from streams.commands.options import (
    Bootstrap,
    Extra,
    Json,
    Spec,
    cluster_of,
    errors,
    show,
    spec_of,
)
from streams.make_topics import make_topics
from streams.topic_check import check_topics

broker_app = typer.Typer(no_args_is_help=True, help="The embedded Kafka broker.")
topics_app = typer.Typer(no_args_is_help=True, help="The topics of a spec.")


@broker_app.command("start")
def broker_start(
    secure: Annotated[
        bool | None,
        typer.Option(
            "--secure/--plain",
            help="With TLS, a password for each role, and rights; or open to everybody here. "
            "Default: as the last time. Either kind has topics of its own.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start the embedded broker, or find the one that runs.

    Example: rehearse broker start

    A secured one says which settings (-X @FILE) each role uses. Without -X, every command finds
    those of its role by itself, and `rehearse run` gives each of its processes the right ones.

    Example: rehearse broker start --secure
    """
    with errors():
        found = embedded.start(
            progress=lambda text: console.print(f"[dim]{text}[/]"), secured=secure
        )
    facts = {"bootstrap": found.bootstrap, "pid": found.pid, "home": str(found.home)}
    show(facts | _secured(found, as_json), as_json)


def _secured(found: Broker, as_json: bool) -> dict[str, object]:
    """What is said of a secured broker: the settings of each role."""
    files = {r: str(settings_file(secret_folder(found.home), r)) for r in ROLES}
    if as_json:
        return {"secured": found.secured, "settings": files if found.secured else {}}
    return {role: f"-X @{file}" for role, file in files.items()} if found.secured else {}


@broker_app.command("stop")
def broker_stop(as_json: Json = False) -> None:
    """Stop the embedded broker; its data stays.

    Example: rehearse broker stop
    """
    with errors():
        stopped = embedded.stop()
    show({"stopped": stopped}, as_json)
    raise typer.Exit(0 if stopped else 1)


@broker_app.command("status")
def broker_status(as_json: Json = False) -> None:
    """Say whether the embedded broker runs, and where (exit status 1: it does not).

    Example: rehearse broker status --json
    """
    with errors():
        found = embedded.status()
    if found is None:
        show({"running": False}, as_json)
        raise typer.Exit(1)
    facts = {"running": True, "bootstrap": found.bootstrap, "pid": found.pid}
    show(facts | _secured(found, as_json), as_json)


@topics_app.command("create")
def topics_create(
    spec: Spec, bootstrap: Bootstrap = None, extra: Extra = None, as_json: Json = False
) -> None:
    """Create the topics of a spec that are not there yet; give rights on a secured broker.

    Example: rehearse topics create autoscale
    """
    with errors():
        system = spec_of(spec)
        make_topics(system, *cluster_of(bootstrap, extra))
    show({"topics": [t.name for t in topics_of(system)]}, as_json)


@topics_app.command("check")
def topics_check(
    spec: Spec,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option(help="Say what each topic is for.")] = False,
) -> None:
    """Compare the topics of a cluster with what a spec needs (exit status 1: they differ).

    Example: rehearse topics create autoscale && rehearse topics check autoscale

    `for_one_aligner` names sensor topics that several aligners could not share: of a sample of
    their records some are not in the partition of their key.
    """
    from streams.topic_check import for_one_aligner

    with errors():
        system = spec_of(spec)
        wanted, cluster = topics_of(system), cluster_of(bootstrap, extra)
        problems = check_topics(client_config(*cluster), wanted)
        alone = for_one_aligner(system, *cluster)
    result: dict[str, object] = {
        "topics": len(wanted),
        "problems": problems,
        "for_one_aligner": alone,
    }
    if verbose:
        result |= {t.name: TABLE[t.kind].what for t in wanted}
    show(result, as_json)
    raise typer.Exit(1 if problems else 0)


@topics_app.command("describe")
def topics_describe(
    spec: Annotated[
        str | None,
        typer.Argument(metavar="[SPEC]", help="Without it, what holds for every system."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON instead of YAML.")] = False,
) -> None:
    """Write the AsyncAPI 3 document of the topics: addresses, keys, messages, columns, units.

    Example: rehearse topics describe nav2d > nav2d.asyncapi.yaml
    """
    with errors():
        system = None if spec is None else spec_of(spec)
    text = json_line(document(system)) + "\n" if as_json else document_yaml(system)
    sys.stdout.write(text)
