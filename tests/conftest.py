"""Fixtures for all tests: the embedded broker, started once by each process; and who tests what."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from infra import broker as embedded
from infra.broker import Broker
from infra.kafka import client_config

# A busy machine is no failure: time is measured by benchmarks.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A log shall end with each failing test and its reason, a line each. pytest leaves reasons out
# where lines are short, and prints explanations whole, however long, where it finds itself in CI.
for variable in ("CI", "BUILD_NUMBER"):
    os.environ.pop(variable, None)
if not sys.stdout.isatty():
    os.environ["COLUMNS"] = "220"


# Long ones first, so that no process has much left when the others are done.
_FIRST = [Path(__file__).parent / name for name in ("system", "models")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in the order in which processes take them."""
    items.sort(key=lambda item: [not item.path.is_relative_to(folder) for folder in _FIRST])


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
