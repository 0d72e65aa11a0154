"""An actor and its value, trained in imagination against the spec's own reward expression."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.belief import WorldModel
from models.features import Features
from models.heads import NumberName, make_number, mlp
from models.share import Part
from planner.objective import SOFT_COST
from schemas.system import SystemSpec

State = tuple[Tensor, Tensor, Tensor]
"""Last action `[N, A]`, memory `[N, G]` and latent `[N, Z]`, normalised."""
SATURATED = 0.01
"""Cost of a wanted action far beyond the range, per square of the net's output, in units of values.

Without it an actor that has run into a bound at every state has no gradient to come back by.
"""
RARE = 2.5
"""Least unit of values, in largest rewards of a tick."""


@dataclass(frozen=True)
class ActorConfig:
    """How the actor is trained.

    Attributes:
        horizon: imagined ticks per update.
        discount: per tick; the manifest carries it, as the value is a discounted sum.
        trace: λ of the λ-return.
        explore: standard deviation of the action noise in imagination, in units of the data's.
        starts: imagined futures per update.
        go_on: share of these that begin where earlier ones ended. Logs seldom show what the actor
            will make of the world, such as a robot at rest near its goal; its own futures do.
        follow: share of the critic that its slow copy, which closes the returns, takes over per
            update (Polyak averaging). Values spread no faster than it follows: at 0.02 they were
            tens of rewards off after 2,000 updates.
        imitation: weight of what experience has reached beyond the value of a state (Oh et al.
            2018: self-imitation): value and actor are drawn to it. Where reward is rare, a search
            finds what an actor has no gradient towards. Meant for experience of one's own: luck
            would be imitated too.
        critic: what is learned of the returns, their mean or their distribution (`TwoHot`).
    """

    horizon: int = 15
    discount: float = 0.98
    trace: float = 0.95
    explore: float = 0.15
    starts: int = 200
    go_on: float = 0.75
    learning_rate: float = 3e-3
    units: int = 64
    follow: float = 0.02
    imitation: float = 0.0
    critic: NumberName = "mean"


class Actor(nn.Module):
    """A deterministic policy over `(h, z)`, squashed to `[low, high]` and to the rate limits.

    The squashing is centred and scaled so that an output of 0 is the mean logged action and ±1
    about one of its standard deviations: a range of 1 to 200 does not make the policy coarse.
    """

    low: Tensor
    high: Tensor
    up: Tensor
    down: Tensor
    centre: Tensor
    gain: Tensor

    def __init__(self, spec: SystemSpec, model: WorldModel, units: int) -> None:
        super().__init__()
        self.features = Features(model)
        self.net = mlp(self.features.size, units, model.actions, 2)
        limits = (spec.action_low, spec.action_high, spec.rate_up, spec.rate_down)
        for name, value in zip(("low", "high", "up", "down"), limits, strict=True):
            finite = torch.tensor(value, dtype=torch.float32).clamp(max=1e30)
            self.register_buffer(name, finite, persistent=False)
        scales = model.action_scaler
        width = self.high - self.low
        part = ((scales.mean - self.low) / width).clamp(0.02, 0.98)
        slope = (scales.std / width / (part * (1 - part))).clamp(max=4.0)
        self.register_buffer("centre", torch.logit(part), persistent=False)
        self.register_buffer("gain", slope, persistent=False)
        with torch.no_grad():
            self.net[-1].weight.mul_(0.1)  # type: ignore[operator]

    def target(self, action: Tensor, memory: Tensor, latent: Tensor) -> Tensor:
        """`[N, A]` the action wanted, raw units, before rate limits; `action` is normalised."""
        out: Tensor = self.net(self.features(action, memory, latent))
        squashed = torch.sigmoid(self.centre + self.gain * out)
        return self.low + (self.high - self.low) * squashed

    def limit(self, target: Tensor, last: Tensor) -> Tensor:
        """`target` within range and within the rate limits around `last`, both raw `[N, A]`."""
        near = torch.minimum(torch.maximum(target, last - self.down), last + self.up)
        return torch.minimum(torch.maximum(near, self.low), self.high)


class Critic(nn.Module):
    """The value of a state: the discounted sum of rewards to come, in the reward's units."""

    def __init__(self, model: WorldModel, units: int, form: NumberName = "mean") -> None:
        super().__init__()
        self.features = Features(model)
        self.head = make_number(form, self.features.size, units)

    def forward(self, action: Tensor, memory: Tensor, latent: Tensor) -> Tensor:
        """`[N]` values; `action` is the last applied one, normalised."""
        value: Tensor = self.head(self.features(action, memory, latent))
        return value

    def error(self, state: State, returns: Tensor) -> Tensor:
        """`[N]` losses, without units, of N states against their `returns` `[N]`."""
        return self.head.error(self.features(*state), returns)


