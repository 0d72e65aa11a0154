"""YAML with line numbers: a document, and where each of its fields stands."""

import pathlib
from collections.abc import Mapping
from typing import Any, Final

import yaml
from yaml.reader import ReaderError

MOST_BYTES: Final = 1 << 20
MOST_FIELDS: Final = 100_000
Path = tuple[str | int, ...]


def read_text(file: pathlib.Path) -> str:
    """The text of a YAML file that people wrote; `ValueError` where it can be none.

    Raises `OSError` where it cannot be read.
    """
    with file.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{file}: larger than {MOST_BYTES} bytes; is it the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}:{line}: not a text in UTF-8; save it as such") from error


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
        raise ValueError(
            f"{place}: not valid YAML: {error.problem or error}{_tab(error)}"
        ) from error
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        what = f"not valid YAML: the character #x{error.character:04x}"
        raise ValueError(f"{name}:{line}: {what} is not allowed; remove it") from error
    except RecursionError as error:
        raise ValueError(f"{name}: nested too deeply, or within itself") from error


def _tab(error: yaml.MarkedYAMLError) -> str:
    return "; indent with blanks" if "'\\t'" in str(error.problem) else ""


def line_of(path: Path, lines: dict[Path, int]) -> int:
    """The line of `path`, or of its nearest ancestor that stands in the document."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def problem(item: Mapping[str, Any], lines: dict[Path, int], name: str, whole: str) -> str:
    """One of pydantic's errors as a line for people: file, line, field, and what to do.

    `whole` is what the document is called where the error is of no field in particular.
    """
    path = _written(tuple(part for part in item["loc"] if part != "[key]"), lines)
    field = ".".join(map(str, path)) or whole
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "there is no such field; check its spelling, or remove it"
    if item["type"] == "missing":
        message = "this field is required; add it"
    return f"{name}:{line_of(path, lines)}: {field}: {message}"


def _written(path: Path, lines: dict[Path, int]) -> Path:
    """`path` as it stands in the document: pydantic also names which kind of several it took."""
    first = next((i for i in range(len(path)) if path[: i + 1] not in lines), len(path))
    without = path[:first] + path[first + 1 :]
    return without if without[: first + 1] in lines and first + 1 < len(path) else path


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], name: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > MOST_FIELDS:  # a few aliases of aliases are millions
        raise ValueError(f"{name}: more than {MOST_FIELDS} fields, aliases counted")
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
