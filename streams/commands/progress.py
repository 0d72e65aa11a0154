"""A progress bar that costs nothing where nobody sees it, and that an interrupt may end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streams.commands.console import console
from streams.plant import Stop

_EVERY_S: Final = 0.1


@contextmanager
def progress_bar(
    what: str, unit: str, shown: bool = True, interrupt: Stop | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be told how many are done and in all; a bar where there is a terminal.

    Args:
        unit: of what is counted, such as `ticks`.
        shown: whether there may be a bar.
        interrupt: raises `KeyboardInterrupt` once it is set, for work that knows of no stop.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    off = not (shown and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=off) as bar:
        task, last = bar.add_task(what, total=None), 0.0

        def tell(done: int, total: int) -> None:
            nonlocal last
            if interrupt is not None and interrupt.is_set():
                raise KeyboardInterrupt
            if not off and (done == total or time.monotonic() - last > _EVERY_S):
                last = time.monotonic()
                bar.update(task, completed=done, total=total)

        yield tell
