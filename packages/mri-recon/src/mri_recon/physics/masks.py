"""One-dimensional sampling masks, equal to fastMRI's for the same seed, and the calibration region of any mask.

The three classes of fastMRI (Zbontar et al. 2018, arXiv:1811.08839; https://github.com/facebookresearch/fastMRI)
draw from `numpy.random.RandomState`; the order of draws here is the same, so that published masks are reproduced bit
for bit.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import RandomState

from mri_recon.config import check_acceleration
from mri_recon.errors import ConfigError

__all__ = [
    "MASKS",
    "calibration_region",
    "equispaced_fraction_mask",
    "equispaced_mask",
    "random_mask",
]

MaskFunction = Callable[..., np.ndarray]


def _start(
    columns: int, acceleration: float, center_fraction: float, seed: int | tuple[int, ...] | None
) -> tuple[RandomState, int, np.ndarray]:
    """Check the parameters; return the generator after the draws fastMRI spends first, and the central lines."""
    if columns < 1 or acceleration < 1 or not 0 < center_fraction <= 1:
        raise ConfigError(
            "mask: expected columns >= 1, acceleration >= 1 and 0 < center_fraction <= 1, "
            f"got {columns}, {acceleration}, {center_fraction}."
        )
    rng = RandomState()
    rng.seed(seed)
    # fastMRI chooses among its list of (acceleration, centre fraction) pairs, here of one.
    rng.randint(1)
    low = round(columns * center_fraction)
    centre = np.zeros(columns, dtype=bool)
    pad = (columns - low + 1) // 2
    centre[pad : pad + low] = True
    return rng, low, centre


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
    rng, low, centre = _start(columns, acceleration, center_fraction, seed)
    probability = (columns / acceleration - low) / (columns - low) if columns > low else 0.0
    return np.asarray((rng.uniform(size=columns) < probability) | centre, dtype=np.uint8)


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
    rng, _, centre = _start(columns, acceleration, center_fraction, seed)
    check_acceleration("equispaced", acceleration)
    step = int(acceleration)
    first = rng.randint(0, high=step) if offset is None else offset
    mask = centre.copy()
    mask[first::step] = True
    return mask.astype(np.uint8)


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
    rng, low, centre = _start(columns, acceleration, center_fraction, seed)
    if low * acceleration >= columns:
        raise ConfigError(
            f"mask: the centre of {low} lines alone exceeds {columns} / {acceleration} lines; "
            "choose a smaller center_fraction or acceleration."
        )
    spacing = (acceleration * (low - columns)) / (low * acceleration - columns)
    first = rng.randint(0, high=round(spacing)) if offset is None else offset
    lines = np.around(np.arange(first, columns - 1, spacing)).astype(np.uint)
    mask = centre.copy()
    mask[lines] = True
    return mask.astype(np.uint8)


MASKS: dict[str, MaskFunction] = {
    "equispaced": equispaced_mask,
    "equispaced-fraction": equispaced_fraction_mask,
    "random": random_mask,
}
"""Mask functions by the name that commands and configurations use."""


def calibration_region(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the largest fully sampled rectangle around the centre of k-space.

    Parameters
    ----------
    mask
        (ky, kx), or (1, kx) or (ky, 1) where one axis is fully sampled.

    Returns
    -------
    tuple of slice
        Rows and columns; a fully sampled axis gives all of it, ``slice(None)``.

    Raises
    ------
    ConfigError
        When the centre itself is not sampled.
    """
    sampled = np.asarray(mask) != 0
    if not sampled[sampled.shape[0] // 2, sampled.shape[1] // 2]:
        raise ConfigError("calibration: the centre of k-space is not sampled; give maps from another scan.")
    if sampled.shape[0] == 1 or sampled.shape[1] == 1:
        low, high = _run_around_centre(sampled.ravel())
        line = slice(low, high)
        return (slice(None), line) if sampled.shape[0] == 1 else (line, slice(None))
    rows = [sampled.shape[0] // 2, sampled.shape[0] // 2 + 1]
    columns = [sampled.shape[1] // 2, sampled.shape[1] // 2 + 1]
    grown = True
    while grown:
        grown = False
        for bounds, step in ((rows, -1), (rows, 1), (columns, -1), (columns, 1)):
            trial = [list(rows), list(columns)]
            target = trial[0] if bounds is rows else trial[1]
            target[0 if step < 0 else 1] += step
            (top, bottom), (left, right) = trial
            inside = min(top, left) >= 0 and bottom <= sampled.shape[0] and right <= sampled.shape[1]
            if inside and sampled[top:bottom, left:right].all():
                bounds[0 if step < 0 else 1] += step
                grown = True
    return slice(rows[0], rows[1]), slice(columns[0], columns[1])


def _run_around_centre(sampled: np.ndarray) -> tuple[int, int]:
    low = high = len(sampled) // 2
    while low > 0 and sampled[low - 1]:
        low -= 1
    while high < len(sampled) and sampled[high]:
        high += 1
    return low, high
