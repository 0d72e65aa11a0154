"""Logs of other tools: import."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.commands.console import console
from streams.commands.options import (
    Bootstrap,
    Extra,
    Json,
    Spec,
    catalog_url,
    cluster_of,
    errors,
    show,
    spec_of,
    stopping,
)
from streams.commands.progress import progress_bar

LiveTopics = Annotated[
    bool,
    typer.Option("--live-topics", help="Yes, --to-topics names the very system: write its topics."),
]


def import_(
    spec: Spec,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="MCAP, ROS bag, ULog, CSV or Parquet."),
    ],
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--map", help="What feeds which channel; default: SPEC.map.yaml beside SPEC.yaml."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the recording.")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Say what is in the files; import nothing.")
    ] = False,
    to_topics: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Send the readings to NAME.sensors.…, as devices would."),
    ] = None,
    live_topics: LiveTopics = False,
    rate: Annotated[
        float | None, typer.Option(help="With --to-topics: times real time; default: full speed.")
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="With --to-topics: shift times, so that it begins now.")
    ] = False,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Turn logs of other tools into a recording, or into readings on sensor topics.

    The frames are those that the aligner would have made of the same readings. Nothing in such a
    recording was decided: `rehearse replay RECORDING --mode reinfer` decides on it.

    Example: rehearse import husky.yaml drive.bag --map husky.map.yaml --out ./drive
    """
    with errors(), stopping() as stop:
        if list_:
            show(_listed(files), as_json)
            return
        if out is None and to_topics is None:
            raise ValueError("say where to: --out FOLDER for a recording, or --to-topics NAME")
        from streams.imports.gather import gather
        from streams.imports.mapping import load_mapping
        from streams.imports.run import make_recording

        system = spec_of(spec)
        located = load_mapping(mapping or _beside(spec), system)
        target = None
        if to_topics is not None:
            from streams.target import target_of

            target = target_of(system, to_topics, live_topics)
        with _whole(), progress_bar("reading", "readings", interrupt=stop) as shown:
            gathered = gather(located, system, files, shown)
        result: dict[str, Any] = {}
        if out is not None:
            with progress_bar("aligning", "readings") as shown:
                result = make_recording(
                    system,
                    gathered,
                    out,
                    files,
                    stop=stop,
                    catalog_url=catalog_url(),
                    on_progress=shown,
                )
        if target is not None and not stop.is_set():
            from streams.imports.publish import publish

            place = cluster_of(bootstrap, extra, "replay")
            with progress_bar("sending", "readings") as shown:
                sent = publish(
                    target, gathered, *place, rate=rate, now=now, stop=stop, on_progress=shown
                )
            result |= {**sent, "complete": sent["complete"] and result.get("complete", True)}
    show(result, as_json)
    raise typer.Exit(0 if result.get("complete") else 1)


@contextmanager
def _whole() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped; nothing was imported")
        raise typer.Exit(130) from None


def _beside(spec: str) -> Path:
    from schemas.system import spec_path

    return spec_path(spec).with_suffix(".map.yaml")


def _listed(files: list[Path]) -> dict[str, Any]:
    from streams.imports.gather import contents

    return {
        f"{path.name}: {found.topic}" if len(files) > 1 else found.topic: {
            "readings": found.readings,
            "fields": list(found.fields),
        }
        for path in files
        for found in contents(path)
    }
