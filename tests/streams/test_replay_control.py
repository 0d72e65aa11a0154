"""Step, back, seek, pause and rate: whatever is asked, each tick is decided as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.session import Bundle
from streams.recording import Recording
from streams.replay import ReplayError, replay
from streams.replay_control import Keys, Lines, Player, tick_at
from streams.replay_deck import Deck, Played
from streams.target import Pace
from tests.streams.runs import RUN_SPEC, decide_all, run_bundle, run_frames, write_recording

TICKS = range(200)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return run_bundle(tmp_path_factory.mktemp("bundles") / "b")


@pytest.fixture(scope="module")
def recording(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cohorts; the second one is never seen at tick 128, so it has no key frame there."""
    frames = [run_frames(0, TICKS), [f for f in run_frames(1, TICKS) if f.tick != 128]]
    logged = [item for found in frames for item in decide_all(bundle, found)]
    return write_recording(tmp_path_factory.mktemp("recording"), logged)


class Script:
    """Commands given beforehand; then the end."""

    def __init__(self, commands: Iterable[str | None]) -> None:
        self._left = list(commands)

    def next(self, wait_s: float) -> str | None:
        return self._left.pop(0) if self._left else "q"


def stepped(
    recording: Path, bundle: Bundle, *commands: str | None, **more: Any
) -> tuple[dict[str, Any], list[int]]:
    """What came out, and the ticks in the order in which they were shown."""
    said: list[str] = []
    result = replay(
        recording, bundles=[bundle.path], commands=Script(commands), say=said.append, **more
    )
    return result, [int(text.split()[1]) for text in said if text.startswith("tick ")]


def us(tick: int) -> int:
    return RUN_SPEC.epoch_us + tick * RUN_SPEC.period_us


def test_a_start_in_the_middle_decides_no_more_than_it_must(
    recording: Path, bundle: Bundle
) -> None:
    result = replay(recording, bundles=[bundle.path], from_us=us(190), to_us=us(195))
    assert (result["frames"], result["differences"]) == (2 * 6, 0)
    # From the key frames of tick 128 and, where there is none, of 64.
    assert result["lead"] == (190 - 129) + (190 - 65 - 1)
    at_key = replay(recording, bundles=[bundle.path], from_us=us(65), to_us=us(65))
    assert (at_key["lead"], at_key["frames"], at_key["differences"]) == (0, 2, 0)


def test_a_reinfer_in_the_middle_starts_from_the_same_bundles_beliefs_alone(
    recording: Path, bundle: Bundle, tmp_path: Path
) -> None:
    given_bundle = replay(recording, "reinfer", bundle=bundle.path, from_us=us(190))
    assert given_bundle["lead"] < 200
    none = replay(recording, "reinfer", bundles=[tmp_path], from_us=us(190))
    assert none["modes"] == {"fallback": none["decisions"]}
    assert none["lead"] == 2 * 190 - 1, "another bundle's rows are of no use"


def test_steps_forward_back_and_far(recording: Path, bundle: Bundle) -> None:
    result, shown = stepped(
        recording, bundle, "n", "n 2", "b", "]", "[", "g 150", "b 3", "g 5 s", "n", "q"
    )
    assert shown == [0, 1, 2, 1, 65, 1, 150, 147, 50, 51]
    assert result["differences"] == 0
    assert result["frames"] == 2 * len(set(shown)), "what was seen twice is counted once"
    assert result["complete"] is False


def test_a_date_and_what_cannot_be_done(recording: Path, bundle: Bundle) -> None:
    said: list[str] = []
    commands = Script(["g 1970-01-01T00:00:07", "g 999", "g soon", "n x", "dance", "q"])
    replay(recording, bundles=[bundle.path], commands=commands, say=said.append)
    assert said[0].startswith("tick 70 ")
    assert "not in the recording: 0 to 199" in said[1]
    assert "give a tick, a date" in said[2]
    assert "no count" in said[3]
    assert "space: go on" in said[4]


def test_between_two_ticks_it_is_the_next_or_where_asked_the_last() -> None:
    for text in ("20 s", "1970-01-01T00:00:20"):  # ticks of 15 s
        assert tick_at(text, 0, 0, 15_000_000) == 2
        assert tick_at(text, 0, 0, 15_000_000, last=True) == 1
    assert tick_at("30 s", 0, 0, 15_000_000, last=True) == 2


def test_it_goes_on_pauses_and_pauses_at_the_end(recording: Path, bundle: Bundle) -> None:
    said: list[str] = []
    commands = Script(["g 195", "p", None, None, "p", "p", *[None] * 9, "b", "q"])
    result = replay(recording, bundles=[bundle.path], commands=commands, say=said.append)
    shown = [text.split()[1] for text in said if text.startswith("tick ")]
    assert shown == ["195", "196", "197", "198", "199", "198"]
    assert "this is the end of the recording" in said
    assert result["differences"] == 0


