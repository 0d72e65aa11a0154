"""The shipped models on a GPU: the numbers of the CPU, the same bits twice, the same plan again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from planner.budget import Budget, FreeBudget, RecordedBudget
from planner.draft import Plan
from planner.library import SHIPPED
from planner.memory import PlannerMemory
from planner.plan import plan
from planner.reference import ACTION, HORIZON, MEMBERS, STATE, Reference
from planner.runtime import cuda_usable
from planner.session import Bundle, Posterior, load_bundle
from schemas.system import SystemSpec, load_spec
from tests.planner.worlds import make_frame

F32 = npt.NDArray[np.float32]

pytestmark = pytest.mark.skipif(not cuda_usable(), reason="no usable CUDA device here")
SYSTEMS = ("autoscale", "nav2d")
TICKS, ROWS, ENTITIES = 20, 51, 13
TOLERANCE = 5e-4
"""Largest difference to the CPU, relative to `1 + |cpu|`: what an export is allowed."""


@cache
def bundle(system: str, device: str) -> Bundle:
    return load_bundle(SHIPPED / system, provider="cuda" if device == "cuda" else "cpu")


def observations(spec: SystemSpec, model: Bundle, rows: int, seed: int) -> F32:
    """[rows,O] plausible readings: about as large as the column usually is, and never negative."""
    draw = np.random.default_rng(seed).standard_normal((rows, len(spec.columns)))
    return np.abs(draw * model.channel_scale).astype(np.float32)


def actions(spec: SystemSpec, shape: tuple[int, ...], seed: int) -> F32:
    """[*shape,A] anywhere within the bounds."""
    share = np.random.default_rng(seed).random((*shape, len(spec.action_columns)))
    low, high = spec.action_low, spec.action_high
    return np.asarray(low + share * (high - low), dtype=np.float32)


@cache
def believed(system: str, device: str, rows: int = ENTITIES) -> Posterior:
    """What the bundle believes after three ticks; the inputs are the same for every device."""
    spec, model = load_spec(system), bundle(system, device)
    h = np.zeros((rows, model.hidden), np.float32)
    z = np.zeros((rows, model.latent), np.float32)
    for tick in range(3):
        seen = observations(spec, model, rows, tick)
        mask = (np.random.default_rng(tick).random(seen.shape) < 0.7).astype(np.float32)
        posterior = model.believe(h, z, actions(spec, (rows,), tick), seen * mask, mask)
        h, z = posterior.h, posterior.mean
    return posterior


def outputs(system: str, device: str) -> Iterator[tuple[str, F32]]:
    """All that the bundle's graphs say of the CPU's beliefs."""
    spec, model, start = load_spec(system), bundle(system, device), believed(system, "cpu", ROWS)
    normal = np.random.default_rng(5).standard_normal
    members = (model.members, ROWS)
    h = np.broadcast_to(start.h, (*members, model.hidden)).copy()
    z = (start.mean + start.std * normal((*members, model.latent))).astype(np.float32)
    noise = normal((TICKS, *members, model.latent)).astype(np.float32)
    yield from vars(believed(system, device, ROWS)).items()
    yield from vars(model.imagine(h, z, actions(spec, (TICKS, *members), 6), noise)).items()
    yield "action", model.act(start.h, start.mean)
    if model.drives:
        yield "driven", model.drive(h, z, actions(spec, members, 7), noise)


def difference(found: npt.ArrayLike, wanted: npt.ArrayLike) -> float:
    """Largest difference relative to `1 + |wanted|`; NaN stays NaN."""
    a, b = np.asarray(found), np.asarray(wanted)
    assert a.shape == b.shape
    return float((np.abs(a - b) / (1 + np.abs(b))).max())


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_graph_says_what_it_says_on_the_cpu(system: str) -> None:
    assert bundle(system, "cuda").provider == "cuda"
    for (name, found), (_, wanted) in zip(
        outputs(system, "cuda"), outputs(system, "cpu"), strict=True
    ):
        assert difference(found, wanted) < TOLERANCE, name


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_inputs_give_the_same_bits(system: str) -> None:
    first, again = (list(outputs(system, "cuda")) for _ in range(2))
    fresh = load_bundle(SHIPPED / system, provider="cuda")
    start = believed(system, "cuda")
    for (name, one), (_, two) in zip(first, again, strict=True):
        assert one.tobytes() == two.tobytes(), name
    one, two = (model.act(start.h, start.mean) for model in (fresh, bundle(system, "cuda")))
    assert one.tobytes() == two.tobytes()


def planned(system: str, device: str, budget: Budget) -> Plan:
    """A plan for `ENTITIES` entities from the CPU's beliefs."""
    spec, model = load_spec(system), bundle(system, device)
    seen = observations(spec, model, ENTITIES, 2)
    frame = make_frame(spec, seen, applied=actions(spec, (ENTITIES,), 8))
    memory = PlannerMemory.fresh(spec, ENTITIES)
    return plan(spec, model, believed(system, "cpu"), frame, memory, budget, 1)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_plan_comes_out_again(system: str) -> None:
    first = planned(system, "cuda", FreeBudget())
    again = planned(system, "cuda", RecordedBudget(first.spent))
    assert first.spent.iterations
    assert again.spent == first.spent
    for name in ("proposal", "mode", "returned", "gain", "uncertainty", "tier", "iterations"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes(), name
    there = planned(system, "cpu", RecordedBudget(first.spent))
    np.testing.assert_array_equal(there.mode, first.mode)
    # Where two candidates are worth the same up to the last bits, either may be the better one.
    assert difference(np.median(first.returned[:, 0]), np.median(there.returned[:, 0])) < 0.01


def test_the_reference_ensemble_is_that_of_the_cpu() -> None:
    normal = np.random.default_rng(9).standard_normal

    def half(
        *shape: int,
    ) -> F32:  # larger numbers grow without bound, and their last bits with them
        return (normal(shape) / 2).astype(np.float32)

    h = half(MEMBERS, ROWS, STATE)
    taken, noise = (half(HORIZON, MEMBERS, ROWS, size) for size in (ACTION, STATE))
    wanted, found = (
        Reference(provider=device).imagine(h, h, taken, noise).channels
        for device in ("cpu", "cuda")
    )
    assert difference(found, wanted) < TOLERANCE
