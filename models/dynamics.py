"""The dynamics: a GRU memory shared by all, and an ensemble that predicts the next latent."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.forms import Form

LEAST, MOST = 0.02, 10.0
"""Bounds of a head's standard deviation, in units of the typical change per tick."""


class Memory(nn.Module):
    """GRU cell from one linear layer (Cho et al. 2014, in the form of Hafner et al. 2021).

    Written out instead of `nn.GRUCell`: one matrix product per step, and nothing for an exporter to
    get wrong. The update gate is biased towards keeping.
    """

    def __init__(self, inputs: int, memory: int) -> None:
        super().__init__()
        self.gates = nn.Linear(memory + inputs, 3 * memory)

    def forward(self, memory: Tensor, inputs: Tensor) -> Tensor:
        """`[N, G]` next memory."""
        reset, update, candidate = self.gates(torch.cat([memory, inputs], -1)).chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return memory + torch.sigmoid(update - 1.0) * (candidate - memory)


class Adapter(nn.Module):
    """What one entity does otherwise than those that were learned from, to first order.

    A linear map from what the members are given to a correction of the change, and a factor of each
    spread; the same for all members, so that they disagree as before. A new one changes nothing.
    As small adapters beside weights that stay (Houlsby et al. 2019), here of a linear bottleneck's
    width, as what a mass or a drag changes of a tick is nearly linear.
    """

    def __init__(self, inputs: int, normal: int, others: int) -> None:
        super().__init__()
        self.others = others
        self.map = nn.Parameter(torch.zeros(inputs, normal))
        self.change = nn.Parameter(torch.zeros(normal))
        self.spread = nn.Parameter(torch.zeros(normal))

    def forward(self, inputs: Tensor, out: Tensor) -> Tensor:
        """`out` `[..., 2 normal + others]` of the members' last layer for `inputs`, corrected."""
        change = inputs @ self.map + self.change
        spread = self.spread.expand_as(change)
        rest = [change.new_zeros(*change.shape[:-1], self.others)] if self.others else []
        return out + torch.cat([change, spread, *rest], -1)


class Ensemble(nn.Module):
    """M prior heads over the next latent, `N(z + delta, std)` each (Chua et al. 2018: PETS).

    Change and spread are in units of `step` `[N]`, the typical change per tick of each Gaussian
    latent; where the form has other latents, their logits come after these (see `models.forms`).

    They differ by initial weights and by bootstrap weights in training, so they agree where there
    is data and disagree elsewhere. Weights are `[M, in, out]`: training multiplies all members at
    once; a rollout takes one 2-D product per member, which is what a CPU does fastest.
    """

    step: Tensor

    def __init__(
        self,
        inputs: int,
        step: Tensor,
        units: int,
        members: int,
        layers: int,
        form: Form,
        adapter: bool = False,
    ) -> None:
        super().__init__()
        self.members, self.form = members, form
        self.register_buffer("step", step, persistent=False)
        self.others = form.direct + form.size - form.normal
        sizes = [inputs, *[units] * layers, 2 * form.normal + self.others]
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(_uniform(members, a, b) for a, b in pairs)
        self.biases = nn.ParameterList(_uniform(members, a, b, bias=True) for a, b in pairs)
        self.adapter = Adapter(inputs, form.normal, self.others) if adapter else None
        with torch.no_grad():  # start near persistence with a moderate spread
            self.weights[-1].mul_(0.1)
            self.biases[-1].zero_()

    def forward(self, inputs: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean `[M, N, Z]` and std `[M, N, form.normal]` of every member.

        Beside them the change `[M, N, form.normal]` from `base`, before the sum was rounded.

        Args:
            inputs: `[N, I]`, the same for all members, or `[M, N, I]`.
            base: `[N, Z]` or `[M, N, Z]`, from which the members predict the change.
        """
        x = inputs.expand(self.members, *inputs.shape[-2:])
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            x = x if i == last else torch.relu(x)
        return self._read(self._adapted(inputs, x), base)

    def _adapted(self, inputs: Tensor, out: Tensor) -> Tensor:
        """What the last layer gives, with the adapter's correction where there is one."""
        return out if self.adapter is None else self.adapter(inputs, out)

    def apart(self, inputs: Tensor, count: int) -> Tensor:
        """`[N, count]` standard deviation of the members' changes, in units of `step`.

        Of the first `count` latents, for `inputs` `[N, I]`. Written out, and of no more columns
        than are asked for: a search asks it of every candidate at every tick.
        """
        x = inputs.expand(self.members, *inputs.shape)
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for inner, shift in hidden:
            x = torch.relu(torch.baddbmm(shift, x, inner))
        change = torch.baddbmm(bias[..., :count], x, weight[..., :count])
        off = change - change.mean(0)
        return torch.sqrt(off.square().sum(0) / (self.members - 1))

    def by_member(self, inputs: Tensor, base: Tensor, clone: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and std as above, `[M * N, ·]`, of rows ordered by member, each under its own.

        `clone` is for export: one two-dimensional product per member, which ONNX Runtime does
        fastest, of copied weights, as exporters reject those that share storage.
        """
        if clone:
            out = self._adapted(inputs, torch.cat(self._apart(inputs), 0))
            mean, std, _ = self._read(out, base)
            return mean, std
        rows = inputs.view(self.members, -1, inputs.shape[-1])
        mean, std, _ = self(rows, base.view(self.members, -1, base.shape[-1]))
        return mean.flatten(0, 1), std.flatten(0, 1)

    def _apart(self, inputs: Tensor) -> list[Tensor]:
        """What each member gives for its own rows, by its own product."""
        out = []
        last = len(self.weights) - 1
        rows = inputs.shape[0] // self.members
        for m in range(self.members):
            # Slices, not `chunk`: its rounding up would fix the number of rows in an export.
            x = inputs[m * rows : (m + 1) * rows]
            for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                x = torch.addmm(bias[m, 0].clone(), x, weight[m].clone())
                x = x if i == last else torch.relu(x)
            out.append(x)
        return out

    def _read(self, out: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, std and change of what the last layer gives."""
        count = self.form.normal
        change, std = self._gaussian(out[..., : 2 * count] if self.others else out)
        if not self.others:
            return base + change, std, change
        logits = self.form.logits(out[..., 2 * count :], base[..., count:])
        return torch.cat([base[..., :count] + change, logits], -1), std, change

    def _gaussian(self, out: Tensor) -> tuple[Tensor, Tensor]:
        delta, raw = out.chunk(2, -1)
        low, high = _LOG_STD
        # A bounded log std keeps gradients everywhere; Exp and Sigmoid are cheap on a CPU.
        std = self.step * torch.exp(low + (high - low) * torch.sigmoid(raw))
        return self.step * delta, std


_LOG_STD = (math.log(LEAST), math.log(MOST))


def _uniform(members: int, inputs: int, outputs: int, bias: bool = False) -> nn.Parameter:
    bound = inputs**-0.5
    shape = (members, 1 if bias else inputs, outputs)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
