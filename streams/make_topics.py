"""The topics of a system, and on a secured embedded broker the rights of each role to them."""

from collections.abc import Mapping

from infra.kafka import client_config, delete_topics, ensure_topics
from infra.rights import grant, revoke
from infra.secure import admin_folder
from schemas.roles import grants_of
from schemas.system import SystemSpec
from schemas.topics import topics_of


def make_topics(spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None) -> None:
    """Make those topics that are not there, and give rights. Raises `KafkaSetupError`."""
    config = client_config(bootstrap, extra)
    ensure_topics(config, [(t.name, t.partitions, t.config) for t in topics_of(spec)])
    if admin_folder(extra or {}):
        grant(config, grants_of(spec))


def remove_topics(spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None) -> None:
    """Delete topics and rights. Raises `KafkaSetupError`."""
    config = client_config(bootstrap, extra)
    delete_topics(config, [t.name for t in topics_of(spec)])
    if admin_folder(extra or {}):
        revoke(config, grants_of(spec))
