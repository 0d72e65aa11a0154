"""`rehearse`: one console script; each command says what it does with `--help` and an example."""

from importlib.metadata import entry_points

import structlog
import typer

from streams.commands import bench, broker, bundles, doctor, operate, processes, run, study
from streams.commands.log_setup import set_up_logging

app = typer.Typer(
    name="rehearse",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Acts only after it has imagined what its action will do.",
)
for module in (run, study, operate, doctor, processes):
    module.add(app)
app.add_typer(broker.broker_app, name="broker", rich_help_panel="Kafka")
app.add_typer(broker.topics_app, name="topics", rich_help_panel="Kafka")
app.add_typer(bundles.app, name="bundle", rich_help_panel="Models")
app.add_typer(bench.app, name="bench", rich_help_panel="Figures")

_log = structlog.get_logger(__name__)


def _mount_extensions() -> None:
    """Commands of other packages (training), found by entry point: never imported here."""
    for entry in entry_points(group="rehearse.commands"):
        extension: typer.Typer = entry.load()
        for command in extension.registered_commands:
            app.command(command.name, rich_help_panel="Models")(command.callback or _nothing)


def _nothing() -> None:
    """A command without a function does nothing."""


def main() -> None:
    """Entry point of the console script."""
    set_up_logging()
    _mount_extensions()
    app()


if __name__ == "__main__":
    main()
