"""Hard constraints at the gate: half-spaces in the action, and the nearest action inside them.

A constraint whose margin is affine in the action, given the present channels, is a half-space
`slope · action <= bound` per entity; so is a barrier (`schemas.barrier`) with an affine `next`.
The nearest point of one half-space inside a box is found by bisection along its normal; several are
taken in turn (cyclic projection, Bregman 1965).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from schemas.expression import Expression
from schemas.expression_tree import Node
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ROUNDS = 40
"""Most rounds through all half-spaces; one is enough for one constraint."""
HALVINGS = 60
"""Bisection steps: to the last bit of the multiplier."""
INSIDE = 1e-9
"""How far inside a half-space a projection ends, relative to its bound, so that rounds end."""


@dataclass(frozen=True)
class Hard:
    """One hard constraint: its condition, and its margins (>= 0 inside) where all are affine."""

    name: str
    holds: Expression
    margins: tuple[Expression, ...]


@lru_cache(maxsize=64)
def _hard(texts: tuple[tuple[str, str], ...], actions: tuple[str, ...]) -> tuple[Hard, ...]:
    parsed = []
    for name, text in texts:
        holds = Expression.parse(text)
        parsed.append(Hard(name, holds, _margins(holds.tree, frozenset(actions))))
    return tuple(parsed)


def hard_constraints(spec: SystemSpec) -> tuple[Hard, ...]:
    """The hard constraints of `spec`, or the barriers in their place, by name."""
    texts = sorted((name, condition.source) for name, condition in spec.enforced.items())
    return _hard(tuple(texts), spec.action_columns)


def columns_of(spec: SystemSpec, values: F64, action: F64) -> dict[str, F64]:
    """Every name that a constraint may read, [E] each."""
    columns = {name: values[:, i] for i, name in enumerate(spec.columns)}
    return columns | {name: action[:, i] for i, name in enumerate(spec.action_columns)}


def violated(spec: SystemSpec, values: F64, action: F64) -> Mask:
    """[E] whether some hard constraint does not hold; it does not where a channel is missing."""
    bad = np.zeros(len(action), dtype=bool)
    hard = hard_constraints(spec)
    columns = columns_of(spec, values, action) if hard else {}
    for constraint in hard:
        bad |= ~np.broadcast_to(constraint.holds.numpy(columns), bad.shape)
    return bad


def project(spec: SystemSpec, values: F64, action: F64, low: F64, high: F64) -> F64:
    """[E,A] the action moved into the affine hard constraints, never out of the box.

    It may still violate one: where the box and the constraints do not meet, a channel is missing,
    or a constraint is not affine. Ask `violated` again.
    """
    planes = [margin for hard in hard_constraints(spec) for margin in hard.margins]
    with np.errstate(all="ignore"):  # what overflows does not compare as inside
        spaces = [_half_space(spec, margin, values) for margin in planes]
        for _ in range(ROUNDS):
            before = action
            for slope, bound in spaces:
                action = _into(action, slope, bound, low, high)
            if np.array_equal(action, before) or len(spaces) == 1:
                break
    return action


def _half_space(spec: SystemSpec, margin: Expression, values: F64) -> tuple[F64, F64]:
    """`slope` [E,A] and `bound` [E] of `margin >= 0` as `slope · action <= bound`."""
    shape = (len(values), len(spec.action_columns))
    at_zero = _value(margin, columns_of(spec, values, np.zeros(shape)), len(values))
    slope = np.zeros(shape)
    for i in range(shape[1]):
        unit = np.zeros(shape)
        unit[:, i] = 1.0
        slope[:, i] = at_zero - _value(margin, columns_of(spec, values, unit), len(values))
    return slope, at_zero


def _value(margin: Expression, columns: Mapping[str, F64], count: int) -> F64:
    return np.broadcast_to(margin.numpy(columns), (count,)).astype(np.float64)


def _into(action: F64, slope: F64, bound: F64, low: F64, high: F64) -> F64:
    """The point of the box nearest to `action` with `slope · point <= bound`, if there is one."""
    rows = np.flatnonzero((slope * action).sum(axis=1) > bound)  # none where a channel is NaN
    if not len(rows):
        return action
    out = action.copy()
    out[rows] = _moved(action[rows], slope[rows], bound[rows], low[rows], high[rows])
    return out


def _moved(action: F64, slope: F64, bound: F64, low: F64, high: F64) -> F64:
    """`_into` of rows that are not inside yet."""

    def at(multiplier: F64) -> F64:
        return np.clip(action - multiplier[:, None] * slope, low, high)

    aim = bound - INSIDE * np.maximum(1.0, np.abs(bound))
    steepest = np.abs(slope).max(axis=1)
    # Beyond this multiplier every sloped coordinate stands at its bound.
    smallest = np.where(slope == 0, np.inf, np.abs(slope)).min(axis=1)
    furthest = np.minimum((high - low).max(axis=1) / smallest, 1e300)  # no inf * 0
    most = np.where(steepest > 0, furthest, 0.0)
    inside, out = most, np.zeros(len(action))
    for _ in range(HALVINGS):
        middle = (inside + out) / 2
        beyond = (slope * at(middle)).sum(axis=1) > aim
        out, inside = np.where(beyond, middle, out), np.where(beyond, inside, middle)
    return at(inside)


def _margins(node: Node, actions: frozenset[str]) -> tuple[Expression, ...]:
    """Margins of a comparison or a conjunction of them, or () when one is not affine.

    No action cures a part that reads none: of a conjunction, only the others are projected onto.
    """
    if node.op == "and":
        parts = [_margins(part, actions) for part in node.args if part.names() & actions]
        return tuple(m for part in parts for m in part) if all(parts) else ()
    if node.op not in ("<", "<=", ">", ">=") or not all(_affine(a, actions) for a in node.args):
        return ()
    left, right = node.args
    pair = (right, left) if node.op in ("<", "<=") else (left, right)
    tree = Node("-", pair)
    return (Expression(tree.text(), tree),) if tree.names() & actions else ()


def _affine(node: Node, actions: frozenset[str]) -> bool:
    """Whether `node` is affine in the names `actions`."""
    if not node.names() & actions:
        return True
    if node.op in ("name", "neg", "+", "-"):
        return all(_affine(arg, actions) for arg in node.args)
    if node.op == "*":
        free = [not arg.names() & actions for arg in node.args]
        return any(free) and all(_affine(arg, actions) for arg in node.args)
    if node.op == "/":
        return not node.args[1].names() & actions and _affine(node.args[0], actions)
    return False
