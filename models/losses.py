"""What the world model is trained on: filtering likelihood, shares, and many-step imagination."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.belief import Posterior, WorldModel
from models.data import Batch
from models.forms import gaussian_kl
from models.share import ALONE, Share

BALANCE = 0.8
"""Share of the KL that moves the prior to the posterior (Hafner et al. 2021: KL balancing)."""
RARE = 1e-3
"""Share below which all shares count alike."""
FREE_BITS = 0.05
"""Nats per free latent below which the posterior is not pulled towards the prior."""
Divergence = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Trace:
    """What filtering B sequences of L ticks left behind; every field `[L, B, ...]`."""

    ticks: list[Posterior]

    def stack(self, field: str) -> Tensor:
        """`[L, B, ·]` of a posterior's own field."""
        return torch.stack([getattr(tick, field) for tick in self.ticks])

    def prior(self, field: str) -> Tensor:
        """`[L, ...]` of the prior's field."""
        return torch.stack([getattr(tick.prior, field) for tick in self.ticks])

    def memory(self) -> Tensor:
        """`[L, B, G]`."""
        return torch.stack([tick.hidden.memory for tick in self.ticks])

    def states(self) -> list[Tensor]:
        """`[L, B, ·]` memory, mean and std: beliefs to imagine from."""
        return [self.memory(), self.stack("mean"), self.stack("std")]


def observe(model: WorldModel, batch: Batch, mask: Tensor) -> Trace:
    """Filters every sequence from a fresh belief; `mask` `[B, L, O]` may hide more than is."""
    hidden, latent = model.start(batch.obs.shape[0])
    y, action = model.scaler(batch.obs), model.action_scaler(batch.action)
    ticks = []
    for t in range(batch.obs.shape[1]):
        after = model.update(hidden, latent, action[:, t], y[:, t], mask[:, t])
        ticks.append(after)
        hidden, latent = after.hidden, after.mean
    return Trace(ticks)


