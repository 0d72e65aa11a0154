"""Events: a line each, with facts that cannot break it, and no standard output."""

import logging
import subprocess
import sys

import pytest

from infra.log import Lines, Log

LOG = Log("test")


def line(level: int, text: str, colours: bool = False) -> str:
    return Lines(colours).format(
        logging.LogRecord("rehearse.test", level, __file__, 1, text, (), None)
    )


def test_facts_stand_beside_the_event_in_the_order_of_their_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    LOG.warning("too many frames", of=12, before={("a", 1): 3}, kept=None)
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("WARNING", "rehearse.test")
    event, facts = record.getMessage()[:30], record.getMessage()[31:]
    assert (event.rstrip(), facts) == ("too many frames", "before={('a', 1): 3} kept=None of=12")


@pytest.mark.parametrize(
    ("fact", "shown"),
    [("plain", "x=plain"), ("two words", "x='two words'"), ("", "x=''"), (0.5, "x=0.5")],
)
def test_a_fact_is_one_word(caplog: pytest.LogCaptureFixture, fact: object, shown: str) -> None:
    LOG.error("event", x=fact)
    assert caplog.messages[0].endswith(shown)


@pytest.mark.parametrize("nasty", ["a\nb", "\x1b[2J", "100 %s of %d", "a=b", "it's"])
def test_no_fact_makes_lines_or_colours_of_its_own(
    caplog: pytest.LogCaptureFixture, nasty: str
) -> None:
    LOG.error("event", x=nasty)
    shown = Lines(colours=False).format(caplog.records[0])
    assert shown.isprintable()
    assert repr(nasty) in shown


def test_a_line_says_when_and_how_grave() -> None:
    shown = line(logging.WARNING, "what happened")
    stamp, rest = shown.split(" ", 1)
    assert len(stamp) == len("12:30:01.250")
    assert rest == "[warning  ] what happened"
    assert line(logging.ERROR, "e", colours=True).count("\x1b[") == 2


@pytest.mark.parametrize("set_up", [True, False])
def test_events_go_to_standard_error(set_up: bool) -> None:
    program = "from infra.log import Log, show_events\n"
    program += "show_events()\n" * set_up + "Log('t').info('well'); Log('t').warning('mind', x=1)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not done.stdout
    assert ("well" in done.stderr, "mind" in done.stderr) == (set_up, True)
