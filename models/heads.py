"""What is read off a latent state: bounded shares, continuation, and a learned reward."""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NumberName = Literal["mean", "two_hot"]
BINS = 127
"""Of a distribution over numbers; odd, so that one of them is 0."""
FINEST, REACH = 0.01, 1000.0
"""Where bins begin to widen, and where they end, in units of the numbers."""
PEAKED = 2.0
"""How steeply a distribution falls off, per unit of symlog, before anything is learned."""
OTHER_UNITS = 10.0
"""Units that have changed by this factor are none that bins could be kept in."""


def mlp(inputs: int, units: int, outputs: int, layers: int = 1) -> nn.Sequential:
    """`layers` hidden layers of `units` with ReLU, then a linear one."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*parts, nn.Linear(inputs, outputs))


def exact(out: Tensor) -> Tensor:
    """`out`, no longer in bfloat16: what is added up or put into a logarithm is never rounded."""
    return out.float() if out.dtype == torch.bfloat16 else out


class Number(nn.Module, ABC):
    """A number read off a state, learned in units of its own so that any reward is as easy."""

    net: nn.Sequential
    scale: Tensor

    @abstractmethod
    def rescale(self, offset: float, scale: float) -> None:
        """Changes the units: numbers are about `offset`, and `scale` apart."""

    @abstractmethod
    def forward(self, state: Tensor) -> Tensor:
        """`[N]` of states `[N, ·]`."""

    @abstractmethod
    def error(self, state: Tensor, truth: Tensor) -> Tensor:
        """`[N]` losses, without units, of states `[N, ·]` against finite numbers `[N]`."""


class Scaled(Number):
    """One that is learned as a mean, by Huber's loss."""

    offset: Tensor

    def __init__(self, inputs: int, units: int, layers: int = 2) -> None:
        super().__init__()
        self.net = mlp(inputs, units, 1, layers)
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def rescale(self, offset: float, scale: float) -> None:
        """Changes the units, not what is learned (van Hasselt et al. 2016: PopArt)."""
        last, ratio = self.net[-1], self.scale / scale
        last.weight.mul_(ratio)  # type: ignore[operator]
        last.bias.mul_(ratio).add_((self.offset - offset) / scale)  # type: ignore[operator]
        self.offset.fill_(offset)
        self.scale.fill_(scale)

    def forward(self, state: Tensor) -> Tensor:
        """`[N]` of states `[N, ·]`."""
        out = exact(self.net(state).squeeze(-1))
        return self.offset + self.scale * out

    def error(self, state: Tensor, truth: Tensor) -> Tensor:
        """Huber's loss in units of `scale`."""
        wrong = (self(state) - truth) / self.scale
        return F.huber_loss(wrong, torch.zeros_like(wrong), reduction="none")


