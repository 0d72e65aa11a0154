"""YAML with line numbers: a document, and where each of its fields stands."""

from collections.abc import Mapping
from typing import Any

import yaml

Path = tuple[str | int, ...]


def load_yaml(text: str, name: str) -> tuple[Any, dict[Path, int]]:
    """The document in `text` and the 1-based line of each path in it.

    Raises `ValueError` that names `name`, line and column where `text` is not YAML, and where
    a key stands twice.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Path, int] = {}
        if root is not None:
            _walk(root, (), lines, name)
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise ValueError(f"{place}: not valid YAML: {error.problem or error}") from error


def line_of(path: Path, lines: dict[Path, int]) -> int:
    """The line of `path`, or of its nearest ancestor that stands in the document."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def problem(item: Mapping[str, Any], lines: dict[Path, int], name: str, whole: str) -> str:
    """One of pydantic's errors as a line for people: file, line, field, and what to do.

    `whole` is what the document is called where the error is of no field in particular.
    """
    path = tuple(part for part in item["loc"] if part != "[key]")
    field = ".".join(map(str, path)) or whole
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "there is no such field; check its spelling, or remove it"
    if item["type"] == "missing":
        message = "this field is required; add it"
    return f"{name}:{line_of(path, lines)}: {field}: {message}"


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], name: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            if here in lines:
                line = key.start_mark.line + 1
                raise ValueError(
                    f"{name}:{line}: {'.'.join(map(str, here))} stands twice; remove one of them"
                )
            lines[here] = key.start_mark.line + 1
            _walk(value, here, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, name)
