"""Regular lattices of points, straight or sheared (CAIPIRINHA)."""

import math

import numpy as np
from pydantic import Field, model_validator

from mri_recon.config import check_acceleration
from mri_recon.errors import ConfigError
from mri_recon.physics.masks.common import MaskSettings, centre_rectangle, check_parameters

__all__ = ["CaipirinhaConfig", "LatticeConfig", "caipirinha_mask", "equispaced_2d_mask", "lattice_steps"]


class LatticeConfig(MaskSettings):
    """A lattice along both axes."""

    acceleration: float = Field(default=4, ge=1, description="an integer")
    center_fraction: float = Field(default=0.08, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    step_y: int | None = Field(default=None, ge=1, description="spacing along ky; the other is acceleration / step_y")

    @model_validator(mode="after")
    def _can_be_divided(self) -> "LatticeConfig":
        if self.acceleration == int(self.acceleration):
            lattice_steps(int(self.acceleration), self.step_y)
        return self


class CaipirinhaConfig(LatticeConfig):
    """A sheared lattice."""

    shift: int | None = Field(
        default=None, ge=0, description="along kx from a line to the next; half a step if left out"
    )


def lattice_steps(acceleration: int, step_y: int | None = None) -> tuple[int, int]:
    """Return the spacings along ky and kx whose product is the acceleration, as nearly equal as they can be.

    Raises
    ------
    ConfigError
        When the acceleration is no multiple of the given spacing.
    """
    if step_y is None:
        step_y = max(n for n in range(1, math.isqrt(acceleration) + 1) if acceleration % n == 0)
    if acceleration % step_y:
        raise ConfigError(f"step_y: expected a divisor of the acceleration {acceleration}, got {step_y}.")
    return step_y, acceleration // step_y


def equispaced_2d_mask(
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float = 0.08,
    seed: int | None = None,
    *,
    step_y: int | None = None,
) -> np.ndarray:
    """Sample a central rectangle and every n-th point along ky, every m-th along kx, ``n m`` the acceleration.

    The achieved acceleration is below `acceleration`, because the centre comes on top.

    Parameters
    ----------
    shape
        (ky, kx).
    acceleration
        An integer.
    center_fraction
        Sides of the rectangle that is fully sampled, shares of the axes.
    seed
        Of `numpy.random.default_rng`: draws the first point.
    step_y
        n, by default the largest divisor of the acceleration up to its square root.

    Returns
    -------
    numpy.ndarray
        uint8 (ky, kx), 1 where sampled.

    Raises
    ------
    ConfigError
        When the acceleration is no integer, or no multiple of `step_y`, or a parameter is out of range.
    """
    check_parameters(shape, acceleration, center_fraction)
    check_acceleration("equispaced-2d", acceleration)
    return _lattice(shape, acceleration, center_fraction, seed, step_y, 0)


def caipirinha_mask(
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float = 0.08,
    seed: int | None = None,
    *,
    step_y: int | None = None,
    shift: int | None = None,
) -> np.ndarray:
    r"""Sample a central rectangle and a sheared lattice (2D CAIPIRINHA, Breuer et al. 2006, doi:10.1002/mrm.20787).

    From one sampled line along ky to the next the points move by `shift` along kx, so that aliases of the object part
    company: the pattern :math:`n \times m^{(\mathrm{shift})}` of the paper.

    Parameters
    ----------
    shift
        0 .. m - 1, by default ``m // 2``.
    shape, acceleration, center_fraction, seed, step_y
        As of `equispaced_2d_mask`.

    Returns
    -------
    numpy.ndarray
        uint8 (ky, kx), 1 where sampled.

    Raises
    ------
    ConfigError
        As `equispaced_2d_mask`.
    """
    check_parameters(shape, acceleration, center_fraction)
    check_acceleration("caipirinha", acceleration)
    step_x = lattice_steps(int(acceleration), step_y)[1]
    return _lattice(shape, acceleration, center_fraction, seed, step_y, step_x // 2 if shift is None else shift)


def _lattice(
    shape: tuple[int, int], acceleration: float, fraction: float, seed: int | None, step_y: int | None, shift: int
) -> np.ndarray:
    step_y, step_x = lattice_steps(int(acceleration), step_y)
    rng = np.random.default_rng(seed)
    first_y, first_x = (int(rng.integers(step)) for step in (step_y, step_x))
    line, column = np.arange(shape[0])[:, None] - first_y, np.arange(shape[1]) - first_x
    on_lattice = (line % step_y == 0) & ((column - shift * (line // step_y)) % step_x == 0)
    return (on_lattice | centre_rectangle(shape, fraction)).astype(np.uint8)