class Behaviour(nn.Module):
    """The actor, the critic and its slow copy, and how they learn in imagination."""

    def __init__(self, spec: SystemSpec, model: WorldModel, config: ActorConfig) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.actor = Actor(spec, model, config.units)
        self.critic = Critic(model, config.units, config.critic)
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)

    def calibrate(self, reward: Tensor) -> None:
        """Sets the units of values from the logged rewards `[R]` (NaN where unknown).

        What was learned stays. A rare reward is worth as much as it could be; where none was found
        yet, the unit is 1.
        """
        known = reward[torch.isfinite(reward)]
        horizon = 1.0 / (1.0 - self.config.discount)
        mean, std, most = _statistics(known)
        spread = max(std * math.sqrt(horizon), RARE * most)
        for critic in (self.critic, self.slow):
            critic.head.rescale(mean * horizon, spread if spread > 0 else 1.0)

    def act(self, model: WorldModel, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The graph `actor`: action `[B, A]` raw, within range and rate limits, and value `[B]`."""
        hidden = model.unpack(h)
        target = self.actor.target(hidden.action, hidden.memory, z)
        last = model.action_scaler.inverse(hidden.action)
        limited = self.actor.limit(target, last)
        action = torch.where(hidden.started > 0.5, limited, target)
        return action, self.critic(hidden.action, hidden.memory, z)

    def reward(self, channels: Tensor, action: Tensor, learned: Tensor) -> Tensor:
        """`[N]` reward of imagined channels `[N, O]` under the action `[N, A]` in force.

        A violated soft constraint costs what it costs the planner, whose horizon the value closes.
        """
        columns = dict(zip(self.spec.columns, channels.unbind(-1), strict=True))
        columns |= dict(zip(self.spec.action_columns, action.unbind(-1), strict=True))
        expression = self.spec.reward
        total = learned if expression is None else expression.torch(columns)
        for constraint, kind in self.spec.constraints.values():
            if kind == "soft":
                total = total - SOFT_COST * (~constraint.torch(columns)).to(channels)
        return total.expand(learned.shape)

    def losses(
        self,
        model: WorldModel,
        action: Tensor,
        memory: Tensor,
        latent: Tensor,
        generator: torch.Generator,
        part: Part | None = None,
    ) -> tuple[dict[str, Tensor], State, Tensor]:
        """Losses of actor and critic from start states `[N, ·]` (N a multiple of M), normalised.

        Also the states in which these futures ended, and the probability `[N]` that an episode
        was still going on there. The gradient of the λ-return flows through the differentiable
        dynamics (Hafner et al. 2020). Each future stays under one member, as in the planner. The N
        futures may be one process's `part`.
        """
        part = part or Part(len(latent), None)
        states, rewards, alive = [(action, memory, latent)], [], []
        for state, shown in self.futures(model, states[0], generator, part):
            channels, going, learned = model.decode(state[1], shown)
            raw = model.action_scaler.inverse(state[0])
            rewards.append(self.reward(_finite_gradients(channels), raw, learned))
            alive.append(going)
            states.append(state)
        values = [self.slow(*state) for state in states]
        returns = self._lambda_returns(rewards, alive, values)
        losses = self._objective(states, returns, alive)
        action, memory, latent = (part.detach() for part in states[-1])
        return losses, (action, memory, latent), torch.stack(alive).detach().prod(0)

    def futures(
        self, model: WorldModel, state: State, generator: torch.Generator, part: Part | None = None
    ) -> Iterator[tuple[State, Tensor]]:
        """What the actor makes of `state`: `horizon` states, each with its latent as shown."""
        part = part or Part(len(state[2]), None)
        for _ in range(self.config.horizon):
            action = self._step(model, *state, generator, part)
            noise = torch.randn(part.total, state[2].shape[1], generator=generator)
            noise = part.of(noise).to(state[2])
            memory, latent, shown = model.imagine(state[1], state[2], action, noise)
            state = action, memory, latent
            yield state, shown

    def _step(
        self,
        model: WorldModel,
        action: Tensor,
        memory: Tensor,
        latent: Tensor,
        generator: torch.Generator,
        part: Part,
    ) -> Tensor:
        """The next applied action, normalised, with noise, within range and rate limits."""
        target = self.actor.target(action, memory, latent)
        jitter = torch.randn(part.total, target.shape[1], generator=generator)
        jitter = part.of(jitter).to(target) * self.config.explore
        target = target + jitter * model.action_scaler.std
        limited = self.actor.limit(target, model.action_scaler.inverse(action))
        # Straight through the limits: a target beyond a rate limit still learns where to go.
        limited = target + (limited - target).detach()
        normal: Tensor = model.action_scaler(limited)
        return normal

    def _lambda_returns(
        self, rewards: list[Tensor], alive: list[Tensor], values: list[Tensor]
    ) -> list[Tensor]:
        """λ-returns of all states but the last, by recursion from the end."""
        after, returns = values[-1], []
        for k in reversed(range(len(rewards))):
            mixed = (1 - self.config.trace) * values[k + 1] + self.config.trace * after
            after = rewards[k] + self.config.discount * alive[k] * mixed
            returns.append(after)
        return returns[::-1]

    def _objective(
        self,
        states: list[tuple[Tensor, Tensor, Tensor]],
        returns: list[Tensor],
        alive: list[Tensor],
    ) -> dict[str, Tensor]:
        survived = torch.cumprod(torch.stack([torch.ones_like(alive[0]), *alive[:-1]]), 0).detach()
        stacked = torch.stack(returns)
        scale = self.critic.head.scale
        flat = [torch.cat(parts).detach() for parts in zip(*states[:-1], strict=True)]
        wanted = self.actor.net(self.actor.features(*flat))
        actor = -(stacked * survived).mean() / scale + SATURATED * wanted.square().mean()
        state = flat[0], flat[1], flat[2]
        error = self.critic.error(state, stacked.detach().flatten()).view_as(stacked)
        return {"actor": actor, "critic": (error * survived).mean()}

    def imitation(
        self, model: WorldModel, state: State, acted: Tensor, reached: Tensor
    ) -> dict[str, Tensor]:
        """Losses of actor and critic at N lived states after which more was reached than valued.

        Args:
            state: normalised;  acted: `[N, A]` what was done there, normalised.
            reached: `[N]` discounted rewards that followed, at the least; NaN where unknown.
        """
        known = torch.isfinite(reached)
        reached = torch.where(known, reached, 0.0)
        gap = (reached - self.critic(*state).detach()) / self.critic.head.scale
        gap = torch.relu(gap) * known
        apart = model.action_scaler(self.actor.target(*state)) - acted
        like = (gap.clamp(max=1.0)[:, None] * apart.square()).mean()
        value = (self.critic.error(state, reached) * (gap > 0)).mean()
        weight = self.config.imitation
        return {"actor": weight * like, "critic": weight * value}

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the slow critic towards the critic."""
        pairs = zip(self.slow.parameters(), self.critic.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, self.config.follow)


def _statistics(known: Tensor) -> tuple[float, float, float]:
    """Mean, standard deviation and largest size; 0, 1 and 0 of fewer than two."""
    if len(known) < 2:
        return 0.0, 1.0, 0.0
    return float(known.mean()), float(known.std()), float(known.abs().max())


def _finite(gradient: Tensor) -> Tensor:
    return torch.nan_to_num(gradient, 0.0, 10.0, -10.0)


def _finite_gradients(channels: Tensor) -> Tensor:
    """Keeps an infinite slope of the reward, such as sqrt at 0, out of the gradient."""
    if channels.requires_grad:
        channels.register_hook(_finite)  # type: ignore[no-untyped-call]
    return channels
