"""A graph holds only operators that ONNX Runtime has for GPUs too."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from models.actor import ActorConfig, Behaviour
from models.belief import ModelConfig, WorldModel
from models.export import export_graph
from models.transforms import ColumnScale
from tests.models.synthetic import mass_spec

PLACE = ColumnScale("place[0]", "linear", -20.0, 20.0, 0.0, 5.0, step=0.02)
COLUMNS = (  # with a gap, which is compressed, and a column that spans decades
    PLACE,
    replace(PLACE, name="goal[0]"),
    ColumnScale("queue", "log", 0.0, 1e6, 1.0, 2.0, unit=30.0),
)
FORCE = ColumnScale("force", "linear", -1.0, 1.0, 0.0, 0.6)


def operators(graph: onnx.GraphProto) -> set[str]:
    found = {node.op_type for node in graph.node}
    bodies = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return found.union(*(operators(body) for body in bodies))


@pytest.mark.parametrize("name", ["believe", "imagine"])
def test_no_operator_sends_the_work_of_a_gpu_to_the_cpu(tmp_path: Path, name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = WorldModel(COLUMNS, (FORCE,), ModelConfig(memory=4, free=2, units=8))
        behaviour = Behaviour(mass_spec(), model, ActorConfig(units=8))
    path = tmp_path / f"{name}.onnx"
    export_graph(name, model, behaviour, path)
    assert not operators(onnx.load(str(path)).graph) & {"Asinh", "Cosh", "Sinh"}
