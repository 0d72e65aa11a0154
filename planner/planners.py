"""The planners by the names that specs call them; all can be stopped between two iterations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planner.cem import Cem, Icem
from planner.imagine import Imagination
from planner.mppi import Mppi
from planner.search import Noise, Search, Start
from schemas.spec_parts import PlannerName, Tier
from schemas.system import SystemSpec

Planners = Mapping[PlannerName, Callable[[SystemSpec, Imagination, Tier, Start, Noise], Search]]
"""What begins a search, by the name of its planner."""

PLANNERS: Planners = {"icem": Icem, "cem": Cem, "mppi": Mppi}
