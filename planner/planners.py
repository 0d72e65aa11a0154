"""The planners by the names that specs call them; all can be stopped between two iterations."""

from __future__ import annotations

from collections.abc import Mapping

from planner.cem import Cem, Icem
from planner.mppi import Mppi
from planner.search import Search
from schemas.spec_parts import PlannerName

PLANNERS: Mapping[PlannerName, type[Search]] = {"icem": Icem, "cem": Cem, "mppi": Mppi}
