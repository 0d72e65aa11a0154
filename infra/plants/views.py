"""What robots in a plane would see of a goal: pictures of a camera, clouds of points of a lidar.

Made up for demonstrations, tests and benchmarks of `perceive`, on the scale of `nav2d`.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from infra.plants.base import Floats

Images = npt.NDArray[np.uint8]
Cloud = npt.NDArray[np.float32]
RANGE_M: Final = 10.0
"""How far camera and lidar see along each axis, metres."""
PIXELS: Final = 64
_BLOB: Final = 2.5  # pixels, standard deviation
LIGHT: Final = ("light", "lamp", "glare")
"""What a picture is taken in: how much light, how unevenly, and how much straight into the lens."""
_SUN: Final = (5.0, 5.0, 3.0)  # where glare is in a picture, and how wide, metres
_BLINDING: Final = 180.0  # levels of glare at its middle
_POLE: Final = (0.3, 2.0)  # its radius and height, metres
RETURNS: Final = 256
"""Points of a cloud, where nothing else is asked for."""
_HITS: Final = 24  # returns from the pole; all others are from the ground


def pictures(offset: Floats, rng: np.random.Generator, light: Floats | None = None) -> Images:
    """[n, 64, 64, 3] seen from above, the robot in the middle, the goal as a red spot.

    Args:
        offset: [n, 2] of the goal from the robot, metres, at most `RANGE_M`; y points up.
        rng: of the grain, and of how bright the ground is.
        light: [n, 3] what they are taken in, see `lit`; None: the usual light.
    """
    count = len(offset)
    at = (np.arange(PIXELS) + 0.5) / PIXELS * 2 * RANGE_M - RANGE_M
    width = _BLOB * 2 * RANGE_M / PIXELS
    across = np.exp(-0.5 * ((at - offset[:, :1]) / width) ** 2)
    down = np.exp(-0.5 * ((-at - offset[:, 1:]) / width) ** 2)
    spot = down[:, :, None] * across[:, None, :]
    bright = rng.uniform(40, 110, (count, 1, 1, 1))
    grain = rng.normal(0, 8, (count, PIXELS, PIXELS, 3))
    ground = np.broadcast_to(bright, grain.shape).copy()
    ground[:, PIXELS // 2 - 2 : PIXELS // 2 + 2, PIXELS // 2 - 2 : PIXELS // 2 + 2, 2] += 120
    ground[..., 0] += 140 * spot
    shown = ground if light is None else lit(ground, light)
    return np.clip(shown + grain, 0, 255).astype(np.uint8)


def lit(scene: Floats, light: Floats) -> Floats:
    """[n, 64, 64, 3] levels of a scene in other light than that in which it has `scene`'s.

    The grain is the camera's own, so it comes later.

    Args:
        light: [n, 3] as in `LIGHT`: a factor of all levels; from -1 to 1, the share by which that
            rises from the middle to the right edge, and falls to the left one, as with a lamp at
            one side; from 0 to 1, how blinding a spot of light in the upper right is. The usual is
            [1, 0, 0].
    """
    factor, lamp, glare = (light[:, i, None, None, None] for i in range(len(LIGHT)))
    at = (np.arange(PIXELS) + 0.5) / PIXELS * 2 * RANGE_M - RANGE_M
    right, up, width = _SUN
    away = (at[None, :] - right) ** 2 + (-at[:, None] - up) ** 2
    spot = np.exp(-0.5 * away / width**2)[:, :, None]
    across = (at / RANGE_M)[None, :, None]
    return np.asarray(scene * factor * (1 + lamp * across) + _BLINDING * glare * spot)


def jpeg(picture: Images, quality: int = 85) -> bytes:
    """A picture [H, W, 3] as JPEG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return file.getvalue()


def clouds(offset: Floats, rng: np.random.Generator, returns: int = RETURNS) -> list[Cloud]:
    """Per robot the returns of a lidar, [returns, 3] metres: a pole at the goal, and the ground.

    Args:
        offset: [n, 2] of the goal from the robot, metres, at most `RANGE_M`.
        rng: of where the beams hit.
        returns: of each cloud.
    """
    radius, height = _POLE
    count, hits = len(offset), min(_HITS, returns)
    facing = np.arctan2(-offset[:, 1], -offset[:, 0])[:, None]
    turn = facing + rng.uniform(-np.pi / 2, np.pi / 2, (count, hits))
    pole = np.empty((count, hits, 3))
    pole[..., 0] = offset[:, :1] + radius * np.cos(turn)
    pole[..., 1] = offset[:, 1:] + radius * np.sin(turn)
    pole[..., 2] = rng.uniform(0.2, height, (count, hits))
    ground = rng.uniform(-RANGE_M, RANGE_M, (count, returns - hits, 3))
    ground[..., 2] = rng.normal(0.0, 0.02, ground.shape[:2])
    found = np.concatenate([pole, ground], axis=1).astype(np.float32)
    return [rng.permutation(cloud) for cloud in found]


def unjpeg(data: bytes) -> Images:
    """[H, W, 3] of one of `jpeg`."""
    return np.asarray(Image.open(io.BytesIO(data), formats=("JPEG",)).convert("RGB"))
