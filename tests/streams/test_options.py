"""How errors end a command: a plain line, and a status that people and supervisors can tell."""

import pytest
import typer
from confluent_kafka import KafkaError, KafkaException

from streams.commands.options import errors, show
from streams.supervise import TryAgain

FORBIDDEN = "ProduceRequest for t [0] failed: Broker: Topic authorization failed"


def end_of(error: Exception) -> int:
    with pytest.raises(typer.Exit) as caught, errors():
        raise error
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("spec.yaml:3: field [actions]: unknown"), 2, "field [actions]: unknown"),
        (TryAgain("the broker went away"), 75, "the broker went away"),
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), 69, "Is the broker up?"),
        (KafkaException(KafkaError(KafkaError._FATAL, FORBIDDEN)), 2, "Give this user its rights"),
        (TryAgain(f"Kafka did not confirm: {FORBIDDEN}"), 75, "Give this user its rights"),
        (TryAgain("t: Broker: Message size too large"), 75, "Raise max.message.bytes"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    error: Exception, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_of(error) == status
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1


def test_what_lies_deeper_is_shown_behind_the_names_that_lead_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker = {"frames": 7, "gate": {"rate": 2, "late": 0}, "gaps": {}}
    show({"system": "zoo", "worker": worker, "runs": [1, 2]}, as_json=False)
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert told == [
        "system zoo",
        "worker frames 7",
        "worker gate rate 2",
        "worker gate late 0",
        "worker gaps –",
        "runs 1, 2",
    ]
