"""Settings, ports and the data folder of the one-node cluster."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from infra import kraft


def test_the_settings_say_the_port_again(tmp_path: Path) -> None:
    file = tmp_path / "server.properties"
    assert kraft.configured_port(file) is None
    kraft.write_settings(file, 23456)
    assert kraft.configured_port(file) == 23456
    lines = file.read_text().splitlines()
    assert "controller.quorum.voters=1@127.0.0.1:23457" in lines
    assert "auto.create.topics.enable=false" in lines


@pytest.mark.parametrize("damaged", [b"", b"listeners=PLAIN", b"\xff\xfe\x00"])
def test_damaged_settings_name_no_port(tmp_path: Path, damaged: bytes) -> None:
    file = tmp_path / "server.properties"
    file.write_bytes(damaged)
    assert kraft.configured_port(file) is None


def test_a_home_gets_the_same_port_each_time_unless_it_or_the_next_is_taken() -> None:
    port = kraft.free_port(None, "some home")
    assert kraft.free_port(None, "some home") == port
    assert kraft.free_port(port, "another home") == port
    for taken in (port, port + 1):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", taken))
            holder.listen()
            assert kraft.free_port(port, "some home") not in (taken - 1, taken)


def test_a_node_for_a_proxy_says_where_the_proxy_is_and_where_it_leads(tmp_path: Path) -> None:
    file = tmp_path / "server.properties"
    assert kraft.proxy_ports(file) is None
    kraft.write_settings(file, 23456)
    assert kraft.proxy_ports(file) is None
    kraft.write_settings(file, 23456, own=kraft.proxied(23456))
    assert kraft.configured_port(file) == 23456
    assert kraft.proxy_ports(file) == (23459, 23458)


def test_its_ports_are_free_but_for_that_of_its_own_proxy() -> None:
    port = kraft.free_port(None, "a home", proxied=True)
    for taken, same in ((port + 2, False), (port + 3, True)):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", taken))
            holder.listen()
            assert (kraft.free_port(port, "a home", proxied=True) == port) is same
            assert kraft.free_port(None, "a home", proxied=True) != port


def test_a_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(kraft.BrokerError, match="StorageTool"):
        kraft.make_data_folder(tmp_path, [tmp_path / "no.jar"], 23456)
    assert not (tmp_path / "data").exists()
