"""A worker as a process of its own, so that a test can kill it: `python -m … CONFIG.json`."""

import asyncio
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from faust.transport.consumer import Consumer

from schemas.system import load_spec
from streams import decide as decide_module
from streams import worker
from streams.relief import Relief
from streams.watchdog import WorkerError
from streams.worker import run_worker


def make_sluggish() -> None:
    """Widens the moment at the end of a recovery in which Faust empties its buffers.

    The seek before that moment takes long, and the loop begins to read long after it.
    """
    seek, decide = Consumer.perform_seek, decide_module.decide

    async def slow_seek(self: Any) -> None:
        await seek(self)
        await asyncio.sleep(1.5)  # a fetch that waits in vain takes a second

    async def late(stream: Any, desk: Any) -> None:
        await asyncio.sleep(3.0)
        await decide(stream, desk)

    setattr(Consumer, "perform_seek", slow_seek)  # noqa: B010
    setattr(worker, "decide", late)  # noqa: B010


def make_stuck() -> None:
    """The first frame never ends, and takes the event loop with it."""

    async def hang(stream: Any, desk: Any) -> None:
        async for _ in stream.noack().events():
            threading.Event().wait()

    setattr(worker, "decide", hang)  # noqa: B010


def make_slow(seconds: float) -> None:
    """Every frame takes so long to decide, and nothing else happens meanwhile."""
    respond = decide_module.respond

    def slowly(*args: Any) -> Any:
        time.sleep(seconds)
        return respond(*args)

    setattr(decide_module, "respond", slowly)  # noqa: B010


def watch_unacked() -> list[int]:
    """How many frames the consumer holds that are not acknowledged, twenty times a second."""
    seen: list[int] = []
    look = Relief.look

    async def watched(self: Any) -> None:
        seen.append(len(self._app.consumer.unacked))
        await look(self)

    setattr(Relief, "look", watched)  # noqa: B010
    return seen


def main(config: dict[str, Any]) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if config.get("sluggish"):
        make_sluggish()
    if config.get("stuck"):
        make_stuck()
    if config.get("slow_s"):
        make_slow(config["slow_s"])
    unacked = watch_unacked()
    try:
        summary = run_worker(
            load_spec(config["spec"]),
            config["bootstrap"],
            {},
            stop,
            bundles=[Path(p) for p in config["bundles"]],
            worker_id=config["worker"],
            data_dir=Path(config["data_dir"]),
            provider="cpu",
            **config.get("more", {}),
        )
    except WorkerError as error:
        print(error, file=sys.stderr)
        return 2
    summary["most_unacked"] = max(unacked, default=0)
    Path(config["summary"]).write_text(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
