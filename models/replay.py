"""What was lived through, as far as memory reaches, and what of it is learned from how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from models.data import Sequences
from models.evaluation.world import Record
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
SHORTEST = 4
"""Ticks below which an episode teaches nothing."""


@dataclass(frozen=True)
class Mix:
    """How often a row is drawn: shares of the draws, the rest evenly over all that is kept.

    Attributes:
        recent: share that goes to the newest `newest` rows.
        surprising: share dealt out by surprise (Schaul et al. 2016, of sequences): the innovation
            with which a row was met when it was lived through, at most `most` times the mean.
        failed: share that goes to the last `newest` / 10 rows of episodes that ended in failure.
        kept: share of the capacity in which failed episodes outlive all others.
    """

    recent: float = 0.25
    surprising: float = 0.25
    failed: float = 0.0
    newest: int = 2000
    most: float = 10.0
    kept: float = 0.25

    def as_dict(self) -> dict[str, Any]:
        """For the lineage."""
        return asdict(self)


@dataclass(frozen=True)
class Episode:
    """T consecutive ticks of one entity.

    Attributes:
        obs: `[T, O]`;  action: `[T, A]` applied until the row;  reward, alive, surprise: `[T]`.
        tick: of the first row.
    """

    obs: F32
    action: F32
    reward: F32
    alive: F32
    surprise: F32
    tick: int

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def failed(self) -> bool:
        """Whether it ended for good."""
        return bool((self.alive == 0).any())


class Replay:
    """Episodes in the order in which they were lived through; at most `capacity` rows.

    Args:
        capacity: rows; the oldest episodes go first, failed ones after the others.
        mix: what is drawn how often.
    """

    def __init__(self, capacity: int, mix: Mix | None = None) -> None:
        self.capacity, self.mix = capacity, mix or Mix()
        self.episodes: list[Episode] = []

    def __len__(self) -> int:
        return sum(len(episode) for episode in self.episodes)

    def add(self, spec: SystemSpec, record: Record) -> None:
        """All episodes of a record, entity by entity."""
        for entity in range(record.obs.shape[1]):
            self.episodes += _episodes(spec, record, entity)
        self._forget()

    def _forget(self) -> None:
        """Lets the oldest episodes go until what is left fits."""
        failed = sum(len(e) for e in self.episodes if e.failed)
        spare_failed = failed <= self.mix.kept * self.capacity
        while len(self) > self.capacity and len(self.episodes) > 1:
            plain = [i for i, e in enumerate(self.episodes) if not (spare_failed and e.failed)]
            del self.episodes[plain[0] if plain else 0]

    def sequences(self, discount: float | None = None) -> Sequences:
        """All rows, an episode being a segment; given a discount, with what was reached."""
        lengths = np.array([len(episode) for episode in self.episodes], np.int64)
        starts = np.cumsum(lengths) - lengths
        number = np.repeat(np.arange(len(lengths)), lengths)
        since = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        return Sequences(
            obs=self._rows("obs"),
            action=self._rows("action"),
            reward=self._rows("reward"),
            alive=self._rows("alive"),
            first=np.repeat(starts, lengths),
            last=np.repeat(starts + lengths, lengths),
            entity=number.astype(np.str_),
            tick=since + np.repeat([episode.tick for episode in self.episodes], lengths),
            run=np.zeros(len(number), np.int64),
            reached=None if discount is None else self._reached(discount),
        )

    def _reached(self, discount: float) -> F32:
        """`[R]` the least that was still to come, as seen from each row.

        What comes after an episode that was cut off is no worse than the worst reward for ever.
        """
        worst = float(np.nanmin(self._rows("reward"), initial=0.0)) / (1.0 - discount)
        return np.concatenate([_still_to_come(e, discount, worst) for e in self.episodes])

    def chances(self) -> F64:
        """`[R]` with which each row of `sequences` is drawn; they add up to 1."""
        rows = len(self)
        even = np.full(rows, 1.0 / rows)
        newest = np.arange(rows) >= rows - self.mix.newest
        surprise = np.nan_to_num(self._rows("surprise").astype(np.float64))
        surprise = np.minimum(surprise, self.mix.most * surprise.mean())
        parts = (
            (self.mix.recent, newest.astype(np.float64)),
            (self.mix.surprising, surprise),
            (self.mix.failed, self._near_failure().astype(np.float64)),
        )
        used = [(share, part / part.sum()) for share, part in parts if part.sum() > 0]
        rest = 1.0 - sum(share for share, _ in used)
        return np.asarray(rest * even + sum(share * part for share, part in used))

    def _near_failure(self) -> npt.NDArray[np.bool_]:
        before = max(1, self.mix.newest // 10)
        marks = []
        for episode in self.episodes:
            mark = np.zeros(len(episode), dtype=bool)
            mark[-before:] = episode.failed
            marks.append(mark)
        return np.concatenate(marks)

    def _rows(self, name: str) -> F32:
        return np.concatenate([getattr(episode, name) for episode in self.episodes])

    # checkpoints

    def state(self) -> list[dict[str, Any]]:
        """Everything, as plain arrays and numbers."""
        names = [field.name for field in fields(Episode)]
        return [{name: getattr(episode, name) for name in names} for episode in self.episodes]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """The inverse of `state`."""
        self.episodes = [Episode(**content) for content in state]


def _still_to_come(episode: Episode, discount: float, after: float) -> F32:
    """`[T]` discounted rewards after each row; `after` follows an end that is no failure."""
    out = np.empty(len(episode))
    value = 0.0 if episode.failed else after
    for t in reversed(range(len(episode))):
        out[t] = value
        value = float(np.nan_to_num(episode.reward[t])) + discount * value
    return out.astype(np.float32)


def _episodes(spec: SystemSpec, record: Record, entity: int) -> list[Episode]:
    """The episodes of one entity; what was applied before the first row of each is not known."""
    ticks = len(record.obs)
    begins = np.flatnonzero(record.begun[:, entity])
    bounds = np.unique([0, *begins, ticks])
    nothing = np.full((1, 1), np.nan)
    reward = np.concatenate([nothing, record.reward[:, entity, None]])[:, 0]
    alive = 1.0 - np.concatenate([[0.0], record.ended[:, entity]])
    action = np.concatenate([spec.action_safe[None], record.action[:, entity]])
    made = []
    for first, last in pairwise(bounds):
        if last - first < SHORTEST:
            continue
        part = slice(first, last)
        acted, paid, lives = action[part].copy(), reward[part].copy(), alive[part].copy()
        acted[0], paid[0], lives[0] = spec.action_safe, np.nan, 1.0
        made.append(
            Episode(
                obs=record.obs[part, entity].astype(np.float32),
                action=acted.astype(np.float32),
                reward=paid.astype(np.float32),
                alive=lives.astype(np.float32),
                surprise=record.innovation[part, entity].astype(np.float32),
                tick=record.first + int(first),
            )
        )
    return made