def lived(
    model: WorldModel, batch: Batch, trace: Trace
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """States at all ticks of the windows but the first and last, what was done there, and reached.

    The first tick knows too little to act on; what was done at the last one is not in the window.
    """
    action = model.action_scaler(batch.action).transpose(0, 1)
    reached = torch.where(batch.valid > 0, batch.reached, torch.nan).T
    # What an invalid next tick holds is padding: nothing was done.
    reached = torch.where(batch.valid.T[2:] > 0, reached[1:-1], torch.nan)
    parts = action[1:-1], trace.memory()[1:-1], trace.stack("mean")[1:-1], action[2:], reached
    last, memory, latent, acted, reached = (part.flatten(0, 1) for part in parts)
    return (last, memory, latent), acted, reached


def hide(mask: Tensor, generator: torch.Generator, share: float = 0.4) -> Tensor:
    """Masks a random span of a `share` of the sequences: half of these wholly, half by column.

    Sensors that fall silent must be part of what is learned, or the spread in a dropout is a guess.
    """
    rows, length, columns = mask.shape
    first = torch.randint(1, length, (rows, 1), generator=generator)
    span = torch.randint(1, max(2, length // 2), (rows, 1), generator=generator)
    tick = torch.arange(length)
    inside = (tick >= first) & (tick < first + span)
    inside &= torch.rand(rows, 1, generator=generator) < share
    some = torch.rand(rows, columns, generator=generator) < 0.5
    some |= torch.rand(rows, 1, generator=generator) < 0.5
    hidden = inside[:, :, None] & some[:, None, :]
    return mask * (~hidden).to(mask)


def gaussian_nll(error: Tensor, variance: Tensor) -> Tensor:
    """Negative log likelihood without its constant."""
    return 0.5 * (error.square() / variance + torch.log(variance))


def balanced_kl(
    mean: Tensor, std: Tensor, prior_mean: Tensor, prior_std: Tensor, kl: Divergence = gaussian_kl
) -> Tensor:
    """KL with the prior taught more than the posterior is bent, and free bits for the latter."""
    teach = kl(mean.detach(), std.detach(), prior_mean, prior_std)
    bend = kl(mean, std, prior_mean.detach(), prior_std.detach())
    return BALANCE * teach + (1.0 - BALANCE) * bend.clamp(min=FREE_BITS)


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """Fair continuous ranked probability score of S samples `[S, ...]` against `truth` `[...]`.

    A proper score of the k-step marginals: unlike overshooting by KL it neither shrinks the
    mean nor widens the spread of a stochastic rollout (Gneiting and Raftery 2007; Ferro 2014).
    """
    count = samples.shape[0]
    near = (samples - truth).abs().mean(0)
    pairs = (samples[:, None] - samples[None]).abs().sum((0, 1)) / (count * (count - 1))
    return near - 0.5 * pairs


def share_score(logit: Tensor, truth: Tensor) -> Tensor:
    """How badly a predicted share fits `truth` in [0, 1]: cross-entropy weighted by 1 / √p.

    The plain score hardly tells 0.004 from 0.0002 beside a few overloads, but a policy that lives
    where shares are small does. The weight carries no gradient: least in expectation at the mean.
    """
    weight = torch.rsqrt(torch.sigmoid(logit).detach() + RARE)
    return weight * F.binary_cross_entropy_with_logits(logit, truth, reduction="none")


class Weights(NamedTuple):
    """Scales that make every term of the loss about 1 for a model that knows nothing."""

    share: Tensor  # [S] one over the score of the mean share: rare events count as others do
    change: Tensor  # [direct] one over the typical change within the horizon, normalised units


def loss_weights(model: WorldModel, batch: Batch, horizon: int) -> Weights:
    """Weights from a large batch of training windows."""
    mask = batch.mask
    y = model.scaler(batch.obs)
    k = min(max(1, horizon // 2), y.shape[1] - 1)
    both = mask[:, k:] * mask[:, :-k]
    change = ((y[:, k:] - y[:, :-k]).abs() * both).sum((0, 1)) / both.sum((0, 1)).clamp(min=1)
    mean = (y * mask).sum((0, 1)) / mask.sum((0, 1)).clamp(min=1)
    p = mean[model.shares].clamp(1e-4, 1 - 1e-4)
    score = share_score(torch.logit(p), p)
    return Weights(1.0 / score, 1.0 / change[model.direct].clamp(min=0.02))


def averaged(values: Tensor, weight: Tensor, share: Share = ALONE) -> Tensor:
    """Mean of `values` by `weight`; of several processes, each one's part of the mean of all."""
    return (values * weight).sum() / share.total(weight.sum()).clamp(min=1.0)


def filtering_losses(
    model: WorldModel,
    batch: Batch,
    trace: Trace,
    weights: Weights,
    noise: Tensor,
    share: Share = ALONE,
) -> dict[str, Tensor]:
    """One-step losses of a filtered batch; `noise` `[L, B, Z]` samples the posterior.

    Hidden observations are targets too: that is how the spread of a dropout is learned.
    """
    count = len(model.direct)
    y = model.scaler(batch.obs).transpose(0, 1)
    seen = batch.mask.transpose(0, 1)
    boot = batch.weight.permute(1, 2, 0)[..., None]  # [L, M, B, 1]
    started = torch.ones_like(batch.valid.T)
    started[0] = 0.0  # the first prior is the statistics of the data, nothing to learn
    known = (batch.valid.T * started)[..., None]  # [L, B, 1]
    mean, std = trace.prior("members_mean"), trace.prior("members_std")
    carried = trace.prior("carried")
    variance = std.square() + carried.square()[:, None]
    error = y[..., model.direct][:, None] - mean[..., :count]
    nll = gaussian_nll(error, variance[..., :count] + model.noise().square())
    target = (seen[..., model.direct] * known)[:, None] * boot
    losses = {"predict": averaged(nll, target, share)}
    posterior, spread = trace.stack("mean"), trace.stack("std")[..., : model.form.normal]
    kl = balanced_kl(
        posterior[:, None], spread[:, None], mean, variance.sqrt(), model.form.divergence
    )
    here = known[:, None] * boot
    losses["kl"] = averaged(kl.sum(-1, keepdim=True), here, share)
    # The heads see what the sensors showed, and where they showed nothing, what they might have.
    sample = as_shown(model, batch, trace, noise)
    losses |= head_losses(model, batch, trace.memory(), sample, weights, share)
    return losses


def as_shown(model: WorldModel, batch: Batch, trace: Trace, noise: Tensor) -> Tensor:
    """`[L, B, Z]` the latents as sensors showed them, and where they did not, might have."""
    count = len(model.direct)
    y, seen = model.scaler(batch.obs).transpose(0, 1), batch.mask.transpose(0, 1)
    posterior, spread = trace.stack("mean"), trace.stack("std")[..., : model.form.normal]
    shown = model.shown(posterior, spread, noise)
    direct = torch.where(seen[..., model.direct] > 0, y[..., model.direct], shown[..., :count])
    return torch.cat([direct, shown[..., count:]], -1)


def head_losses(
    model: WorldModel,
    batch: Batch,
    memory: Tensor,
    sample: Tensor,
    weights: Weights,
    share: Share = ALONE,
) -> dict[str, Tensor]:
    """Losses of what is read off states: memory `[L, B, G]` and latent `[L, B, Z]` as shown."""
    length, rows = memory.shape[:2]
    heads, state = model.heads, torch.cat([memory, sample], -1).flatten(0, 1)
    alive = heads.going(state)
    valid = batch.valid.T
    cross = F.binary_cross_entropy_with_logits
    losses = {}
    ended = cross(alive.view(length, rows), batch.alive.T, reduction="none")
    losses["alive"] = averaged(ended, valid, share)
    if model.shares:
        y = batch.obs[..., model.shares].transpose(0, 1)
        seen = batch.mask[..., model.shares].transpose(0, 1)
        logits = heads.shares(state).view(length, rows, -1)
        score = share_score(logits, y.clamp(0, 1)) * weights.share
        p = torch.sigmoid(logits).detach()
        spread = gaussian_nll(y - p, model.share_std(p).square())
        losses["share"] = averaged(score, seen, share)
        losses["share_std"] = 0.01 * averaged(spread, seen, share)
    known = torch.isfinite(batch.reward.T) & (valid > 0)
    truth = torch.where(known, batch.reward.T, torch.zeros_like(valid))
    error = heads.reward.error(state, truth.flatten()).view(length, rows)
    losses["reward"] = averaged(error, known, share)
    return losses


def imagination_losses(
    model: WorldModel,
    batch: Batch,
    states: Sequence[Tensor],
    weights: Weights,
    generator: torch.Generator,
    *,
    starts: int,
    samples: int,
    horizon: int,
    share: Share = ALONE,
) -> dict[str, Tensor]:
    """Many-step consistency: imagined futures under the actions that were taken, scored by CRPS.

    From `starts` of the beliefs `states` (memory, mean and std `[L, B, ·]`), `samples` futures each
    are rolled out without observations, all under one member, which is drawn by the bootstrap
    weights of that place. Of several processes each rolls out its part of the starts.
    """
    members = model.config.members
    b, t = _draw_starts(batch, starts, horizon, generator)
    per = len(b) // members
    if per == 0:
        return {}
    b, t = _by_member(b[: per * members], t[: per * members], members)
    part = share.part(len(b), members)
    boot = part.of(batch.weight[b, t, torch.arange(members).repeat_interleave(per)])
    b, t = part.of(b), part.of(t)
    steps = t[:, None] + torch.arange(1, horizon + 1, device=t.device)
    y = model.scaler(batch.obs)[b[:, None], steps]  # [N, T, O]
    seen = (batch.mask * batch.valid[..., None])[b[:, None], steps]
    action = model.action_scaler(batch.action)[b[:, None], steps]
    memory, mean, std = (x[t, b] for x in states)
    # Rows stay ordered by member: [M, N / M, S] flattened.
    wide = [x.repeat_interleave(samples, 0) for x in (memory, mean, std, action)]
    memory, latent, std, action = wide
    shape = horizon + 1, part.total, samples * latent.shape[-1]
    noise = part.of(torch.randn(shape, generator=generator), 1).view(-1, *latent.shape).to(latent)
    latent = latent + std * noise[0]
    direct, shares = [], []
    for k in range(horizon):
        memory, latent, shown = model.imagine(memory, latent, action[:, k], noise[k + 1])
        direct.append(shown[:, : len(model.direct)])
        shares.append(torch.sigmoid(model.heads.shares(torch.cat([memory, shown], -1))))
    return _score(model, direct, shares, y, seen, boot, weights, samples, share)


def _draw_starts(
    batch: Batch, starts: int, horizon: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows and ticks `[starts]` of beliefs with a full horizon of valid ticks after them."""
    length = batch.valid.shape[1]
    whole = batch.valid[:, horizon:] if length > horizon else batch.valid[:, :0]
    places = torch.nonzero(whole > 0)
    chosen = places[torch.randperm(len(places), generator=generator)[:starts]]
    return chosen[:, 0], chosen[:, 1]


def _by_member(b: Tensor, t: Tensor, members: int) -> tuple[Tensor, Tensor]:
    """Deals the starts to the members, rows ordered by member."""
    deal = torch.arange(len(b)).view(-1, members).T.flatten()
    return b[deal], t[deal]


def _futures(steps: list[Tensor], samples: int) -> Tensor:
    """`[N, S, T, ·]` of T steps `[N * S, ·]`."""
    stacked = torch.stack(steps, 1)
    return stacked.view(-1, samples, *stacked.shape[1:])


def _score(
    model: WorldModel,
    direct: list[Tensor],
    shares: list[Tensor],
    y: Tensor,
    seen: Tensor,
    boot: Tensor,
    weights: Weights,
    samples: int,
    share: Share,
) -> dict[str, Tensor]:
    futures = _futures(direct, samples).movedim(1, 0)  # [S, N, T, D]
    target = seen[..., model.direct] * boot[:, None, None]
    score = crps(futures, y[..., model.direct]) * weights.change
    losses = {"imagine": averaged(score, target, share)}
    if model.shares:
        # The mean over the futures is the forecast of a share: scored as a probability.
        p = _futures(shares, samples).mean(1).clamp(1e-6, 1 - 1e-6)
        cross = share_score(torch.logit(p), y[..., model.shares].clamp(0, 1)) * weights.share
        target = seen[..., model.shares] * boot[:, None, None]
        losses["imagine_share"] = averaged(cross, target, share)
    return losses
