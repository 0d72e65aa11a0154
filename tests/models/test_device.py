"""Training keeps to its device: run on tensors that have a device and shapes, but no values.

No GPU is needed: torch's fake tensors refuse to mix devices as real ones do.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from models import losses
from models.losses import Weights, filtering_losses, hide, imagination_losses, observe
from tests.models.conftest import Trained

CUDA = torch.device("cuda")


def to_cuda(module: torch.nn.Module) -> None:
    for name, parameter in list(module._parameters.items()):
        if parameter is not None:
            module._parameters[name] = torch.nn.Parameter(parameter.to(CUDA))
    for name, buffer in list(module._buffers.items()):
        if buffer is not None:
            module._buffers[name] = buffer.to(CUDA)


def test_an_update_on_a_gpu_stays_on_it(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, config = trained.trainer, trained.trainer.config
    batch, generator = trainer.batch(0), trainer.generator(0)
    model, behaviour = copy.deepcopy((trainer.model, trainer.behaviour))
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in (*model.modules(), *behaviour.modules()):
            to_cuda(module)
        weights = Weights(*(weight.to(CUDA) for weight in trainer.weights))
        there = batch.to(CUDA)
        trace = observe(model, there, hide(there.mask, generator))
        noise = torch.randn(config.length, config.batch, model.latent).to(CUDA)
        found = filtering_losses(model, there, trace, weights, noise)

        def starts(*_: object) -> tuple[Tensor, Tensor]:  # which ones depends on values
            return torch.zeros(60, dtype=torch.long, device=CUDA), torch.full((60,), 3, device=CUDA)

        monkeypatch.setattr(losses, "_draw_starts", starts)
        sizes: dict[str, Any] = {"starts": 60, "samples": 2, "horizon": config.horizon}
        found |= imagination_losses(model, there, trace.states(), weights, generator, **sizes)
        action = model.action_scaler(there.action)[:20, 3]
        state = action, trace.memory()[3, :20], trace.stack("mean")[3, :20]
        learned, ends, _ = behaviour.losses(model, *state, generator)
        found |= learned
    assert {"imagine", "actor", "critic"} <= found.keys()
    assert {value.device.type for value in (*found.values(), *ends)} == {"cuda"}
