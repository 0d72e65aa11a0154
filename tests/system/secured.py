"""An Apache Kafka with one door: TLS with certificates on both sides, and a password."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from infra import jars, kraft
from infra.kafka import client_config, wait_ready

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
    _make_certificates(folder)
    settings, libraries = folder / "server.properties", jars.classpath()
    kraft.write_settings(settings, port)
    with settings.open("a") as file:  # where a key comes twice, Java takes the last
        file.writelines(f"{key}={value}\n" for key, value in _listener(port, folder).items())
    kraft.make_data_folder(folder, libraries, port)
    extra = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(folder / "ca.pem"),
        "ssl.certificate.location": str(folder / "client.pem"),
        "ssl.key.location": str(folder / "client.pem"),
    }
    log = (folder / "broker.log").open("wb")
    command = kraft.server_command(libraries, settings)
    with log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as server:
        try:
            config = client_config(f"{kraft.HOST}:{port}", extra)
            wait_ready(config, 60)
            _let_in_by_scram(config)
            yield Secured(config["bootstrap.servers"], extra)
        finally:
            server.terminate()


def _let_in_by_scram(config: dict[str, str]) -> None:
    """The same user and password, of which SCRAM does not send the latter."""
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    wanted = UserScramCredentialUpsertion(USER, info, PASSWORD.encode())
    admin = AdminClient({**config})  # kept until it has answered
    admin.alter_user_scram_credentials([wanted])[USER].result(30)


def _make_certificates(folder: Path) -> None:
    """An authority of our own; of the broker and of a client, key and certificate in one file."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("broker", "client"):
        issued, file = authority.issue_cert(kraft.HOST), folder / f"{name}.pem"
        key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        # Java reads keys in PKCS #8 alone.
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        for certificate in issued.cert_chain_pems:
            certificate.write_to_path(str(file), append=True)


def _listener(port: int, folder: Path) -> dict[str, str]:
    users = {_BROKER: _BROKERS_OWN, USER: PASSWORD}
    modules = "org.apache.kafka.common.security"
    plain, scram = f"{modules}.plain.PlainLoginModule", f"{modules}.scram.ScramLoginModule"
    known = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    own = f'username="{_BROKER}" password="{_BROKERS_OWN}"'
    return {
        "listeners": f"SASL_SSL://{kraft.HOST}:{port},CONTROLLER://{kraft.HOST}:{port + 1}",
        "advertised.listeners": f"SASL_SSL://{kraft.HOST}:{port}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "security.inter.broker.protocol": "SASL_SSL",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{plain} required {own} {known};",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{scram} required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "listener.name.sasl_ssl.ssl.client.auth": "required",
    }
