"""Radial spokes through the centre of the Cartesian grid."""

from typing import Literal

import numpy as np
from pydantic import Field

from mri_recon.physics.masks.common import MaskSettings, centre_rectangle, check_parameters, samples_to_draw
from mri_recon.physics.masks.gridded import first_hits, grid_points

__all__ = ["RadialConfig", "radial_mask"]

GOLDEN = np.pi * (np.sqrt(5) - 1) / 2
"""111.246 degrees (Winkelmann et al. 2007, doi:10.1109/TMI.2006.885337)."""


class RadialConfig(MaskSettings):
    """Spokes."""

    acceleration: float = Field(default=4, ge=1)
    center_fraction: float = Field(default=0.08, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    angles: Literal["golden", "uniform"] = Field(default="golden", description="steps of 111.25 degrees, or 180 / n")


def radial_mask(
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float = 0.08,
    seed: int | None = None,
    *,
    angles: Literal["golden", "uniform"] = "golden",
) -> np.ndarray:
    """Sample a central rectangle and the grid points nearest to spokes through the centre.

    There are as many spokes as bring the acceleration nearest to what is asked for; one spoke more or less is the
    tolerance. They end on the largest ellipse that fits, so that the corners of k-space stay empty.

    Parameters
    ----------
    shape
        (ky, kx).
    acceleration
        Points over sampled points, the centre counted in.
    center_fraction
        Sides of the rectangle that is fully sampled, shares of the axes.
    seed
        Of `numpy.random.default_rng`: turns the spokes.
    angles
        ``"golden"``: each spoke 111.25 degrees from the one before; ``"uniform"``: all equally far apart.

    Returns
    -------
    numpy.ndarray
        uint8 (ky, kx), 1 where sampled.

    Raises
    ------
    ConfigError
        When the acceleration cannot be reached: the centre alone has more samples, or it is less than about 4 / pi.
    """
    check_parameters(shape, acceleration, center_fraction)
    mask = centre_rectangle(shape, center_fraction)
    wanted = samples_to_draw(mask.size, acceleration, int(mask.sum())) + int(mask.sum())
    turn = np.random.default_rng(seed).uniform(0, np.pi)
    most = 2 * (shape[0] + shape[1])
    if angles == "golden":
        hits, count = first_hits(_spokes(shape, turn + GOLDEN * np.arange(most)), mask, wanted)
        return (mask | (hits < count)).astype(np.uint8)
    few, many = 0, most
    while many - few > 1:
        n = (few + many) // 2
        if _uniform(shape, n, turn, mask).sum() < wanted:
            few = n
        else:
            many = n
    trials = [_uniform(shape, n, turn, mask) for n in (few, many)]
    samples_to_draw(mask.size, acceleration, 0, int(trials[1].sum()))
    return min(trials, key=lambda trial: abs(int(trial.sum()) - wanted)).astype(np.uint8)


def _uniform(shape: tuple[int, int], count: int, turn: float, mask: np.ndarray) -> np.ndarray:
    sampled = mask.copy()
    sampled.ravel()[_spokes(shape, turn + np.pi * np.arange(count) / max(count, 1)).ravel()] = True
    return sampled


def _spokes(shape: tuple[int, int], angles: np.ndarray) -> np.ndarray:
    """Return the flat indices of the points of each spoke, (spoke, sample)."""
    radius = np.linspace(-1, 1, 2 * max(shape) + 1)
    return grid_points(shape, np.sin(angles)[:, None] * radius, np.cos(angles)[:, None] * radius)
