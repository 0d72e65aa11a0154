"""Settings of Kafka's clients: pairs, files, the environment; and what is never repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.kafka import client_config
from infra.settings import VARIABLE, KafkaSetupError, as_environment, kafka_settings

SECRET = "hush=hush"


def test_extra_settings_are_passed_through_and_win() -> None:
    extra = kafka_settings(
        ["security.protocol=SASL_SSL", f"sasl.password={SECRET}", "bootstrap.servers=x:1"]
    )
    registry = {"schema.registry.url": "http://z:3"}
    assert client_config("y:2", registry) == {"bootstrap.servers": "y:2"}, "another client's"
    assert client_config("y:2", extra) == {
        "bootstrap.servers": "x:1",
        "security.protocol": "SASL_SSL",
        "sasl.password": SECRET,
    }


@pytest.mark.parametrize("pair", ["no-equals", "=value", " =value"])
def test_a_pair_that_is_none_is_refused(pair: str) -> None:
    with pytest.raises(KafkaSetupError, match="expected key=value"):
        kafka_settings([pair])


def test_a_file_holds_lines_and_what_comes_later_counts(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_bytes(
        f"\ufeff# ours\r\n\r\nsasl.username = me\r\nsasl.password={SECRET}\r\n".encode()
    )
    found = kafka_settings(["sasl.username=other", f"@{file}", "sasl.mechanism=PLAIN"])
    assert found == {"sasl.username": "me", "sasl.password": SECRET, "sasl.mechanism": "PLAIN"}


def test_a_line_that_is_none_is_named_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("sasl.username=me\nhush\n")
    with pytest.raises(KafkaSetupError, match=r"client\.properties: line 2: ") as caught:
        kafka_settings([f"@{file}"])
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"a=b\n" * 300_000])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "client.properties"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(KafkaSetupError, match=r"-X @.*client\.properties: "):
        kafka_settings([f"@{file}"])


def test_children_find_the_settings_in_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"sasl.password": SECRET, "sasl.username": "me"}
    monkeypatch.setenv(VARIABLE, as_environment(settings)[VARIABLE])
    assert kafka_settings(["sasl.username=other"]) == {**settings, "sasl.username": "other"}


@pytest.mark.parametrize("text", ["hush", "[1]", json.dumps({"hush": 1})])
def test_an_environment_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(KafkaSetupError, match=f"{VARIABLE}: expected a JSON object") as caught:
        kafka_settings([])
    assert "hush" not in str(caught.value)
