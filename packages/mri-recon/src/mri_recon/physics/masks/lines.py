"""Masks of lines, equal to fastMRI's for the same seed.

The three classes of fastMRI (Zbontar et al. 2018, arXiv:1811.08839; https://github.com/facebookresearch/fastMRI)
draw from `numpy.random.RandomState`; the order of draws here is the same, so that published masks are reproduced bit
for bit.
"""

import threading
from typing import Literal

import numpy as np
from numpy.random import RandomState
from pydantic import Field

from mri_recon.config import check_acceleration
from mri_recon.errors import ConfigError
from mri_recon.physics.masks.common import MaskSettings, centre

__all__ = [
    "EquispacedConfig",
    "LineSettings",
    "LinesConfig",
    "equispaced_fraction_mask",
    "equispaced_mask",
    "random_mask",
]


class _Generators(threading.local):
    """A generator per thread."""

    def __init__(self) -> None:
        self.rng = RandomState()


_generators = _Generators()


class LineSettings(MaskSettings):
    """What every mask of lines can be told."""

    axis: Literal["kx", "ky"] = Field(default="kx", description="the axis along which lines are chosen")


class LinesConfig(LineSettings):
    """Lines drawn at random."""

    acceleration: float = Field(default=4, ge=1)
    center_fraction: float = Field(default=0.08, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)


class EquispacedConfig(LinesConfig):
    """Lines at a spacing."""

    offset: int | None = Field(default=None, ge=0, description="first line; drawn when left out")


def _start(
    columns: int, acceleration: float, center_fraction: float, seed: int | tuple[int, ...] | None
) -> tuple[RandomState, int, np.ndarray]:
    """Check the parameters; return the generator after the draws fastMRI spends first, and the central lines."""
    if columns < 1 or acceleration < 1 or not 0 < center_fraction <= 1:
        raise ConfigError(
            "mask: expected columns >= 1, acceleration >= 1 and 0 < center_fraction <= 1, "
            f"got {columns}, {acceleration}, {center_fraction}."
        )
    rng: RandomState = _generators.rng  # a new one would take 70 times as long as seeding it
    rng.seed(seed)
    # fastMRI chooses among its list of (acceleration, centre fraction) pairs, here of one.
    rng.randint(1)
    lines = np.zeros(columns, dtype=bool)
    inside = centre(columns, center_fraction)
    lines[inside] = True
    return rng, inside.stop - inside.start, lines


def random_mask(
    columns: int, acceleration: float, center_fraction: float, seed: int | tuple[int, ...] | None = None
) -> np.ndarray:
    """Sample the centre and each other line at random with equal probability (fastMRI's RandomMaskFunc).

    Parameters
    ----------
    columns
        Number of phase-encoding lines.
    acceleration
        Expected number of lines over sampled lines, the centre counted in.
    center_fraction
        Share of lines at the centre that are always sampled.
    seed
        Of `numpy.random.RandomState`.

    Returns
    -------
    numpy.ndarray
        uint8 (columns,), 1 where sampled.
    """
    rng, low, lines = _start(columns, acceleration, center_fraction, seed)
    probability = (columns / acceleration - low) / (columns - low) if columns > low else 0.0
    return np.asarray((rng.uniform(size=columns) < probability) | lines, dtype=np.uint8)


def equispaced_mask(
    columns: int,
    acceleration: float,
    center_fraction: float,
    seed: int | tuple[int, ...] | None = None,
    offset: int | None = None,
) -> np.ndarray:
    """Sample the centre and every n-th line, n the acceleration, an integer (fastMRI's EquiSpacedMaskFunc).

    The achieved acceleration is below `acceleration`, because the centre comes on top. See `random_mask` for the
    parameters; `offset` fixes the first line instead of drawing it.

    Raises
    ------
    ConfigError
        When the acceleration is no integer, or a parameter is out of range.
    """
    rng, _, lines = _start(columns, acceleration, center_fraction, seed)
    check_acceleration("equispaced", acceleration)
    step = int(acceleration)
    first = rng.randint(0, high=step) if offset is None else offset
    lines[first::step] = True
    return lines.astype(np.uint8)


def equispaced_fraction_mask(
    columns: int,
    acceleration: float,
    center_fraction: float,
    seed: int | tuple[int, ...] | None = None,
    offset: int | None = None,
) -> np.ndarray:
    """Sample the centre and lines at a spacing that makes the total acceleration exact to rounding.

    fastMRI's EquispacedMaskFractionFunc; the spacing is not an integer, so the lines are only nearly equidistant. See
    `equispaced_mask` for the parameters.
    """
    rng, low, lines = _start(columns, acceleration, center_fraction, seed)
    if low * acceleration >= columns:
        raise ConfigError(
            f"mask: the centre of {low} lines alone exceeds {columns} / {acceleration} lines; "
            "choose a smaller center_fraction or acceleration."
        )
    spacing = (acceleration * (low - columns)) / (low * acceleration - columns)
    first = rng.randint(0, high=round(spacing)) if offset is None else offset
    lines[np.around(np.arange(first, columns - 1, spacing)).astype(np.uint)] = True
    return lines.astype(np.uint8)
