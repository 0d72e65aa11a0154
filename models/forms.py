"""The forms of the free latents behind one interface: Gaussian columns, or groups of classes."""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from models.encoders.fusion import product

FormName = Literal["gaussian", "categorical"]
SURE = 4.0
"""Evidence of one tick is bounded: precision to e^±4, a class's log likelihood to ±4."""
UNIFORM = 0.01
"""Share of every predicted class distribution that is uniform (Hafner et al. 2023)."""
STAY = 3.0
"""Log odds of staying in a class before anything is learned: dynamics begin near persistence."""
TAIL = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logarithm is taken twice."""


class Form(ABC):
    """What the free columns of a latent `z` `[..., Z]` mean; the first D are the direct ones.

    Attributes:
        direct: D.
        normal: N, how many columns of `z`, from the first, are Gaussian; they alone have a spread.
        size: F, free columns of `z`.
        evidence: numbers that an encoder gives about the free latents.
    """

    direct: int
    normal: int
    size: int
    evidence: int

    @abstractmethod
    def seen(self, latent: Tensor) -> Tensor:
        """`[..., Z]` a belief's latent as networks see it."""

    @abstractmethod
    def draw(self, latent: Tensor, noise: Tensor) -> Tensor:
        """`[..., Z]` one state, by standard normal noise `[..., Z]`, that a future goes on from."""

    @abstractmethod
    def add(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """`[..., Z]` mean with noise `[..., Z]` of standard deviation `[..., N]` added."""

    @abstractmethod
    def mix(self, mean: Tensor) -> Tensor:
        """`[B, Z]` latent of the even mixture of M members' `[M, B, Z]`."""

    @abstractmethod
    def logits(self, out: Tensor, seen: Tensor) -> Tensor:
        """`[..., Z - N]` next latents that are not Gaussian, of what a network gives for them."""

    @abstractmethod
    def read(self, raw: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence and its precision, `[..., F]` each, of an encoder's output.

        Args:
            raw: `[..., evidence]`.
            present: `[..., 1]`, 0 where there is nothing to encode: then the precision is 0.
        """

    @abstractmethod
    def fuse(self, evidence: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """The product of K experts' evidence, `[K, ..., F]` each."""

    @abstractmethod
    def combine(
        self, mean: Tensor, variance: Tensor, evidence: Tensor, precision: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation, `[B, Z]` each.

        Args:
            mean: `[B, Z]` of the prior; variance: `[B, N]`.
            evidence, precision: `[B, Z]`.
        """

    @abstractmethod
    def divergence(self, latent: Tensor, std: Tensor, prior: Tensor, prior_std: Tensor) -> Tensor:
        """`[..., free]` KL(posterior || prior) of each free latent, in nats, in closed form.

        Args:
            latent, prior: `[..., Z]`.
            std, prior_std: `[..., N]`.
        """


def kalman(
    mean: Tensor, variance: Tensor, evidence: Tensor, precision: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the product of two Gaussians, all of one shape.

    The gain is exactly 0 where there is no evidence, so the prior comes out unchanged.
    """
    gain = variance * precision / (1.0 + variance * precision)
    return mean + gain * (evidence - mean), torch.sqrt(variance * (1.0 - gain) + 1e-10)


def gaussian_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, std) || N(other_mean, other_std)) per dimension."""
    ratio = (std / other_std).square()
    return 0.5 * (ratio - 1.0 - torch.log(ratio) + ((mean - other_mean) / other_std).square())


class Gaussian(Form):
    """Free latents are Gaussian columns, as the direct ones are."""

    def __init__(self, direct: int, free: int) -> None:
        self.direct, self.size = direct, free
        self.normal, self.evidence = direct + free, 2 * free

    def seen(self, latent: Tensor) -> Tensor:
        """The latent itself."""
        return latent

    def draw(self, latent: Tensor, noise: Tensor) -> Tensor:
        """The latent itself: it was drawn when the noise was added."""
        return latent

    def add(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """`mean + std * noise`."""
        return mean + std * noise

    def mix(self, mean: Tensor) -> Tensor:
        """The mean of the means."""
        return mean.mean(0)

    def logits(self, out: Tensor, seen: Tensor) -> Tensor:
        """None: no columns."""
        return out

    def read(self, raw: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and precision."""
        mean, raw = raw.chunk(2, -1)
        return mean, torch.exp(SURE * torch.tanh(raw)) * present

    def fuse(self, evidence: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Mean by precision; the precisions add up."""
        return product(evidence, precision)

    def combine(
        self, mean: Tensor, variance: Tensor, evidence: Tensor, precision: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As in a Kalman filter."""
        return kalman(mean, variance, evidence, precision)

    def divergence(self, latent: Tensor, std: Tensor, prior: Tensor, prior_std: Tensor) -> Tensor:
        """Per free column."""
        free = slice(self.direct, None)
        return gaussian_kl(
            latent[..., free], std[..., free], prior[..., free], prior_std[..., free]
        )


class Categorical(Form):
    """Free latents are `free` groups of `classes` each (Hafner et al. 2021, 2023).

    A belief's columns are the logits of its classes, and their spread is 0: a distribution is known
    exactly by its logits. Filtering hands the probabilities on, as it hands a Gaussian's mean on;
    a future draws one class of each group when it goes on from a state, by Gumbel's trick, with the
    gradient straight through to the probabilities. Evidence is a log likelihood of each class, so
    what is absent adds exactly nothing to the prior's logits.
    """

    def __init__(self, direct: int, free: int, classes: int) -> None:
        self.direct = self.normal = direct
        self.groups, self.classes = free, classes
        self.size = self.evidence = free * classes

    def _groups(self, columns: Tensor) -> Tensor:
        return columns.reshape(*columns.shape[:-1], self.groups, self.classes)

    def _with(self, latent: Tensor, free: Tensor) -> Tensor:
        return torch.cat([latent[..., : self.direct], free.flatten(-2)], -1)

    def seen(self, latent: Tensor) -> Tensor:
        """Probabilities for logits."""
        logits = self._groups(latent[..., self.direct :])
        return self._with(latent, torch.softmax(logits, -1))

    def draw(self, latent: Tensor, noise: Tensor) -> Tensor:
        """One class of each group: 1 in its column, 0 in the others."""
        logits = self._groups(latent[..., self.direct :])
        score = logits + gumbel(self._groups(noise[..., self.direct :]))
        drawn = (score >= score.amax(-1, keepdim=True)).to(latent)
        if torch.is_grad_enabled():  # straight through (Bengio et al. 2013); adds exactly 0
            likely = torch.softmax(logits, -1)
            drawn = drawn + (likely - likely.detach())
        return self._with(latent, drawn)

    def add(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """To the direct columns alone: a class is drawn when a future goes on from it."""
        direct = mean[..., : self.direct] + std * noise[..., : self.direct]
        return torch.cat([direct, mean[..., self.direct :]], -1)

    def mix(self, mean: Tensor) -> Tensor:
        """The mean of the means, and the logarithm of the mean probability."""
        likely = torch.exp(mean[..., self.direct :]).mean(0)
        return torch.cat([mean[..., : self.direct].mean(0), torch.log(likely)], -1)

    def logits(self, out: Tensor, seen: Tensor) -> Tensor:
        """Log probabilities, with a share that is uniform: none is ever impossible."""
        likely = torch.softmax(self._groups(out + STAY * seen), -1)
        mixed = (1.0 - UNIFORM) * likely + UNIFORM / self.classes
        return torch.log(mixed).flatten(-2)

    def read(self, raw: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Log likelihoods of the classes; all 0 without anything to encode."""
        return SURE * torch.tanh(raw) * present, present.expand_as(raw)

    def fuse(self, evidence: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Log likelihoods add up."""
        return evidence.sum(0), precision.sum(0)

    def combine(
        self, mean: Tensor, variance: Tensor, evidence: Tensor, precision: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The direct columns as in a Kalman filter, the logits by Bayes' rule, up to a constant."""
        count = self.direct
        parts = (x[..., :count] for x in (mean, variance, evidence, precision))
        direct, std = kalman(*parts)
        logits = mean[..., count:] + evidence[..., count:]
        return torch.cat([direct, logits], -1), torch.cat([std, torch.zeros_like(logits)], -1)

    def divergence(self, latent: Tensor, std: Tensor, prior: Tensor, prior_std: Tensor) -> Tensor:
        """Per group of classes."""
        mine, other = (
            torch.log_softmax(self._groups(x[..., self.direct :]), -1) for x in (latent, prior)
        )
        return (torch.exp(mine) * (mine - other)).sum(-1)


def gumbel(noise: Tensor) -> Tensor:
    """Gumbel noise of standard normal `noise`, by the two distribution functions.

    So whoever rolls a model out draws the same kind of noise for both forms.
    """
    level = 0.5 + 0.5 * torch.erf(noise * math.sqrt(0.5))
    return -torch.log(-torch.log(level.clamp(TAIL, 1.0 - TAIL)))


def make_form(name: FormName, direct: int, free: int, classes: int) -> Form:
    """The form named so, of `free` latents, or groups of `classes`.

    Raises:
        ValueError: no such form, or fewer than two classes.
    """
    if name == "gaussian":
        return Gaussian(direct, free)
    if name != "categorical":
        raise ValueError(f"form {name!r}: gaussian and categorical are known")
    if classes < 2:
        raise ValueError(f"classes {classes}: a categorical latent needs at least 2")
    return Categorical(direct, free, classes)
