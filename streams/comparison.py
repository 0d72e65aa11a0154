"""The same plant under planner, actor and fallback, without Kafka: who is worth what."""

from collections.abc import Mapping
from typing import Any

from planner.encoded import encoded_plant
from planner.session import Bundle
from schemas.system import SystemSpec
from streams.backtest import backtest, policies


def compare_policies(
    spec: SystemSpec,
    bundle: Bundle | None,
    seed: int,
    ticks: int,
    options: Mapping[str, Any],
) -> dict[str, dict[str, float]]:
    """Score of the plant and mean return per entity under each policy, from the same start."""
    results = {}
    for name, policy in policies(spec, bundle).items():
        done = backtest(spec, encoded_plant(spec, **options), policy, seed=seed, ticks=ticks)
        results[name] = {"return": done.mean_return, **done.score}
    return results