class TwoHot(Number):
    """One that is learned as a distribution over bins, by cross entropy, and read as its mean.

    Bins are even in symlog (Hafner et al. 2023): fine about 0 and ever wider away from it. So what
    is learned of small numbers is not drowned by rare ones that are orders larger, and no outlier
    pulls harder than another. A truth between two bins counts for both, such that it is their mean
    (Imani and White 2018: histogram losses).
    """

    bins: Tensor
    laid: Tensor

    def __init__(self, inputs: int, units: int, layers: int = 2) -> None:
        super().__init__()
        self.net = mlp(inputs, units, BINS, layers)
        end = math.log1p(REACH / FINEST)
        even = torch.arange(-(BINS // 2), BINS // 2 + 1) * (2.0 * end / (BINS - 1))
        self.register_buffer("bins", (FINEST * symexp(even.double())).float(), persistent=False)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("laid", torch.ones(()))  # the scale that the bins are laid out for
        with torch.no_grad():
            self.net[-1].weight.zero_()  # type: ignore[operator]
        self.rescale(0.0, 1.0)

    @torch.no_grad()
    def rescale(self, offset: float, scale: float) -> None:
        """Changes the units. Bins, which reach over five decades, and what is learned stay where
        the scale changes by less than `OTHER_UNITS`; else all begins anew about `offset`.
        """
        self.scale.fill_(scale)
        last, laid = self.net[-1], float(self.laid)
        learned = bool(last.weight.any())  # type: ignore[operator]
        if learned and laid / OTHER_UNITS < scale < laid * OTHER_UNITS:
            return
        self.laid.fill_(scale)
        # Falling off on both sides of it in symlog, the mean of all bins is `offset` all but for
        # rounding.
        centre = torch.tensor(offset / scale * (1.0 - PEAKED**-2)) / FINEST
        apart = symlog(self.bins / FINEST) - symlog(centre.to(self.bins))
        last.weight.zero_()  # type: ignore[operator]
        last.bias.copy_(-PEAKED * apart.abs())  # type: ignore[operator]

    def forward(self, state: Tensor) -> Tensor:
        """`[N]` means of states `[N, ·]`."""
        likely = torch.softmax(exact(self.net(state)), -1)
        return self.laid * (likely * self.bins).sum(-1)

    def error(self, state: Tensor, truth: Tensor) -> Tensor:
        """Cross entropy with the two bins next to the truth, nats."""
        wanted = two_hot(truth / self.laid, self.bins)
        return -(wanted * torch.log_softmax(exact(self.net(state)), -1)).sum(-1)


def symlog(x: Tensor) -> Tensor:
    """Near-linear within ±1, logarithmic beyond."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(x.abs())


def two_hot(truth: Tensor, bins: Tensor) -> Tensor:
    """`[..., K]` weights of the ascending `bins` `[K]`, whose mean is `truth` `[...]`.

    All but the two next to it are 0. What lies beyond the last bin is put there.
    """
    inside = torch.minimum(torch.maximum(truth, bins[0]), bins[-1])
    above = torch.bucketize(inside.contiguous(), bins).clamp(1, len(bins) - 1)[..., None]
    low, high = bins[above - 1], bins[above]
    part = (inside[..., None] - low) / (high - low)
    none = inside.new_zeros(*inside.shape, len(bins))
    return none.scatter(-1, above, part).scatter(-1, above - 1, 1.0 - part)


def make_number(name: NumberName, inputs: int, units: int) -> Number:
    """The form named so, with two hidden layers of `units`.

    Raises:
        ValueError: no such form.
    """
    if name not in ("mean", "two_hot"):
        raise ValueError(f"form {name!r} of a number: mean and two_hot are known")
    return Scaled(inputs, units) if name == "mean" else TwoHot(inputs, units)


class Heads(nn.Module):
    """What is read off a state `[memory, latent]`, each by a network of its own.

    So each can be learned again without the rest, and no export holds one that it does not use.

    share: channels bounded to [0, 1], such as a share of late requests. Their conditional *mean*
        is what a reward needs, and a Gaussian clipped at 0 would bias it; so they are read off the
        sampled state instead of being sampled themselves. None where there are none.
    alive: logit of the probability that the episode goes on.
    reward: the learned reward, used only where the spec has no expression.
    cost: logit of the probability that a constraint of the spec is broken; only where it is asked
        for.
    """

    def __init__(
        self,
        memory: int,
        latent: int,
        shares: int,
        units: int,
        cost: bool = False,
        reward: NumberName = "mean",
    ) -> None:
        super().__init__()
        state = memory + latent
        self.share = mlp(state, units, shares) if shares else None
        self.alive = mlp(state, units, 1)
        self.reward = make_number(reward, state, units)
        self.cost: nn.Sequential | None = None
        if cost:
            with torch.random.fork_rng(devices=[]):  # what is drawn after it stays the same
                self.cost = mlp(state, units, 1, 2)

    def forward(self, memory: Tensor, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the shares `[N, S]`, logit of alive `[N]`, reward `[N]` in raw units."""
        state = torch.cat([memory, latent], -1)
        return self.shares(state), self.going(state), self.reward(state)

    def shares(self, state: Tensor) -> Tensor:
        """Logits of the shares `[N, S]` of states `[N, memory + latent]`; S may be 0."""
        return state[:, :0] if self.share is None else exact(self.share(state))

    def going(self, state: Tensor) -> Tensor:
        """Logit `[N]` of the probability that the episode goes on."""
        return exact(self.alive(state).squeeze(-1))

    def costs(self, memory: Tensor, latent: Tensor) -> Tensor:
        """Logit of a broken constraint `[N]`, where it is learned."""
        assert self.cost is not None
        return exact(self.cost(torch.cat([memory, latent], -1)).squeeze(-1))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        _apart(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _apart(state: dict[str, Any], prefix: str) -> None:
    """Weights of when shares and continuation had one network: two that give the same."""
    old = {name: state.pop(name) for name in list(state) if name.startswith(f"{prefix}net.")}
    for name, value in old.items():
        layer = name.removeprefix(f"{prefix}net.")
        last = layer.startswith("2.")
        state[f"{prefix}alive.{layer}"] = value[-1:] if last else value
        if len(old[f"{prefix}net.2.bias"]) > 1:
            state[f"{prefix}share.{layer}"] = value[:-1] if last else value
