"""Nothing that is read may run: no module reads pickles, or YAML or arrays that hold code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "infra", "planner", "models", "streams")
_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
_CALLS = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "np.load", "numpy.load"}


def dangers(source: str) -> Iterator[str]:
    """What a module does that would let a file run code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names}
            names |= {(getattr(node, "module", None) or "").split(".")[0]}
            yield from sorted(names & _MODULES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in _CALLS or given.get("allow_pickle") == "True":
                yield name
            if name == "torch.load" and given.get("weights_only") != "True":
                yield name


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path)",
        "thing.read(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_each_danger_is_seen(source: str) -> None:
    assert len(list(dangers(source))) == 1


def test_no_module_reads_what_can_run() -> None:
    paths = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    assert len(paths) > 100
    found = {str(p.relative_to(ROOT)): list(dangers(p.read_text())) for p in paths}
    assert not {path: names for path, names in found.items() if names}
