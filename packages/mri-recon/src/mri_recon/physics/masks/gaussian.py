"""Variable density: positions drawn with the probability of a Gaussian around the centre of k-space."""

import numpy as np
from pydantic import Field, model_validator

from mri_recon.errors import ConfigError
from mri_recon.physics.masks.common import MaskSettings, centre, centre_rectangle, check_parameters, samples_to_draw
from mri_recon.physics.masks.lines import LinesConfig

__all__ = ["FWHM", "Gaussian2dConfig", "GaussianConfig", "gaussian_2d_mask", "gaussian_density", "gaussian_mask"]

FWHM = 0.35
"""Full width at half maximum as a share of the axis, ATOMMIC's 0.7 of half of it."""


class GaussianConfig(LinesConfig):
    """Gaussian density of lines."""

    center_fraction: float = Field(default=0.08, ge=0, le=1)
    fwhm: float = Field(default=FWHM, gt=0, description="full width at half maximum, a share of the axis")
    center_lines: int | None = Field(default=None, ge=0, description="number of central lines, not a share of them")

    @model_validator(mode="after")
    def _one_centre(self) -> "GaussianConfig":
        if {"center_fraction", "center_lines"} <= self.model_fields_set and self.center_lines is not None:
            raise ValueError("center_lines: expected either center_fraction or center_lines, got both")
        return self


class Gaussian2dConfig(MaskSettings):
    """Gaussian density of points."""

    acceleration: float = Field(default=4, ge=1)
    center_fraction: float = Field(default=0.08, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    fwhm: float = Field(default=FWHM, gt=0, description="full width at half maximum, a share of each axis")


def gaussian_density(length: int, fwhm: float) -> np.ndarray:
    """Return ``exp(-4 ln 2 (k / (fwhm length))^2)``, k from the centre of the axis; its logarithm is never -inf."""
    k = np.arange(length) - length // 2
    return np.exp(np.maximum(-4 * np.log(2) * (k / (fwhm * length)) ** 2, -600))


def gaussian_mask(
    columns: int,
    acceleration: float,
    center_fraction: float = 0.08,
    seed: int | None = None,
    *,
    fwhm: float = FWHM,
    center_lines: int | None = None,
) -> np.ndarray:
    """Sample the centre, and lines without repetition with Gaussian probability.

    The segmentation-aware reconstruction of Acar et al. 2022 has ``center_lines=8`` and accelerations of 4 and 8.

    Parameters
    ----------
    columns
        Number of phase-encoding lines.
    acceleration
        Lines over sampled lines, the centre counted in: exact to rounding.
    center_fraction
        Share of lines at the centre that are always sampled.
    seed
        Of `numpy.random.default_rng`.
    fwhm
        Full width at half maximum of the density, a share of the axis.
    center_lines
        Number of lines at the centre, in place of `center_fraction`.

    Returns
    -------
    numpy.ndarray
        uint8 (columns,), 1 where sampled.

    Raises
    ------
    ConfigError
        When a parameter is out of range, or the centre alone has more lines than the acceleration leaves.
    """
    if center_lines is not None:
        center_fraction = center_lines / max(columns, 1)
    check_parameters((columns,), acceleration, center_fraction)
    lines = np.zeros(columns, bool)
    lines[centre(columns, center_fraction)] = True
    return _drawn(lines, gaussian_density(columns, fwhm), acceleration, seed)


def gaussian_2d_mask(
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float = 0.08,
    seed: int | None = None,
    *,
    fwhm: float = FWHM,
) -> np.ndarray:
    """Sample a central rectangle, and points without repetition with Gaussian probability.

    Parameters
    ----------
    shape
        (ky, kx).
    acceleration
        Points over sampled points, the centre counted in: exact to rounding.
    center_fraction
        Sides of the rectangle that is fully sampled, shares of the axes; twice the centre scale of ATOMMIC, whose
        centre is an ellipse of such half-axes.
    seed, fwhm
        As of `gaussian_mask`; the density is a product of one for each axis.

    Returns
    -------
    numpy.ndarray
        uint8 (ky, kx), 1 where sampled.

    Raises
    ------
    ConfigError
        As `gaussian_mask`.
    """
    check_parameters(shape, acceleration, center_fraction)
    density = gaussian_density(shape[0], fwhm)[:, None] * gaussian_density(shape[1], fwhm)
    return _drawn(centre_rectangle(shape, center_fraction), density, acceleration, seed)


def _drawn(always: np.ndarray, density: np.ndarray, acceleration: float, seed: int | None) -> np.ndarray:
    """Add positions to those that are always taken, without repetition, with a probability that goes as a density.

    Successive draws without repetition take the positions with the largest ``log density + Gumbel noise`` (Efraimidis
    and Spirakis 2006, doi:10.1016/j.ipl.2005.11.003).
    """
    if not density.min() > 0:
        raise ConfigError("mask: expected a fwhm that leaves a density everywhere; choose a larger one.")
    missing = samples_to_draw(always.size, acceleration, int(always.sum()))
    order = np.log(density) + np.random.default_rng(seed).gumbel(size=density.shape)
    order[always] = np.inf
    mask = np.zeros(always.size, np.uint8)
    mask[np.argsort(-order, axis=None, kind="stable")[: missing + int(always.sum())]] = 1
    return mask.reshape(always.shape)
