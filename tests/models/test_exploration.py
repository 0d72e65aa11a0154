"""The specs that explore log what the shipped systems can be trained on."""

from pathlib import Path

import pytest

import models
from schemas.system import load_spec

FOLDER = Path(models.__file__).parent / "exploration"


@pytest.mark.parametrize("system", ["autoscale", "nav2d"])
def test_they_have_the_interface_of_the_shipped_system(system: str) -> None:
    shipped, exploring = load_spec(system), load_spec(FOLDER / f"{system}.yaml")
    assert exploring.interface_hash == shipped.interface_hash
    assert exploring.explore is not None
    assert exploring.fallback != shipped.fallback
    assert exploring.objective_hash == shipped.objective_hash
