"""A worker as a process of its own, so that a test can kill it: `python -m … CONFIG.json`."""

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from schemas.system import load_spec
from streams.worker import WorkerError, run_worker


def main(config: dict[str, Any]) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
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
    Path(config["summary"]).write_text(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
