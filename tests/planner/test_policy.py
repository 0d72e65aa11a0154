"""Where the actor goes is asked of the graph row by row, whoever else is there."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from planner.policy import driven
from planner.session import Posterior
from schemas.system import load_spec

F32 = npt.NDArray[np.float32]

SPEC = load_spec("nav2d")


class Recorder:
    """Stands for a bundle; what it drives to says which row and member was asked, and how long."""

    members, latent = 5, 3

    def drive(self, h: F32, z: F32, first: F32, noise: F32) -> F32:
        assert h.shape[:2] == z.shape[:2] == first.shape[:2] == noise.shape[1:3]
        member = np.broadcast_to(np.arange(5.0)[:, None], h.shape[:2])
        steps = np.arange(1.0, len(noise) + 1)[:, None, None]
        return np.stack(np.broadcast_arrays(h[..., 0] + member + 0 * steps, 1000 * steps), -1)


def asked(rows: int, steps: int) -> Any:
    h = np.tile(np.arange(rows, dtype=np.float32)[:, None] * 10, (1, 4))
    posterior = Posterior(*(h,) * 3, innovation=np.zeros(rows, np.float32))
    first = np.stack([np.arange(rows) / 100.0, np.full(rows, 0.5)], axis=1)
    bundle: Any = Recorder()
    return first, driven(SPEC, bundle, posterior, first, steps)


@pytest.mark.parametrize("rows", [1, 4, 5, 7, 10, 12])
def test_each_row_is_asked_once_under_a_member_of_its_own_number(rows: int) -> None:
    first, found = asked(rows, 4)
    assert found.shape == (rows, 4, 2)
    np.testing.assert_array_equal(found[:, 0], first)
    for row in range(rows):
        np.testing.assert_array_equal(found[row, 1:, 0], 10 * row + row % 5)
        np.testing.assert_array_equal(found[row, 1:, 1], [1000, 2000, 3000])


def test_one_step_is_the_first_action_alone() -> None:
    first, found = asked(3, 1)
    np.testing.assert_array_equal(found, first[:, None])


def test_an_unknown_first_action_is_taken_for_the_safe_one() -> None:
    seen = []

    def drive(h: F32, z: F32, first: F32, noise: F32) -> F32:
        seen.append(first)
        return np.zeros((*noise.shape[:3], 2), np.float32)

    bundle: Any = SimpleNamespace(members=1, latent=1, drive=drive)
    posterior = Posterior(*(np.zeros((1, 1), np.float32),) * 3, innovation=np.zeros(1, np.float32))
    driven(SPEC, bundle, posterior, np.full((1, 2), np.nan), 3)
    np.testing.assert_array_equal(seen[0][0], SPEC.action_safe[None])
