"""Barriers: a constraint that limits how fast its margin may shrink, in one tick, as a condition.

A discrete-time control barrier function (Agrawal and Sreenath 2017: Discrete control barrier
functions for safety-critical control of discrete systems). With the margin h(x) >= 0 where the
constraint holds, and x' the state after this tick's action, `h(x') >= (1 - gamma) * h(x)`: the
nearer the limit, the slower towards it; and who is beyond it comes back by a share of `gamma` per
tick. `gamma` 1 asks only that the constraint holds after the tick.
"""

from __future__ import annotations

from collections.abc import Mapping

from schemas.expression import Expression, ExpressionError
from schemas.expression_tree import Node


def barrier(holds: Expression, after: Mapping[str, Expression], gamma: float) -> Expression:
    """The condition on channels and this tick's action; a conjunction where `holds` is one.

    Args:
        holds: comparisons `< <= > >=` of numbers, joined by `and`.
        after: column → what it is after the tick, from channels and actions; others stay.
        gamma: 0 < gamma <= 1.

    Raises:
        ExpressionError: `holds` is of another form, reads nothing that `after` says, or what comes
            of it is too long.
    """
    if not holds.names & after.keys():
        reason = "it reads no column of `next`, so no action changes it within the tick"
        raise ExpressionError(holds.source, 0, reason)
    trees = {name: expression.tree for name, expression in after.items()}
    return Expression.parse(_barrier(holds, holds.tree, trees, gamma).text())  # if not too long


def _barrier(holds: Expression, node: Node, after: Mapping[str, Node], gamma: float) -> Node:
    if node.op == "and":
        return Node("and", tuple(_barrier(holds, arg, after, gamma) for arg in node.args))
    if node.op not in ("<", "<=", ">", ">="):
        reason = "a barrier needs comparisons < <= > >= joined by `and`"
        raise ExpressionError(holds.source, 0, reason)
    left, right = node.args
    margin = Node("-", (right, left) if node.op in ("<", "<=") else (left, right))
    kept = Node("*", (Node("number", value=1.0 - gamma), margin))
    return Node(">=", (_put(margin, after), kept))


def _put(node: Node, after: Mapping[str, Node]) -> Node:
    """`node` with names replaced."""
    if node.op == "name":
        return after.get(node.name, node)
    return Node(node.op, tuple(_put(arg, after) for arg in node.args), node.value, node.name)
