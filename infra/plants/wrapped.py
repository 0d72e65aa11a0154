"""A plant around another one, whose sensors say something else; what moves is the inner one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from infra.plants.base import Floats, Plant, Sample
from schemas.system import SystemSpec


class Wrapped(ABC):
    """All of `plant`, but for what `told` makes of its readings."""

    MARK: ClassVar[str]
    """What the version is marked with: changes whenever `told` does."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant

    @property
    def spec(self) -> SystemSpec:
        """That of the plant."""
        return self.plant.spec

    @property
    def entities(self) -> tuple[str, ...]:
        """Those of the plant."""
        return self.plant.entities

    @property
    def version(self) -> str:
        """That of the plant, marked."""
        return f"{self.plant.version}+{self.MARK}"

    @property
    def ticks(self) -> int | None:
        """Those of the plant."""
        return self.plant.ticks

    def reset(self, seed: int) -> Sample:
        """Begins anew."""
        self.begin(seed)
        return self.told(self.plant.reset(seed))

    def step(self, action: Floats) -> Sample:
        """Steps the plant; see there."""
        return self.told(self.plant.step(action))

    def score(self) -> dict[str, float]:
        """That of the plant."""
        return self.plant.score()

    @abstractmethod
    def begin(self, seed: int) -> None:
        """Forgets what was told."""

    @abstractmethod
    def told(self, sample: Sample) -> Sample:
        """What the sensors say."""
