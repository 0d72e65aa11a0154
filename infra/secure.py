"""A secured broker: an authority and certificates of its own, and a user with a password per role.

All of it lies in one folder that only its user can read: `ca.pem`, `broker.pem` and `client.pem`
(key and certificate in one), `ROLE.properties` as `-X @FILE` takes it, and the broker's `data/`.
The authority's key is thrown away, so nobody can issue another certificate in its name.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.kafka import KafkaSetupError, client_config, wait_ready
from infra.kraft import HOST, write_private
from infra.settings import read_settings
from schemas.roles import ROLES, Role

MECHANISM: Final = "SCRAM-SHA-512"
# The broker runs without the JVM's second compiler, which alone knows the processor's instructions
# for AES. A demo of 60 ticks took it 5.1 to 5.4 s of CPU with this one, 6.6 with AES-128-GCM, 7.3
# with AES-256-GCM, where it took 4.1 to 4.8 without TLS; and frames came late.
_CIPHER: Final = "TLS_CHACHA20_POLY1305_SHA256"
_DAYS, _RENEW_DAYS = 825, 30
_ROUNDS: Final = 4096
_TIMEOUT_S: Final = 30.0
_AUTHORITY, _BROKER, _CLIENT = "ca.pem", "broker.pem", "client.pem"


def settings_file(folder: Path, role: Role) -> Path:
    """The client settings of a role, as `-X @FILE` takes them."""
    return folder / f"{role}.properties"


def role_settings(folder: Path, role: Role) -> dict[str, str]:
    """The client settings of a role. Raises KafkaSetupError where there are none."""
    return read_settings(settings_file(folder, role))


def as_role(settings: Mapping[str, str], role: Role) -> dict[str, str]:
    """The settings of `role`, where `settings` are those of a secured broker's admin.

    Any others are given back as they are: somebody else's cluster has users of its own.
    """
    folder = admin_folder(settings)
    if folder is None or role == "admin":
        return dict(settings)
    return {**settings, **role_settings(folder, role)}


def admin_folder(settings: Mapping[str, str]) -> Path | None:
    """The folder of a secured broker, where `settings` are those of its admin."""
    folder = Path(settings.get("ssl.ca.location", "")).parent
    if settings.get("sasl.username") != "admin" or not settings_file(folder, "admin").is_file():
        return None
    own = role_settings(folder, "admin")
    return folder if own["sasl.password"] == settings.get("sasl.password") else None


def prepare(folder: Path) -> Path:
    """Make certificates and settings that are not there; gives back the folder.

    A role whose file was removed gets another password with the broker's next start.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not _is_valid(folder):
        _make_certificates(folder)
    for role in ROLES:
        if not settings_file(folder, role).exists():
            write_private(settings_file(folder, role), _settings_text(folder, role))
    return folder


def let_in(config: Mapping[str, str], folder: Path) -> None:
    """Tell the running broker every role's password but the admin's, and wait until it counts.

    Raises KafkaSetupError.
    """
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ROUNDS)
    wanted: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(
            role, info, role_settings(folder, role)["sasl.password"].encode()
        )
        for role in ROLES
        if role != "admin"
    ]
    admin = AdminClient({"log_level": "0", **config})  # kept until it has answered
    try:
        for answer in admin.alter_user_scram_credentials(wanted).values():
            answer.result(_TIMEOUT_S)
    except KafkaException as error:
        raise KafkaSetupError(f"the broker takes no passwords: {error.args[0].str()}") from error
    end = time.monotonic() + _TIMEOUT_S
    while True:  # what the controller knows, the broker hears a little later
        try:
            return wait_ready(
                client_config(config["bootstrap.servers"], role_settings(folder, ROLES[-1]))
            )
        except KafkaSetupError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def first_user(folder: Path) -> list[str]:
    """Arguments of the tool that makes the data folder: the admin, who lets the others in.

    They hold its password, so they go into a file, not onto a command line.
    """
    password = role_settings(folder, "admin")["sasl.password"]
    return ["--add-scram", f"{MECHANISM}=[name=admin,password={password}]"]


def broker_settings(folder: Path, port: int) -> dict[str, str]:
    """The broker's settings: who is let in, by what, and that nothing is allowed unless granted."""
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
    password = role_settings(folder, "admin")["sasl.password"]
    return {
        "listeners": f"SASL_SSL://{HOST}:{port},CONTROLLER://{HOST}:{port + 1}",
        "advertised.listeners": f"SASL_SSL://{HOST}:{port}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SSL",
        "security.inter.broker.protocol": "SASL_SSL",
        "sasl.enabled.mechanisms": MECHANISM,
        "sasl.mechanism.inter.broker.protocol": MECHANISM,
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            f'{scram} required username="admin" password="{password}";'
        ),
        "ssl.enabled.protocols": "TLSv1.3",
        "ssl.cipher.suites": _CIPHER,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / _BROKER),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / _AUTHORITY),
        "listener.name.sasl_ssl.ssl.client.auth": "required",
        "listener.name.controller.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:CN=broker",
        "allow.everyone.if.no.acl.found": "false",
    }


def _settings_text(folder: Path, role: Role) -> str:
    settings = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": MECHANISM,
        "sasl.username": role,
        "sasl.password": secrets.token_urlsafe(32),
        "ssl.ca.location": str(folder / _AUTHORITY),
        "ssl.certificate.location": str(folder / _CLIENT),
        "ssl.key.location": str(folder / _CLIENT),
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def _is_valid(folder: Path) -> bool:
    """Whether all certificates are there and hold for a while."""
    soon = datetime.now(UTC) + timedelta(days=_RENEW_DAYS)
    try:
        found = [
            x509.load_pem_x509_certificate((folder / name).read_bytes())
            for name in (_AUTHORITY, _BROKER, _CLIENT)
        ]
    except (OSError, ValueError):
        return False
    return all(certificate.not_valid_after_utc > soon for certificate in found)


def _make_certificates(folder: Path) -> None:
    """An authority, and what it issues to the broker and to its clients."""
    authority = ec.generate_private_key(ec.SECP256R1())
    name = _name("Rehearse, this broker alone")
    basic = x509.BasicConstraints(ca=True, path_length=0)
    root = (
        _certificate(name, name, authority)
        .add_extension(basic, critical=True)
        .sign(authority, hashes.SHA256())
    )
    host = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address(HOST)), x509.DNSName("localhost")]
    )
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    for file, uses in ((_BROKER, both), (_CLIENT, both[1:])):
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(_name(file.removesuffix(".pem")), name, key)
        made = made.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        made = made.add_extension(host, critical=False) if file == _BROKER else made
        # Java reads keys in PKCS #8 alone.
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        issued = made.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM)
        write_private(folder / file, (secret + issued).decode())
    write_private(folder / _AUTHORITY, root.public_bytes(Encoding.PEM).decode())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
    )
