"""Two workers of one id, started at the same instant: one goes on, the other says why it does not.

Whichever finds the other, before it joins or after: that is a matter of milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.supervise import Process
from tests.system.loop import make_topics
from tests.system.processes import Loop, until

pytestmark = [pytest.mark.broker, pytest.mark.system]


@pytest.mark.timeout(240)
def test_of_two_workers_of_one_id_one_gives_way(kafka: dict[str, str], tmp_path: Path) -> None:
    loop = Loop(tmp_path, kafka["bootstrap.servers"], "event")
    make_topics(loop.spec, kafka)
    words = ("worker", str(loop.spec_file), "--clock", "event", "--bundle", str(loop.bundle))
    twins = [
        Process(name, (*words, "--data-dir", str(tmp_path / name), *loop.broker), tmp_path)
        for name in ("one", "other")
    ]
    try:
        for process in twins:
            process.start()
        until(lambda: any(process.poll() is not None for process in twins), "that one gives way")
        (loser,) = (process for process in twins if process.poll() is not None)
        (winner,) = (process for process in twins if process.poll() is None)
        assert loser.poll() == 2
        assert "or give this worker an id of its own with --id" in loser.tail().replace("\n", " ")
        assert "Traceback" not in loser.log.read_text()
        winner.ask_to_stop()
        assert winner.wait(60) == 0
    finally:
        for process in twins:
            process.ask_to_stop()
        for process in twins:
            process.wait()
