"""`rehearse`: one console script; each command says what it does with `--help` and an example."""

import os
import signal
from typing import ClassVar

import typer

from infra.signals import raise_interrupt
from streams.commands.lazy import Entry, LazyGroup
from streams.commands.log_setup import set_up_logging
from streams.supervise import PARENT, end_with_parent

_LOOP, _STUDY = "The whole loop", "Looking back, trying out"
_PARTS = "The parts, one process each"


def _entry(target: str, line: str, panel: str | None = None) -> Entry:
    return Entry(f"streams.commands.{target}", line, panel)


class Commands(LazyGroup):
    """Every command, where it is, and what it does; those that train come by entry point."""

    extensions = "rehearse.commands"
    table: ClassVar[dict[str, Entry]] = {
        "demo": _entry(
            "run:demo",
            "The whole loop on real topics: a live table, a summary, and an HTML report.",
            _LOOP,
        ),
        "run": _entry(
            "run:run",
            "Aligner, worker and sink (and plant), supervised, against any broker, until Ctrl-C.",
            _LOOP,
        ),
        "backtest": _entry(
            "study:backtest",
            "Run a system against its simulator without Kafka, as fast as it goes.",
            _STUDY,
        ),
        "record": _entry(
            "study:record",
            "Copy frames and trajectories of a system into a folder that can be replayed.",
            _STUDY,
        ),
        "import": _entry(
            "importing:import_",
            "Turn logs of other tools into a recording, or into readings on sensor topics.",
            _STUDY,
        ),
        "replay": _entry(
            "replaying:replay",
            "Decide recorded frames again, and compare "
            "(exit status 1: something came out differently).",
            _STUDY,
        ),
        "explain": _entry(
            "explaining:explain",
            "Say why one action was taken, what else there was, and what came of it.",
            _STUDY,
        ),
        "hold": _entry(
            "operate:hold",
            "Stop changing things: every actuator keeps its fallback value until `resume`.",
        ),
        "resume": _entry(
            "operate:resume", "Lift holds: of the entities named, or all that there are."
        ),
        "override": _entry(
            "operate:override",
            "Set an action by hand; the gate emits it, within range and rate, "
            "until `override … none`.",
        ),
        "rearm": _entry(
            "operate:rearm",
            "Open the gate's latches, of the entities named or all: "
            "a model may act for them again.",
        ),
        "doctor": _entry(
            "doctor:doctor",
            "Say what is installed, reachable and misconfigured here, each with its remedy.",
        ),
        "align": _entry(
            "processes:align",
            "Turn sensor topics into frames: one cohort of entities at one tick.",
            _PARTS,
        ),
        "perceive": _entry(
            "processes:perceive",
            "Encode raw messages, such as images or points: each becomes a reading of a sensor.",
            _PARTS,
        ),
        "worker": _entry(
            "processes:worker",
            "Decide: frames in; beliefs, gated actions and trajectories out.",
            _PARTS,
        ),
        "sink": _entry(
            "processes:sink",
            "Write trajectories to Parquet by system and day, and index them in the catalog.",
            _PARTS,
        ),
        "plant": _entry(
            "processes:plant",
            "Put the simulator that a spec names on its topics: readings out, actions in.",
            _PARTS,
        ),
        "broker": _entry("broker:broker_app", "The embedded Kafka broker.", "Kafka"),
        "topics": _entry("broker:topics_app", "The topics of a spec.", "Kafka"),
        "bundle": _entry("bundles:app", "Released models.", "Models"),
        "chaos": _entry(
            "chaos:chaos",
            "Strike the running loop with seeded faults, and check what it promises "
            "(status 1: broken).",
            _STUDY,
        ),
        "bench": _entry("bench:app", "The figures of this machine.", "Figures"),
    }


app = typer.Typer(
    name="rehearse",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Acts only after it has imagined what its action will do.\n\nExample: rehearse demo",
    epilog="Exit status 0: done, 1: a negative result, 2: an error that says what to do, "
    "69: no broker answers, 75: an error that a new start mends, 130: interrupted.",
)


@app.callback()
def _rehearse() -> None:
    """Without a command there is nothing to do."""


def main() -> None:
    """Entry point of the console script."""
    set_up_logging()
    raise_interrupt()
    if parent := os.environ.get(PARENT):
        end_with_parent(int(parent), lambda: os.kill(os.getpid(), signal.SIGTERM))
    app()


if __name__ == "__main__":
    main()
