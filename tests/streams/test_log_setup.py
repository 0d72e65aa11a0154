"""Lines that libraries repeat are shown seldom, and counted."""

import logging

from streams.commands.log_setup import REPEAT_S, Seldom


def record(template: str, *values: object, name: str = "aiokafka") -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, template, values, None)


def test_a_line_is_shown_once_in_a_while_and_the_rest_is_counted() -> None:
    now = 0.0
    seldom = Seldom(lambda: now)
    shown = []
    for i in range(250):
        now = i * 0.1
        line = record("no connection to node %s", i)
        if seldom.filter(line):
            shown.append(line.getMessage())
    passed = round(REPEAT_S / 0.1)
    more = f"(and {passed - 1} more like it before)"
    assert shown == [
        "no connection to node 0",
        f"no connection to node {passed} {more}",
        f"no connection to node {2 * passed} {more}",
    ]


def test_what_is_another_line_or_another_librarys_is_shown() -> None:
    seldom = Seldom(lambda: 0.0)
    lines = [record("a"), record("b"), record("a", name="faust"), record("a")]
    assert [seldom.filter(line) for line in lines] == [True, True, True, False]
