"""Fixtures for all tests: the embedded broker, started once for the whole session."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from infra import broker as embedded
from infra.broker import Broker
from infra.kafka import client_config

# As in every command: what is logged is no output. The stream is that of the test that logs.
structlog.configure(
    logger_factory=lambda *_: structlog.PrintLogger(sys.stderr), cache_logger_on_first_use=False
)

# A busy machine is no failure: time is measured by benchmarks.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A log shall end with each failing test and its reason, a line each. pytest leaves reasons out
# where lines are short, and prints explanations whole, however long, where it finds itself in CI.
for variable in ("CI", "BUILD_NUMBER"):
    os.environ.pop(variable, None)
if not sys.stdout.isatty():
    os.environ["COLUMNS"] = "220"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where two processes test, one takes all that a broker has a part in, the other the rest.

    So there is one broker, and no two tests at once that wait for it.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        waits = "broker" in fixtures or item.get_closest_marker("broker") is not None
        item.add_marker(pytest.mark.xdist_group("broker" if waits else item.path.stem))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker in a home of its own. Isolate by system name: tests.support.unique()."""
    home = tmp_path_factory.mktemp("rehearse-home")
    running = embedded.start(home, progress=print)
    yield running
    gc.collect()  # clients that tests left in cycles would complain that the broker is gone
    embedded.stop(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(broker: Broker) -> dict[str, str]:
    """librdkafka settings for the broker of the session."""
    return client_config(broker.bootstrap)
