"""The text of an expression becomes a small checked tree, or an error that points at the place.

Python's own parser reads the text; nothing of it is ever evaluated. Only the node kinds of the
language are let through, and length and depth are bounded before anything else is looked at.
"""

from __future__ import annotations

import ast
import difflib
import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass

MAX_LENGTH = 4096
"""Longest text in characters."""
MAX_DEPTH = 100
"""Deepest nesting; a sum of n terms is n deep."""

ARITY: dict[str, tuple[int, int | None]] = {
    "min": (2, None),
    "max": (2, None),
    "abs": (1, 1),
    "clip": (3, 3),
    "where": (3, 3),
    "exp": (1, 1),
    "log": (1, 1),
    "sqrt": (1, 1),
}
"""The functions of the language, with the least and the greatest number of arguments."""
FUNCTIONS = frozenset(ARITY)
"""Names that no channel can have."""

_BINARY: dict[type[ast.AST], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARE: dict[type[ast.AST], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_REMEDY: dict[type[object], str] = {
    ast.Pow: "powers are not part of the language; write x * x, sqrt(x) or exp(x)",
    ast.FloorDiv: "floor division is not part of the language; use /",
    ast.Mod: "remainders are not part of the language",
    ast.BitAnd: "write `and` instead of &",
    ast.BitOr: "write `or` instead of |",
    ast.BitXor: "powers are not part of the language; write x * x",
    ast.Invert: "write `not` instead of ~",
    ast.IfExp: "write where(condition, a, b) instead of `a if condition else b`",
    ast.Attribute: "a name has no attributes; components are written name[0]",
    ast.Lambda: "functions cannot be defined here",
}


class ExpressionError(ValueError):
    """An expression that is not in the language, or that names what is not there.

    Attributes:
        text: the expression as it was given.
        column: zero-based character at which the trouble starts.
        reason: what is wrong, and the remedy.
    """

    def __init__(self, text: str, column: int, reason: str) -> None:
        self.text, self.column, self.reason = text, column, reason
        begin, end = max(0, column - 60), column + 40
        shown = text[begin:end].replace("\n", " ").replace("\t", " ")
        super().__init__(f"{reason}\n  {shown}\n  {' ' * (column - begin)}^")

    def __reduce__(self) -> tuple[type[ExpressionError], tuple[str, int, str]]:
        return ExpressionError, (self.text, self.column, self.reason)


@dataclass(frozen=True, slots=True)
class Node:
    """One node: an operator with its operands, a number, or a name.

    `op` is one of `number name neg + - * / < <= > >= == != and or not float` or a function's
    name; `float` turns a condition into 0 or 1 where a number is needed.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: float = 0.0
    name: str = ""

    @property
    def is_condition(self) -> bool:
        """Whether the value is true or false instead of a number."""
        return self.op in _CONDITIONS

    def names(self) -> frozenset[str]:
        """Flat names of the columns that this tree reads."""
        if self.op == "name":
            return frozenset((self.name,))
        return frozenset().union(*(arg.names() for arg in self.args))

    def text(self) -> str:
        """The tree as text with every parenthesis written; parses to an equal tree."""
        parts = [arg.text() for arg in self.args]
        match self.op:
            case "number":
                return repr(self.value)
            case "name":
                return self.name
            case "float":
                return parts[0]
            case "neg":
                return f"(-{parts[0]})"
            case "not":
                return f"(not {parts[0]})"
            case op if op in FUNCTIONS:
                return f"{op}({', '.join(parts)})"
            case op:
                return f"({f' {op} '.join(parts)})"


_CONDITIONS = frozenset((*_COMPARE.values(), "and", "or", "not"))


def parse_tree(text: str, known: Collection[str] | None = None) -> Node:
    """Parses `text`; `known` are the flat names that may occur (None: any).

    Raises:
        ExpressionError: the text is not in the language, or a name is unknown.
    """
    if len(text) > MAX_LENGTH:
        reason = f"an expression has at most {MAX_LENGTH} characters, this one {len(text)}"
        raise ExpressionError(text, MAX_LENGTH, reason)
    return _Parser(text, known).parse()


class _Parser:
    def __init__(self, text: str, known: Collection[str] | None) -> None:
        self.text = text
        self.known = None if known is None else sorted(known)
        self.body = " ".join(text.splitlines()).strip() if text.strip() else ""
        # Columns are counted in the given text, which YAML may have indented or folded.
        self.start = len(text) - len(text.lstrip())

    def fail(self, reason: str, node: ast.expr | None = None) -> ExpressionError:
        column = self.start
        if node is not None:
            column += len(self.body.encode()[: node.col_offset].decode(errors="ignore"))
        return ExpressionError(self.text, column, reason)

    def parse(self) -> Node:
        if not self.body:
            raise self.fail("the expression is empty")
        for character in ("#", "\0"):
            if character in self.text:
                place = self.text.index(character)
                raise ExpressionError(self.text, place, f"{character!r} is not allowed here")
        try:
            with warnings.catch_warnings():  # of Python's own, about what looks like a slip
                warnings.simplefilter("ignore")
                tree = ast.parse(self.body, mode="eval")
        except SyntaxError as error:
            # Python puts the end of the text at offset 0 or on a line after the last.
            offset = error.offset if error.offset and error.lineno == 1 else len(self.body)
            column = self.start + min(offset, len(self.body)) - 1
            raise ExpressionError(self.text, column, f"cannot be read: {error.msg}") from None
        except (RecursionError, MemoryError, ValueError) as error:
            raise self.fail(f"cannot be read: {error or 'nested too deeply'}") from None
        return self.node(tree.body, 1)

    def node(self, node: ast.expr, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.fail(f"nested deeper than {MAX_DEPTH} levels", node)
        match node:
            case ast.Constant(value=value):
                return self.constant(node, value)
            case ast.Name(id=name):
                return self.named(node, name)
            case ast.Subscript():
                return self.component(node)
            case ast.Compare():
                return self.compare(node, depth)
            case ast.Call():
                return self.call(node, depth)
        return self.operation(node, depth)

    def operation(self, node: ast.expr, depth: int) -> Node:
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Node("neg", (self.number(operand, depth + 1),))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.number(operand, depth + 1)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Node("not", (self.condition(operand, depth + 1),))
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
                sides = (self.number(left, depth + 1), self.number(right, depth + 1))
                return Node(_BINARY[type(operator)], sides)
            case ast.BoolOp(op=operator, values=values):
                word = "and" if isinstance(operator, ast.And) else "or"
                return Node(word, tuple(self.condition(value, depth + 1) for value in values))
        kind = type(getattr(node, "op", node))
        raise self.fail(_REMEDY.get(kind, f"{kind.__name__} is not part of the language"), node)

    def component(self, node: ast.Subscript) -> Node:
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=int(index))):
                if not isinstance(index, bool):
                    return self.named(node, f"{name}[{index}]")
        raise self.fail("a component is a whole number after a name, as in position[0]", node)

    def number(self, node: ast.expr, depth: int) -> Node:
        parsed = self.node(node, depth)
        return Node("float", (parsed,)) if parsed.is_condition else parsed

    def condition(self, node: ast.expr, depth: int) -> Node:
        parsed = self.node(node, depth)
        if not parsed.is_condition:
            raise self.fail("a condition is needed here: a comparison such as x > 0", node)
        return parsed

    def constant(self, node: ast.expr, value: object) -> Node:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(f"{value!r} is not a number", node)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.fail("the number is too large for 64-bit floating point", node)
        return Node("number", value=number)

    def named(self, node: ast.expr, name: str) -> Node:
        if name in FUNCTIONS:
            raise self.fail(f"{name} is a function; call it as {name}(...)", node)
        if self.known is not None and name not in self.known:
            raise self.fail(f"unknown name {name!r}{self.suggestion(name)}", node)
        return Node("name", name=name)

    def suggestion(self, name: str) -> str:
        known = self.known or []
        parts = [other for other in known if other.startswith(f"{name}[")]
        if parts:
            return f"; it is a vector: write one of its components, such as {parts[0]}"
        base = name.split("[")[0]
        if base != name and base in known:
            return f"; {base} is a scalar: write it without an index"
        siblings = [other for other in known if base != name and other.startswith(f"{base}[")]
        if siblings:
            return f"; {base} has the components {', '.join(siblings)}"
        near = difflib.get_close_matches(name, known, n=1)
        if near:
            return f"; did you mean {near[0]!r}?"
        return f"; known are {', '.join(known)}" if known else "; no names are known here"

    def compare(self, node: ast.Compare, depth: int) -> Node:
        operands = [self.number(side, depth + 1) for side in (node.left, *node.comparators)]
        links = []
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            if type(operator) not in _COMPARE:
                raise self.fail("only < <= > >= == != compare", node)
            links.append(Node(_COMPARE[type(operator)], (left, right)))
        return links[0] if len(links) == 1 else Node("and", tuple(links))

    def call(self, node: ast.Call, depth: int) -> Node:
        if not isinstance(node.func, ast.Name):
            raise self.fail(f"only these can be called: {', '.join(sorted(FUNCTIONS))}", node)
        function = node.func.id
        if function not in ARITY:
            near = difflib.get_close_matches(function, FUNCTIONS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            listed = ", ".join(sorted(FUNCTIONS))
            raise self.fail(f"unknown function {function!r}{hint} (there are {listed})", node)
        if node.keywords or any(isinstance(arg, ast.Starred) for arg in node.args):
            raise self.fail(f"{function} takes plain arguments only", node)
        least, most = ARITY[function]
        if len(node.args) < least or (most is not None and len(node.args) > most):
            wanted = str(least) if most == least else f"at least {least}"
            reason = f"{function} takes {wanted} arguments, not {len(node.args)}"
            raise self.fail(reason, node)
        first = self.condition if function == "where" else self.number
        rest = (self.number(arg, depth + 1) for arg in node.args[1:])
        return Node(function, (first(node.args[0], depth + 1), *rest))