def test_the_rate_is_halved_and_doubled(recording: Path, bundle: Bundle) -> None:
    said: list[str] = []
    commands = Script(["-", "+", "-", "-", "q"])
    replay(recording, bundles=[bundle.path], commands=commands, say=said.append, rate=8.0)
    assert [text.split()[0] for text in said] == ["4", "8", "4", "2"]


@settings(max_examples=6)
@given(st.lists(st.integers(0, 199), min_size=1, max_size=6))
def test_wherever_one_goes_the_tick_is_decided_as_it_was(
    recording: Path, bundle: Bundle, ticks: Sequence[int]
) -> None:
    result, shown = stepped(recording, bundle, *[f"g {tick}" for tick in ticks])
    assert shown == list(ticks)
    assert result["differences"] == 0


def test_lines_of_a_pipe_are_commands() -> None:
    ours, theirs = os.pipe()
    lines = Lines(ours)
    assert lines.next(0.0) is None
    os.write(theirs, b"n 3\n\ng 7")
    assert [lines.next(1.0) for _ in range(2)] == ["n 3", "n"]
    os.close(theirs)
    assert [lines.next(1.0) for _ in range(2)] == ["g 7", "q"]
    os.close(ours)


def test_keys_of_a_terminal_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = os.pipe()
    keys = Keys(ours)
    assert keys.next(0.0) is None
    os.write(theirs, b"\x1b[C\x1b[D n]\x1b[5~+")
    assert [keys.next(1.0) for _ in range(7)] == ["n", "b", "p", "n", "]", "[", "+"]
    os.write(theirs, b"g91\x7f0 s\rq")
    found = [keys.next(1.0) for _ in range(9)]
    assert [command for command in found if command] == ["g 90 s", "q"]
    assert "go to tick" in capsys.readouterr().err
    os.close(theirs)
    assert keys.next(1.0) == "q", "a terminal that is gone ends it"
    os.close(ours)


def test_steps_and_loops_exclude_each_other(recording: Path, bundle: Bundle) -> None:
    with pytest.raises(ReplayError, match="without --loop"):
        replay(recording, commands=Script([]), loop=True)


def command(recording: Path, bundle: Bundle, *arguments: str) -> list[str]:
    name = ["-c", "from streams.cli import main; main()", "replay", str(recording)]
    return [sys.executable, *name, "--bundles", str(bundle.path), "--json", *arguments]


def test_the_command_steps_by_lines_from_a_pipe(recording: Path, bundle: Bundle) -> None:
    done = subprocess.run(
        command(recording, bundle, "--step", "--entity", "r01"),
        input="n 2\ng 150\n",
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("tick ")]
    assert [line.split()[1] for line in lines] == ["0", "1", "150"]
    assert "r01: position[0]=" in done.stderr
    assert "r00" not in done.stderr
    result = json.loads(done.stdout)
    assert (result["frames"], result["differences"], result["lead"]) == (6, 0, 21 + 84)
    assert result["frames_per_s"] > 0


def test_an_interrupt_ends_it_with_its_result(recording: Path, bundle: Bundle) -> None:
    running = subprocess.Popen(
        command(recording, bundle, "--start-paused"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        assert running.stderr is not None
        while "paused" not in running.stderr.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, said = running.communicate()
    assert running.returncode == 0, said
    assert "Traceback" not in said
    result = json.loads(out)
    assert (result["frames"], result["complete"]) == (0, False)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_pace_is_a_multiple_of_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("streams.target.time", clock)
    pace = Pace(4.0)
    for second in range(9):
        pace.wait(second * 1_000_000, None)
    assert clock.now == pytest.approx(102.0)
    pace.again()
    pace.wait(500_000_000, None)
    assert clock.now == pytest.approx(102.0), "after a seek it counts anew"
    Pace(None).wait(10**15, None)
    stop = threading.Event()
    stop.set()
    pace.wait(10**15, stop)
    with pytest.raises(ValueError, match="--rate 0"):
        Pace(0.0)


def test_a_stop_ends_a_replay_between_ticks(recording: Path, bundle: Bundle) -> None:
    source, stop, seen = Recording.open(recording), threading.Event(), list[int]()
    deck = Deck(source, "pinned", source.spec)
    deck.load([bundle.path], None, "cpu")

    def on_tick(tick: int, played: list[Played]) -> None:
        seen.append(tick)
        if tick == 10:
            stop.set()

    assert Player(deck, Pace(None), on_tick, stop).run() is False
    assert seen == list(range(11))
    deck.close()
