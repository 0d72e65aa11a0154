"""An Apache Kafka that lets in over TLS and with a password alone: no other door is open."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from infra import jars, kraft
from infra.kafka import wait_ready

USER, PASSWORD = "rehearse", "pass=word"
_BROKER, _BROKERS_OWN = "broker", "between-brokers"


@dataclass(frozen=True)
class Secured:
    """The cluster: its address, and what a client must be given to be let in."""

    bootstrap: str
    extra: dict[str, str]  # librdkafka's settings


@contextmanager
def secured_kafka(folder: Path) -> Iterator[Secured]:
    """Runs a Kafka in `folder` whose one listener is SASL_SSL."""
    port = kraft.free_port(None, seed=str(folder))
    ca_file, key_file = _certificates(folder)
    settings, libraries = folder / "server.properties", jars.classpath()
    kraft.write_settings(settings, port)
    with settings.open("a") as file:  # where a key comes twice, Java takes the last
        file.writelines(f"{key}={value}\n" for key, value in _listener(port, key_file).items())
    kraft.make_data_folder(folder, libraries, port)
    extra = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(ca_file),
    }
    log = (folder / "broker.log").open("wb")
    command = kraft.server_command(libraries, settings)
    with log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as server:
        try:
            bootstrap = f"{kraft.HOST}:{port}"
            wait_ready({"bootstrap.servers": bootstrap, **extra}, 60)
            yield Secured(bootstrap, extra)
        finally:
            server.terminate()


def _certificates(folder: Path) -> tuple[Path, Path]:
    """A CA of our own for clients to trust, and in one file the broker's key and certificate."""
    ca_file, key_file = folder / "ca.pem", folder / "broker.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca_file))
    issued = authority.issue_cert(kraft.HOST)
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    # Java reads keys in PKCS #8 alone.
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for certificate in issued.cert_chain_pems:
        certificate.write_to_path(str(key_file), append=True)
    return ca_file, key_file


def _listener(port: int, key_file: Path) -> dict[str, str]:
    users = {_BROKER: _BROKERS_OWN, USER: PASSWORD}
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    known = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    own = f'username="{_BROKER}" password="{_BROKERS_OWN}"'
    return {
        "listeners": f"SASL_SSL://{kraft.HOST}:{port},CONTROLLER://{kraft.HOST}:{port + 1}",
        "advertised.listeners": f"SASL_SSL://{kraft.HOST}:{port}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "security.inter.broker.protocol": "SASL_SSL",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{module} required {own} {known};",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(key_file),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(key_file.with_name("ca.pem")),
    }
