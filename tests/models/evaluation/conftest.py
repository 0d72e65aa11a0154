"""The shipped bundle of robots in a plane, and worlds around it."""

from collections.abc import Callable
from typing import Any

import pytest

from infra.plants.base import make_plant
from models.evaluation.world import World
from planner.library import SHIPPED
from planner.session import Bundle, load_bundle
from schemas.system import SystemSpec, load_spec

MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def nav2d() -> SystemSpec:
    return load_spec("nav2d")


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return load_bundle(SHIPPED / "nav2d", provider="cpu")


@pytest.fixture
def make_world(nav2d: SystemSpec, bundle: Bundle) -> MakeWorld:
    def make(robots: int = 6, **options: Any) -> World:
        return World(nav2d, make_plant(nav2d, robots=robots, **options), bundle)

    return make
