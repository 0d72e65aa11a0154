"""Recordings once more: replay."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from planner.naming import find_bundle
from streams.commands.console import console
from streams.commands.importing import LiveTopics
from streams.commands.options import (
    Bootstrap,
    Extra,
    From,
    Json,
    To,
    bundle_roots,
    cluster_of,
    errors,
    show,
    spec_of,
    stopping,
)
from streams.commands.progress import progress_bar

Folder = Annotated[Path, typer.Argument(help="Folder of `rehearse record` or `import`.")]
Mode = Annotated[
    Literal["pinned", "reinfer"],
    typer.Option(help="As it was decided then, bit for bit; or anew, as if there were time."),
]
Diff = Annotated[
    str, typer.Option(help="Compare with what was `recorded`, with a file, or with `nothing`.")
]
OneBundle = Annotated[str | None, typer.Option(metavar="BUNDLE", help="Decides instead (reinfer).")]
Roots = Annotated[list[Path] | None, typer.Option(help="Folders to find the recorded bundles in.")]
OtherSpec = Annotated[str | None, typer.Option(help="Wanted instead (reinfer).")]
Entity = Annotated[str | None, typer.Option(help="Compare and show this one alone.")]
Rate = Annotated[
    float | None,
    typer.Option(help="Times real time; default: full speed (with --now: 1)."),
]
Paused = Annotated[bool, typer.Option("--start-paused", help="Wait for Enter.")]
Step = Annotated[
    bool,
    typer.Option(
        "--step",
        help="By hand: keys of the terminal (space n b [ ] g + - q), or lines like `n 3`, "
        "`g 90 s` on standard input.",
    ),
]
Again = Annotated[bool, typer.Option("--loop", help="Begin again at the end, until Ctrl-C.")]
Tolerance = Annotated[float, typer.Option(min=0.0, help="Difference that counts as none.")]
UpdateRefs = Annotated[
    bool, typer.Option("--update-refs", help="Write the file that --diff names.")
]
ReportFile = Annotated[Path | None, typer.Option(help="HTML page: who decided, what differs.")]
ToTopics = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Send what is played to the topics of a system NAME."),
]
Publish = Annotated[
    Literal["frames", "decisions", "all"],
    typer.Option(help="With --to-topics: what its workers decide on, what was decided, both."),
]
Now = Annotated[
    bool, typer.Option("--now", help="With --to-topics: shift times, so that it begins now.")
]


def replay(
    recording: Folder,
    mode: Mode = "pinned",
    diff: Diff = "recorded",
    bundle: OneBundle = None,
    bundles: Roots = None,
    spec: OtherSpec = None,
    from_: From = None,
    to: To = None,
    entity: Entity = None,
    rate: Rate = None,
    start_paused: Paused = False,
    step: Step = False,
    loop: Again = False,
    tolerance: Tolerance = 0.0,
    update_refs: UpdateRefs = False,
    report: ReportFile = None,
    to_topics: ToTopics = None,
    publish: Publish = "frames",
    live_topics: LiveTopics = False,
    now: Now = False,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Decide recorded frames again, and compare (exit status 1: something came out differently).

    Never writes to any topic but to those of a system that --to-topics names; the recorded
    system's own need --live-topics as well. With --from, and when stepping, it starts from the
    belief rows of the last key frame.

    Example: rehearse backtest nav2d --ticks 100 --record ./monday && rehearse replay ./monday

    Example: rehearse replay ./monday --step --entity robot-003

    Example: rehearse replay ./monday --to-topics monday-again --rate 10 --now
    """
    from streams.replay import replay as run

    targets: dict[str, Literal["recorded"] | None] = {"recorded": "recorded", "nothing": None}
    bar = progress_bar(f"replaying {recording}", "ticks", shown=not step)
    with errors(), stopping() as stop, bar as shown:
        sink = _sink(recording, to_topics, live_topics, publish, now, bootstrap, extra)
        with _commands(step) as commands:
            result = run(
                recording,
                mode,
                bundles=tuple(bundles or bundle_roots()),
                bundle=None if bundle is None else find_bundle(bundle)[0],
                spec=None if spec is None else spec_of(spec),
                from_us=from_,
                to_us=to,
                entity=entity,
                rate=1.0 if now and rate is None else rate,
                start_paused=start_paused,
                loop=loop,
                diff=targets[diff] if diff in targets else Path(diff),
                tolerance=tolerance,
                update_refs=update_refs,
                report=report,
                stop=stop,
                commands=commands,
                say=_say if step else None,
                sink=sink,
                on_progress=shown,
            )
        if sink is not None:
            sink.close()
    show(result, as_json)
    raise typer.Exit(1 if result["differences"] else 0)


def _sink(
    recording: Path,
    name: str | None,
    live_topics: bool,
    what: Literal["frames", "decisions", "all"],
    now: bool,
    bootstrap: str | None,
    extra: list[str] | None,
) -> Any:
    if name is None:
        if live_topics or now:
            raise ValueError("--live-topics and --now say where and when: add --to-topics NAME")
        return None
    from streams.recording import Recording
    from streams.replay_publish import ReplayPublisher
    from streams.target import target_of

    target = target_of(Recording.open(recording, verify=False).spec, name, live_topics)
    return ReplayPublisher(target, *cluster_of(bootstrap, extra, "replay"), what, now)


def _commands(step: bool) -> Any:
    if not step:
        return nullcontext()
    from streams.replay_control import KEYS, from_stdin

    _say(KEYS)
    return from_stdin()


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
