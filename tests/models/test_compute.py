"""What an update is computed with: mixed precision, compiled, and on a GPU where there is one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from models.compute import Compute
from models.heads import Heads, Scaled
from models.train import TrainConfig, Trainer
from tests.models.conftest import TINY, Trained

FEW: TrainConfig = replace(TINY, steps=6, actor_steps=6, batch=8, length=8, horizon=3, starts=20)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no usable GPU")


def learned(trained: Trained, compute: Compute) -> Trainer:
    trainer = Trainer(trained.spec, trained.dataset, FEW, compute)
    trainer.run()
    return trainer


def agree(one: Trainer, two: Trainer, share: float) -> None:
    """Every loss of every update, within a share of it (and of 1)."""
    assert one.progress.curves.keys() == two.progress.curves.keys()
    for name, curve in one.progress.curves.items():
        for (step, a), (_, b) in zip(curve, two.progress.curves[name], strict=True):
            assert abs(a - b) <= share * max(1.0, abs(a)), (name, step, a, b)


def test_mixed_precision_learns_the_same_but_for_rounding(trained: Trained) -> None:
    exact = learned(trained, Compute())
    mixed = learned(trained, Compute(precision="bfloat16"))
    agree(exact, mixed, 0.05)
    pairs = zip(exact.model.parameters(), mixed.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs), "bfloat16 rounded nothing"
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters())
    assert mixed.ends is not None
    assert {part.dtype for part in mixed.ends} == {torch.float32}


def test_what_is_added_up_is_never_rounded() -> None:
    heads = Heads(4, 3, 2, 8)
    assert isinstance(heads.reward, Scaled)
    heads.reward.offset.fill_(50.0)
    with Compute(precision="bfloat16").products():
        logits, alive, reward = heads(torch.ones(5, 4), torch.rand(5, 3))
    assert {logits.dtype, alive.dtype, reward.dtype} == {torch.float32}
    assert len(set(reward.tolist())) > 1, "at 50 bfloat16 knows quarters alone"


def test_known_dynamics_are_computed_exactly(trained: Trained) -> None:
    config = replace(FEW, physics="tests.models.test_physics:known")
    with pytest.raises(ValueError, match=r"run\.precision: known dynamics"):
        Trainer(trained.spec, trained.dataset, config, Compute(precision="bfloat16"))


def test_compiled_learns_the_same_and_leaves_the_model_as_written(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is captured is what matters here; writing C++ for it takes minutes on a busy machine.
    used, compiling = set[str](), partial(torch.compile, backend="aot_eager")

    def counted(function: Any, **options: Any) -> Any:
        compiled = compiling(function, **options)

        def call(*given: Any) -> Any:
            used.add(function.__name__)
            return compiled(*given)

        return call

    monkeypatch.setattr(torch, "compile", counted)
    plain, swift = learned(trained, Compute()), learned(trained, Compute(compiled=True))
    agree(plain, swift, 1e-3)
    assert used == {"update", "imagine", "decode"}
    for name in ("update", "imagine", "decode"):
        assert name not in vars(swift.model), "export would trace the compiled form"


def test_what_a_machine_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert Compute().missing() == ""
    assert "no no-such-compiler here" in Compute(compiled=True).missing()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "choose --device cpu" in Compute("cuda").missing()


@GPU
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_learns_what_the_cpu_does(trained: Trained, precision: str, compiled: bool) -> None:
    there = Compute("cuda", "bfloat16" if precision == "bfloat16" else "float32", compiled)
    found = learned(trained, there)
    assert {p.device.type for p in found.model.parameters()} == {"cuda"}
    agree(learned(trained, Compute()), found, 0.05 if precision == "bfloat16" else 5e-3)
