"""Known dynamics: what a function of the user's says comes next, for the model to learn the rest.

    # mymodule.py
    from models.physics import physics

    @physics("position", "velocity")
    def step(state, action):  # [N, D] and [N, A] in the units of the spec → [N, D]
        ...

    rehearse train nav2d --physics mymodule:step …

The members of the ensemble then predict the change around the function's prediction (residual
physics: Ajay et al. 2018; Zeng et al. 2019), and the exported graphs contain the function. So it is
of torch's operators alone, without branches on values, and gives a gradient everywhere.
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.data import Dataset, Sequences
from models.transforms import SMALLEST_STEP, ColumnScale, Scaler
from schemas.system import SystemSpec

Step = Callable[[Tensor, Tensor], Tensor]
_NAMES = "__rehearse_channels__"


class PhysicsError(ValueError):
    """Physics that cannot be used; the message names it and the remedy."""


def physics(*channels: str) -> Callable[[Step], Step]:
    """Names the channels, or columns such as `state[2]`, that a function takes and gives, in order.

    Without it a function takes and gives all columns that are predicted as such, as in the spec.
    """

    def mark(step: Step) -> Step:
        setattr(step, _NAMES, channels)
        return step

    return mark


class Physics(nn.Module):
    """A user's step inside the graphs: raw units inside, normalised ones outside.

    Attributes:
        names: the D columns it predicts; order: where in the latent each is.
        left: `[D]` what it leaves over of a tick's change, normalised: the unit of the residual.
        digest: SHA-256 of the file it comes from, for the lineage.
    """

    left: Tensor
    index: Tensor

    def __init__(
        self,
        step: Step,
        names: Sequence[str],
        columns: Sequence[ColumnScale],
        actions: Sequence[ColumnScale],
        digest: str = "",
    ) -> None:
        super().__init__()
        self.step, self.names, self.digest = step, tuple(names), digest
        direct = [column for column in columns if column.kind != "share"]
        known = {column.name: place for place, column in enumerate(direct)}
        self.order = [known[name] for name in names]
        self.scaler = Scaler([direct[place] for place in self.order])
        self.action_scaler = Scaler(actions)
        self.sources = [
            self.order.index(place) if place in self.order else -1 for place in range(len(direct))
        ]
        # Kept with the weights: the data that it is of may be more by the time they are loaded.
        self.register_buffer("left", self.scaler.steps())
        # A tensor, as a list would become one inside the loop of a graph, which cannot be exported.
        self.register_buffer("index", torch.tensor(self.order), persistent=False)

    def units(self, steps: Tensor) -> Tensor:
        """`[direct]` unit of each direct column's change: `steps`, or what physics leaves over."""
        units = steps.clone()
        units[self.order] = self.left.to(units)
        return units

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        """`[N, Z]` the latent as physics has it at the next tick; other columns stay.

        Args:
            latent: `[N, Z]` normalised; action: `[N, A]` normalised, in force until then.
        """
        state = self.scaler.inverse(latent.index_select(-1, self.index))
        after = self.scaler(self.step(state, self.action_scaler.inverse(action)))
        parts = [
            latent[..., i : i + 1] if source < 0 else after[..., source : source + 1]
            for i, source in enumerate(self.sources)
        ]
        return torch.cat([*parts, latent[..., len(self.sources) :]], -1)


def load_physics(name: str, spec: SystemSpec, dataset: Dataset) -> Physics:
    """The physics that `module:function` names, tried once.

    Raises:
        PhysicsError: no such function, columns that are not predicted, or another shape.
    """
    step = _function(name)
    names = _columns(name, step, spec, dataset)
    found = Physics(step, names, dataset.columns, dataset.actions, _digest(step))
    state, action = torch.zeros(2, len(names)), torch.zeros(2, len(dataset.actions))
    after = step(state, action)
    if not isinstance(after, Tensor) or after.shape != state.shape or not after.is_floating_point():
        gave = tuple(after.shape) if isinstance(after, Tensor) else type(after).__name__
        raise PhysicsError(f"physics {name}: gives {gave} for a state of {tuple(state.shape)}")
    found.left.copy_(unexplained(found, dataset.train, dataset.columns))
    return found


def _function(name: str) -> Step:
    module, _, function = name.partition(":")
    if not module or not function:
        raise PhysicsError(f"physics {name!r}: write module:function, e.g. mymodule:step")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        step = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise PhysicsError(
            f"physics {name}: {error}; it is looked for in {here} and where Python looks"
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(step):
        raise PhysicsError(f"physics {name}: is no function")
    found: Step = step
    return found


def _columns(name: str, step: Step, spec: SystemSpec, dataset: Dataset) -> tuple[str, ...]:
    direct = tuple(column.name for column in dataset.columns if column.kind != "share")
    channels: tuple[str, ...] = getattr(step, _NAMES, ())
    whole = {channel.name: channel.columns for channel in spec.channels}
    names = tuple(c for channel in channels for c in whole.get(channel, (channel,)))
    for column in names:
        if column not in direct or names.count(column) > 1:
            raise PhysicsError(
                f"physics {name}: {column!r} is not a column to predict, or stands there twice; "
                f"there are {', '.join(direct)}"
            )
    return names or direct


def _digest(step: Step) -> str:
    try:
        file = inspect.getsourcefile(step)
    except TypeError:
        file = None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


@torch.no_grad()
def unexplained(known: Physics, data: Sequences, columns: Sequence[ColumnScale]) -> Tensor:
    """`[D]` what physics leaves over of a tick's change, normalised, root mean square over `data`.

    It is the unit in which the members predict these columns, as `ColumnScale.step` is of others.
    """
    direct = [i for i, column in enumerate(columns) if column.kind != "share"]
    latent = Scaler([columns[i] for i in direct])(torch.from_numpy(data.obs[:, direct]))
    action = known.action_scaler(torch.from_numpy(data.action))
    inner = torch.nonzero(torch.arange(len(data)) + 1 < torch.from_numpy(data.last))[:, 0]
    left = (known(latent[inner], action[inner + 1]) - latent[inner + 1])[:, known.order]
    present = torch.isfinite(left)
    square = torch.where(present, left, torch.zeros_like(left)).double().square()
    size = (square.sum(0) / present.sum(0).clamp(min=1)).sqrt().float()
    return torch.where(present.any(0), size, torch.ones_like(size)).clamp(SMALLEST_STEP, 1.0)
