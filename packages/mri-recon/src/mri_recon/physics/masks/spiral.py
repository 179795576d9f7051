"""Spirals on the Cartesian grid."""

import numpy as np
from pydantic import Field

from mri_recon.errors import ConfigError
from mri_recon.physics.masks.common import MaskSettings, centre_rectangle, check_parameters, samples_to_draw
from mri_recon.physics.masks.gridded import grid_points

__all__ = ["SpiralConfig", "spiral_mask"]


class SpiralConfig(MaskSettings):
    """Interleaved spirals."""

    acceleration: float = Field(default=4, ge=1)
    center_fraction: float = Field(default=0.08, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    interleaves: int = Field(default=8, ge=1, description="number of arms")
    density: float = Field(default=1.5, ge=1, le=8, description="1: even (Archimedean); more: denser at the centre")


def spiral_mask(
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float = 0.08,
    seed: int | None = None,
    *,
    interleaves: int = 8,
    density: float = 1.5,
) -> np.ndarray:
    r"""Sample a central rectangle and the grid points nearest to interleaved spirals.

    On each arm the radius grows as :math:`(\theta / \theta_\mathrm{max})^\mathrm{density}`, up to the largest ellipse
    that fits. The number of turns is found by bisection; the achieved acceleration is within 2 % of what is asked for
    on grids of 64 points and more.

    Parameters
    ----------
    shape
        (ky, kx).
    acceleration
        Points over sampled points, the centre counted in.
    center_fraction
        Sides of the rectangle that is fully sampled, shares of the axes.
    seed
        Of `numpy.random.default_rng`: turns the spirals.
    interleaves
        Number of arms.
    density
        1 samples evenly; larger values sample the centre more densely.

    Returns
    -------
    numpy.ndarray
        uint8 (ky, kx), 1 where sampled.

    Raises
    ------
    ConfigError
        When the acceleration cannot be reached: the centre and straight arms have more samples, or it is less than
        about 4 / pi.
    """
    check_parameters(shape, acceleration, center_fraction)
    mask = centre_rectangle(shape, center_fraction)
    wanted = samples_to_draw(mask.size, acceleration, int(mask.sum())) + int(mask.sum())
    turn = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    low, high = 0.0, float(max(shape))  # turns of all arms together
    best = np.ones_like(mask)
    for _ in range(20):
        turns = (low + high) / 2
        trial = mask.copy()
        trial.ravel()[_arms(shape, turns / interleaves, turn, interleaves, density)] = True
        found = int(trial.sum())
        if abs(found - wanted) < abs(int(best.sum()) - wanted):
            best = trial
        if found == wanted:
            break
        low, high = (turns, high) if found < wanted else (low, turns)
    if abs(int(best.sum()) - wanted) > max(0.05 * wanted, 2):
        reached = mask.size / int(best.sum())
        raise ConfigError(
            f"mask: a spiral of {interleaves} arms reaches an acceleration of {reached:.4g}, not {acceleration:g}. "
            "Choose that, a smaller centre or another number of arms."
        )
    return best.astype(np.uint8)


def _arms(shape: tuple[int, int], turns: float, turn: float, interleaves: int, density: float) -> np.ndarray:
    """Return the flat indices of the grid points of all arms; steps are at most half a grid spacing."""
    length = np.pi * turns + density  # of an arm, a bound in units of the largest radius
    t = np.linspace(0, 1, 2 + int(1.5 * max(shape) * length))
    angle = turn + 2 * np.pi * (turns * t + np.arange(interleaves)[:, None] / interleaves)
    return grid_points(shape, t**density * np.sin(angle), t**density * np.cos(angle))
