"""Kubernetes' Horizontal Pod Autoscaler, its exact rule, vectorised over services.

Sources: the Kubernetes documentation, "Horizontal Pod Autoscaling: algorithm details", and what
`pkg/controller/podautoscaler` does: `replica_calculator.go` for the desired count, `horizontal.go`
for behaviours with their defaults (scale-up at most max(100 %, 4 pods) per 15 s, no stabilisation
on the way up; scale-down to the highest recommendation of the last 300 s).

The metric is utilisation: load per ready replica over its capacity. Unlike a CPU gauge, it does not
saturate at 100 %, which favours the HPA under overload.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

_CEIL_SLACK = (
    1e-9  # so that 20 × 0.7 / 0.7 = 20.000000000000004 asks for 20, as exact numbers would
)


@dataclass(frozen=True)
class HpaRule:
    """Parameters of one autoscaler; counts are replicas, times are seconds.

    Attributes:
        target: utilisation to keep, as a share of capacity.
        capacity: requests per second that one replica serves.
        low, high: minReplicas and maxReplicas.
        tolerance: no action while the ratio to the target is within 1 ± tolerance.
        window: evaluations over which scale-down takes the highest recommendation (300 s / 15 s).
        up_percent, up_pods: the larger of the two bounds one rise.
    """

    target: float
    capacity: float
    low: float = 1.0
    high: float = 1e9
    tolerance: float = 0.1
    window: int = 20
    up_percent: float = 100.0
    up_pods: float = 4.0

    def __post_init__(self) -> None:
        if not (self.target > 0 and self.capacity > 0 and self.window >= 1):
            raise ValueError(
                f"hpa needs target > 0, capacity > 0 and window >= 1, not {self.target}, "
                f"{self.capacity}, {self.window}"
            )

    def fresh(self, services: int) -> F64:
        """[services, window] recommendations of services that nothing is known of (NaN)."""
        return np.full((services, self.window), np.nan)

    def recommend(self, load: F64, ready: F64, unready: F64, missing: F64, current: F64) -> F64:
        """[E] desired replicas from the metric alone, before stabilisation and limits.

        `desired = ceil(ratio × pods)`, ratio = utilisation / target. On the way up, unready and
        missing pods count as idle; on the way down, missing ones as fully used. NaN where there is
        no metric: load or ready NaN, or no ready pod.
        """
        ratio = load / (self.capacity * self.target)  # in pods at the target, over ready pods
        with np.errstate(all="ignore"):
            alone = ratio / ready
            up = alone > 1.0
            amended = ((missing > 0) | (up & (unready > 0))) & (ready > 0)
            pods = ready + missing + np.where(up, unready, 0.0)
            full = max(1.0, self.target) / self.target
            again = (ratio + np.where(up, 0.0, missing * full)) / pods
            final, over = np.where(amended, again, alone), np.where(amended, pods, ready)
            desired = np.ceil(final * over - _CEIL_SLACK)
        quiet = np.abs(1.0 - final) <= self.tolerance + _CEIL_SLACK
        turned = (final < 1.0) & (up | (desired > current))
        turned |= (final > 1.0) & (~up | (desired < current))
        desired = np.where(quiet | (amended & turned), current, desired)
        return np.where(np.isfinite(final) & (ready > 0), desired, np.nan)

    def step(
        self, state: F64, load: F64, ready: F64, unready: F64, missing: F64, current: F64
    ) -> tuple[F64, F64]:
        """One evaluation: desired replicas [E], and the next state [E, window].

        Args:
            state: earlier recommendations, newest last; NaN where there is none.
            load: requests per second;  ready, unready, missing: pods.
            current: the replicas asked for now; NaN counts as the ready ones. Without a metric it
                stays, and a service of which nothing was known begins its window with it.
        """
        current = np.where(np.isnan(current), ready, current)
        unready, missing = np.nan_to_num(unready), np.nan_to_num(missing)
        recommended = self.recommend(load, ready, unready, missing, current)
        newest = np.where(np.isnan(state).all(axis=1), current, state[:, -1])  # a fresh one
        state = np.column_stack([state[:, 1:-1], newest, recommended])[:, -self.window :]
        # Up at once; down no further than the highest recommendation of the window.
        highest = np.fmax.reduce(state, axis=1)
        stable = np.where(recommended < current, np.minimum(current, highest), recommended)
        most = np.fmax(current + self.up_pods, np.ceil(current * (1 + self.up_percent / 100)))
        desired = np.clip(np.fmin(stable, most), self.low, self.high)
        return np.where(np.isnan(recommended), current, desired), state


class Hpa:
    """An HPA per service that keeps its own state: a policy for baselines.

    >>> hpa = Hpa(HpaRule(target=0.7, capacity=3.0), services=2)
    >>> hpa(load=[21.0, 21.0], ready=[10.0, 20.0], current=[10.0, 20.0])
    array([10., 20.])
    """

    def __init__(self, rule: HpaRule, services: int) -> None:
        self.rule, self.state = rule, rule.fresh(services)

    def __call__(
        self,
        load: npt.ArrayLike,
        ready: npt.ArrayLike,
        current: npt.ArrayLike,
        unready: npt.ArrayLike = 0.0,
        missing: npt.ArrayLike = 0.0,
    ) -> F64:
        """[services] desired replicas after one more evaluation; arguments as in `HpaRule.step`."""
        shape = (len(self.state),)
        given = (load, ready, unready, missing, current)
        arrays = (np.broadcast_to(np.asarray(a, dtype=np.float64), shape) for a in given)
        desired, self.state = self.rule.step(self.state, *arrays)
        return desired
