"""What librdkafka's settings of TLS and SASL become for the worker's other client."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from streams.app import credentials, make_app
from tests.streams.specs import small_spec

SASL = {"sasl.username": "ada", "sasl.password": "secret"}


def test_without_security_there_are_no_credentials() -> None:
    assert credentials({}) is None
    assert credentials({"security.protocol": "plaintext", "client.rack": "a"}) is None


@pytest.mark.parametrize("key", ["sasl.mechanism", "sasl.mechanisms"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_goes_along_with_its_mechanism(key: str, mechanism: str) -> None:
    made = credentials({"security.protocol": "sasl_plaintext", key: mechanism, **SASL})
    assert (made.username, made.password) == ("ada", "secret")
    assert made.mechanism.value == mechanism
    assert made.protocol.value == "SASL_PLAINTEXT"
    assert made.ssl_context is None


@pytest.mark.parametrize("way", ["file", "text"])
def test_only_the_authority_that_was_given_is_trusted(way: str, tmp_path: Path) -> None:
    authority, file = trustme.CA(organization_name="ours"), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    given = {"ssl.ca.location": str(file)} if way == "file" else {"ssl.ca.pem": file.read_text()}
    made = credentials({"security.protocol": "SSL", **given})
    assert made.protocol.value == "SSL"
    assert (made.context.check_hostname, made.context.verify_mode) == (True, ssl.CERT_REQUIRED)
    subjects = [found["subject"] for found in made.context.get_ca_certs()]
    assert len(subjects) == 1
    assert (("organizationName", "ours"),) in subjects[0]


def test_checks_of_the_broker_are_off_only_where_that_is_said() -> None:
    tls = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", **SASL}
    names = credentials({**tls, "ssl.endpoint.identification.algorithm": "none"}).ssl_context
    assert (names.check_hostname, names.verify_mode) == (False, ssl.CERT_REQUIRED)
    off = credentials({**tls, "enable.ssl.certificate.verification": "false"}).ssl_context
    assert (off.check_hostname, off.verify_mode) == (False, ssl.CERT_NONE)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}, "OAUTHBEARER.*PLAIN"),
        ({"security.protocol": "SASL_PLAINTEXT", **SASL}, "sasl.mechanism is unset"),
        ({"security.protocol": "SSL", "ssl.key.pem": "…"}, "ssl.key.pem: .*ssl.key.location"),
    ],
)
def test_what_the_other_client_cannot_do_is_said(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        credentials(settings)


async def test_a_damaged_store_is_gone_before_faust_opens_it(tmp_path: Path) -> None:
    store = tmp_path / "v1" / "tables" / "beliefs-0.db"
    store.mkdir(parents=True)
    (store / "CURRENT").write_bytes(b"no manifest")
    make_app(small_spec(), "127.0.0.1:1", {}, group="g", worker="w", data_dir=tmp_path)
    assert not store.exists()
