"""The recurrent state-space model: belief by weighted evidence, imagination by an ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.dynamics import Ensemble, Memory
from models.encoders.vector import EncoderName, FusedEncoder, VectorEncoder
from models.forms import FormName, make_form
from models.heads import Heads, NumberName
from models.physics import Physics
from models.transforms import FARTHEST, ColumnScale, Scaler

LEAST_NOISE = 0.02
"""Least sensor noise in units of the typical change per tick: nothing is believed blindly."""
FREE_STEP = 0.3
"""Typical change per tick of a free latent, which has no data to tell it."""
FAR_OFF = 20.0
"""An error of more typical changes than these tells an encoder no more."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model; the defaults imagine 255 × 10 futures of 10 entities in some 10 ms.

    Attributes:
        memory: G, units of the deterministic path.
        free: latents that are not themselves a channel; groups of classes where categorical.
        units: width of each hidden layer.
        layers: hidden layers of a dynamics head.
        members: M, dynamics heads.
        form: of the free latents; classes: of each group, where it is categorical.
        encoder: `joint`, one network of all channels, or `fused`, one per sensor.
        corrects: whether the encoder is told how far off the prediction was. What no sensor shows,
            such as a velocity, is in that error, as in a Kalman filter's innovation; in two nearly
            equal readings a network has to find it in their last digits.
        head_units: width of the heads' hidden layers; 0: `units`.
        cost: whether broken constraints are learned by a head.
        reward: how a learned reward is, as a mean or as a distribution (`models.heads.TwoHot`).
        periodic: whether dynamics, actor and critic are shown sines and cosines of channels, too,
            whose raw values are taken for radians. A joint that may turn for ever looks to them
            else like a place ever further off, where all has to be learned once more.
        adapter: whether the dynamics have a correction for one entity; see `models.adapt`.
    """

    memory: int = 32
    free: int = 4
    units: int = 64
    layers: int = 1
    members: int = 5
    form: FormName = "gaussian"
    classes: int = 8
    encoder: EncoderName = "joint"
    corrects: bool = False
    head_units: int = 0
    cost: bool = False
    reward: NumberName = "mean"
    periodic: bool = False
    adapter: bool = False


class Hidden(NamedTuple):
    """The parts of `h`: what a belief carries beside its latent mean. Each `[..., size]`."""

    started: Tensor  # 1 once the belief has seen a tick; a fresh belief is all zeros
    action: Tensor  # the last applied action, normalised: rate limits need it exactly
    spread: Tensor  # [N] std of the Gaussian latents, so that a dropout keeps widening it
    memory: Tensor  # the GRU's state


class Prior(NamedTuple):
    """What the members expect of the next latent, before the observation."""

    members_mean: Tensor  # [M, B, Z]
    members_std: Tensor  # [M, B, N] one step's noise, without what the belief did not know
    carried: Tensor  # [B, N] standard deviation carried over from the last belief
    mean: Tensor  # [B, Z] of the mixture
    variance: Tensor  # [B, N] of the mixture: noise + disagreement + carried
    base: Tensor  # [B, Z] what the members predict a change from
    members_change: Tensor  # [M, B, N] members_mean less `base`, before it was rounded


class Posterior(NamedTuple):
    """A belief after one tick."""

    hidden: Hidden
    mean: Tensor  # [B, Z]
    std: Tensor  # [B, Z]
    prior: Prior


class WorldModel(nn.Module):
    """RSSM (Hafner et al. 2019, 2023) whose latent state has two parts.

    *Direct* latents are the normalised channels themselves: a sensor reading is Gaussian evidence
    about its latent with a learned noise, and prior and evidence combine by precision, as in a
    Kalman filter (Becker et al. 2019: recurrent Kalman networks). *Free* latents carry what no
    channel shows; the encoder gives the evidence about them. Missing evidence has precision zero:
    without observations the posterior is exactly the prior, and its spread grows with every tick.
    Free latents are Gaussian too, or groups of classes (`models.forms`).

    Raw units outside, normalised ones inside. B rows, O observation columns, A actions, Z latents,
    N of which are Gaussian, H the size of `h` (see `Hidden`).
    """

    least: Tensor
    most: Tensor
    turning: Tensor  # the direct latents of which sines and cosines are shown

    def __init__(
        self,
        columns: Sequence[ColumnScale],
        actions: Sequence[ColumnScale],
        config: ModelConfig,
        sensors: Sequence[Sequence[int]] = (),
        physics: Physics | None = None,
    ) -> None:
        """`sensors`: the columns of each sensor, for a fused encoder; `physics`: what is known."""
        super().__init__()
        self.config = config
        self.direct = [i for i, c in enumerate(columns) if c.kind != "share"]
        self.shares = [i for i, c in enumerate(columns) if c.kind == "share"]
        self.observations, self.actions = len(columns), len(actions)
        self.form = make_form(config.form, len(self.direct), config.free, config.classes)
        self.latent = len(self.direct) + self.form.size
        self.hidden = 1 + self.actions + self.form.normal + config.memory
        self.scaler = Scaler(columns)
        self.direct_scaler = self.scaler.pick(self.direct)
        self.action_scaler = Scaler(actions)
        free = torch.full((self.form.size,), FARTHEST)
        least, most = self.direct_scaler.reach()
        self.register_buffer("least", torch.cat([least, -free]), persistent=False)
        self.register_buffer("most", torch.cat([most, free]), persistent=False)
        round_ = [i for i, c in enumerate(self.direct_scaler.columns) if c.kind == "linear"]
        turning = torch.tensor(round_ if config.periodic else [], dtype=torch.long)
        self.register_buffer("turning", turning, persistent=False)
        self.turns = 2 * len(turning)
        inputs = self.latent + self.actions + self.turns
        self.physics = physics
        step = self._units()
        self.memory = Memory(inputs, config.memory)
        self.ensemble = Ensemble(
            config.memory + inputs,
            torch.cat([step, torch.full((self.form.normal - len(step),), FREE_STEP)]),
            config.units,
            config.members,
            config.layers,
            self.form,
            config.adapter,
        )
        self.encoder = self._encoder(sensors)
        units = config.head_units or config.units
        shares = len(self.shares)
        self.heads = Heads(config.memory, self.latent, shares, units, config.cost, config.reward)
        self.log_noise = nn.Parameter(torch.full((len(self.direct),), -1.0))
        self.share_noise = nn.Parameter(torch.full((2, len(self.shares)), -4.0))
        self.retention = nn.Parameter(torch.full((self.form.normal,), 4.0))

    def _encoder(self, sensors: Sequence[Sequence[int]]) -> VectorEncoder | FusedEncoder:
        config = self.config
        size = config.memory, config.units, self.form, config.corrects
        if config.encoder == "joint":
            return VectorEncoder(self.observations, *size)
        if sorted(i for columns in sensors for i in columns) != list(range(self.observations)):
            raise ValueError("encoder fused: give the model the columns of each sensor, all once")
        return FusedEncoder(sensors, *size)

    def _units(self) -> Tensor:
        """`[direct]` in what each direct column's change is said."""
        steps = self.direct_scaler.steps()
        return steps if self.physics is None else self.physics.units(steps)

    def set_units(self) -> None:
        """Has the members speak in the units of the physics, after these were loaded or changed."""
        units = self._units()
        self.ensemble.step[: len(units)] = units.to(self.ensemble.step)

    # beliefs

    def unpack(self, h: Tensor) -> Hidden:
        """The parts of `h` `[..., H]`."""
        sizes = [1, self.actions, self.form.normal, self.config.memory]
        return Hidden(*torch.split(h, sizes, -1))

    def noise(self) -> Tensor:
        """`[direct]` standard deviation of the sensors, normalised."""
        step = self.ensemble.step[: len(self.direct)]
        return step * (LEAST_NOISE + torch.exp(self.log_noise))

    def prior(self, before: Hidden, latent: Tensor, action: Tensor) -> tuple[Tensor, Prior]:
        """Memory `[B, G]` and prior of the next tick; all normalised."""
        latent = self.form.seen(latent)
        seen = self.seen(latent, action)
        memory = self.memory(before.memory, seen)
        base = self.base(latent, action)
        mean, std, change = self.ensemble(torch.cat([memory, seen], -1), base)
        carried = torch.sigmoid(self.retention) * before.spread
        mixed = self.form.mix(mean)
        disagreement = (mean - mixed)[..., : self.form.normal].square().mean(0)
        variance = std.square().mean(0) + disagreement + carried.square()
        # A fresh belief knows no more than the statistics of the data: N(0, 1), all classes alike.
        mixed = before.started * mixed
        variance = before.started * variance + (1.0 - before.started)
        return memory, Prior(mean, std, carried, mixed, variance, base, change)

    def seen(self, latent: Tensor, action: Tensor) -> Tensor:
        """`[..., Z + A + turns]` what the dynamics are shown of a latent and the next action."""
        return torch.cat([latent, action, *self.turned(latent)], -1)

    def turned(self, latent: Tensor) -> list[Tensor]:
        """Sines and cosines `[..., turns / 2]` of raw values; none where it is not periodic."""
        if not self.turns:
            return []
        raw = self.direct_scaler.inverse(latent[..., : len(self.direct)])
        angle = raw.index_select(-1, self.turning)
        return [torch.sin(angle), torch.cos(angle)]

    def base(self, latent: Tensor, action: Tensor) -> Tensor:
        """`[N, Z]` what the members predict the change from: the present, or physics' next."""
        return latent if self.physics is None else self.physics(latent, action)

    def update(
        self, before: Hidden, latent: Tensor, action: Tensor, y: Tensor, mask: Tensor
    ) -> Posterior:
        """One tick of filtering, normalised: prior, then evidence by precision.

        Args:
            before: the previous belief's `h`.
            latent: `[B, Z]` its mean.
            action: `[B, A]` in force since.
            y: `[B, O]` observation; what is masked is never read.
            mask: `[B, O]` 1 where present.
        """
        memory, prior = self.prior(before, latent, action)
        y = y * mask
        off = [self._off(before.started, prior, y, mask)] if self.config.corrects else []
        free_mean, free_precision = self.encoder(y, mask, memory, *off)
        evidence = torch.cat([y[..., self.direct], free_mean], -1)
        direct_precision = mask[..., self.direct] / self.noise().square()
        precision = torch.cat([direct_precision, free_precision], -1)
        mean, std = self.form.combine(prior.mean, prior.variance, evidence, precision)
        spread = std[..., : self.form.normal]
        hidden = Hidden(torch.ones_like(before.started), action, spread, memory)
        return Posterior(hidden, mean, std, prior)

    def start(self, rows: int) -> tuple[Hidden, Tensor]:
        """A fresh belief: zeros."""
        zeros = self.retention.new_zeros
        return self.unpack(zeros(rows, self.hidden)), zeros(rows, self.latent)

    def stretch(self, columns: Sequence[ColumnScale]) -> None:
        """Lets imagination reach as far as newer data does; `columns` differ in extremes alone."""
        self.scaler.columns = tuple(columns)
        self.direct_scaler.columns = tuple(columns[i] for i in self.direct)
        least, most = self.direct_scaler.reach()
        self.least[: len(least)] = least.to(self.least)
        self.most[: len(most)] = most.to(self.most)

    def _innovation(self, started: Tensor, prior: Prior, y: Tensor, mask: Tensor) -> Tensor:
        """`[B]` mean squared error of the present direct columns in units of their variance.

        As of `prior.variance`, in an order of its own, for the reason that `_error` has.
        """
        count = len(self.direct)
        changes = prior.members_change[..., :count]
        apart = (changes - changes.mean(0)).square().mean(0)
        own = prior.members_std[..., :count].square().mean(0) + prior.carried[..., :count].square()
        variance = started * (own + apart) + (1.0 - started) + self.noise().square()
        error, seen = self._error(started, prior, y), mask[..., self.direct]
        return (error.square() / variance * seen).sum(-1) / seen.sum(-1).clamp(min=1.0)

    def _error(self, started: Tensor, prior: Prior, y: Tensor) -> Tensor:
        """`[B, direct]` of `y - prior.mean`, in an order of its own.

        Values that are nearly equal are taken from each other before anything is added to them. A
        precise sensor divides by a variance of 1e-8, and so shows the last bit of whatever was
        rounded in between.
        """
        count = len(self.direct)
        change = prior.members_change[..., :count].mean(0)
        return (y[..., self.direct] - started * prior.base[..., :count]) - started * change

    def _off(self, started: Tensor, prior: Prior, y: Tensor, mask: Tensor) -> Tensor:
        """`[B, O]` that error in typical changes per tick; 0 where masked, and of a fresh belief.

        Shares, which nothing is corrected by, stay 0.
        """
        steps = self._error(started, prior, y) / self.ensemble.step[: len(self.direct)]
        direct = steps.clamp(-FAR_OFF, FAR_OFF) * mask[..., self.direct] * started
        return self.arrange(direct, torch.zeros_like(y[..., self.shares]))

    # what a state looks like

    def share_std(self, mean: Tensor) -> Tensor:
        """Standard deviation of the shares around their predicted mean `[..., S]`."""
        scale, floor = torch.exp(self.share_noise)
        return torch.sqrt(scale * mean * (1.0 - mean) + floor.square() + 1e-6)

    def arrange(self, direct: Tensor, shares: Tensor) -> Tensor:
        """Direct and share columns, `[N, ·]` each, in the order of the spec: `[N, O]`."""
        parts, taken = [], [0, 0]
        kinds = [int(i in self.shares) for i in range(self.observations)]
        for kind, group in groupby(kinds):
            size = len(list(group))
            source = (direct, shares)[kind]
            parts.append(source[..., taken[kind] : taken[kind] + size])
            taken[kind] += size
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def decode(self, memory: Tensor, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Channels in raw units `[N, O]`, probability of going on `[N]`, learned reward `[N]`.

        `latent` `[N, Z]` is as sensors show it.
        """
        shares, alive, reward = self.heads(memory, latent)
        direct = self.direct_scaler.inverse(latent[..., : len(self.direct)])
        return self.arrange(direct, torch.sigmoid(shares)), torch.sigmoid(alive), reward

    def imagine(
        self, memory: Tensor, latent: Tensor, action: Tensor, noise: Tensor, clone: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One imagined tick of rows `[M * N, ·]` ordered by member (TS∞).

        Returns:
            memory and latent of the next tick, and the latent as sensors would show it: with their
            noise added. One draw serves both, which leaves the distribution of each as it should
            be; the noise of a count, such as requests, is real to whoever has to serve it.
        """
        latent = self.form.draw(latent, noise)
        seen = self.seen(latent, action)
        memory = self.memory(memory, seen)
        inputs = torch.cat([memory, seen], -1)
        mean, std = self.ensemble.by_member(inputs, self.base(latent, action), clone)
        drawn = self.within(self.form.add(mean, std, noise))
        return memory, drawn, self.within(self.shown(mean, std, noise))

    def shown(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """`[..., Z]` a latent as sensors would show it: noise of its own std `[..., N]` and theirs.

        Classes are shown as probabilities.
        """
        wide = torch.sqrt(std.square() + self.sensor_variance())
        return self.form.seen(self.form.add(mean, wide, noise))

    def sensor_variance(self) -> Tensor:
        """`[N]` variance that the sensors add to each latent; 0 for the free ones."""
        free = self.form.normal - len(self.direct)
        return torch.cat([self.noise().square(), self.least.new_zeros(free)])

    def within(self, latent: Tensor) -> Tensor:
        """`latent` within the reach of the data."""
        return torch.minimum(torch.maximum(latent, self.least), self.most)

    def believe(
        self, h: Tensor, z: Tensor, action: Tensor, obs: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One tick in raw units: the graph `believe`.

        Args:
            h: `[B, H]` and z: `[B, Z]`, the previous belief; zeros for a fresh one.
            action: `[B, A]` applied since.
            obs: `[B, O]`, any value where masked.
            mask: `[B, O]` 1 where present.

        Returns:
            h' `[B, H]`, mean and std of the latent `[B, Z]`, prediction of `obs` before it was seen
            with its standard deviation `[B, O]`, and the innovation `[B]`: the mean over the
            present channels of the squared error in units of the predicted variance. Shares are
            left out: the mean of a rare event is contradicted whenever it happens.
        """
        y = self.scaler(torch.where(mask > 0, obs, torch.zeros_like(obs)))
        before = self.unpack(h)
        after = self.update(before, z, self.action_scaler(action), y, mask)
        prior, memory = after.prior, after.hidden.memory
        count = len(self.direct)
        direct_std = torch.sqrt(prior.variance[..., :count] + self.noise().square())
        shares = torch.sigmoid(
            self.heads.shares(torch.cat([memory, self.form.seen(prior.mean)], -1))
        )
        share_std = self.share_std(shares)
        innovation = self._innovation(before.started, prior, y, mask)
        direct = self.direct_scaler.inverse(prior.mean[..., :count])
        raw_std = self.direct_scaler.spread(prior.mean[..., :count], direct_std)
        predicted = self.arrange(direct, shares)
        predicted_std = self.arrange(raw_std, share_std)
        return (
            torch.cat(after.hidden, -1),
            after.mean,
            after.std,
            predicted,
            predicted_std,
            innovation,
        )
