"""Patterns in k-space and time for dynamic series: (frame, line)."""

from typing import Literal

import numpy as np
from pydantic import Field

from mri_recon.config import check_acceleration
from mri_recon.physics.masks.common import centre, check_parameters, samples_to_draw
from mri_recon.physics.masks.gaussian import FWHM, gaussian_density
from mri_recon.physics.masks.lines import LineSettings

__all__ = ["KtConfig", "KtEquispacedConfig", "KtGaussianConfig", "kt_equispaced_mask", "kt_gaussian_mask"]

GOLDEN = (np.sqrt(5) - 1) / 2


class KtConfig(LineSettings):
    """Lines of a series."""

    axis: Literal["kx", "ky"] = Field(default="ky", description="the axis along which lines are chosen")
    acceleration: float = Field(default=4, ge=1)
    center_fraction: float = Field(default=0.08, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)


class KtEquispacedConfig(KtConfig):
    """A lattice in k-space and time."""

    shift: int = Field(default=1, ge=0, description="lines from a frame to the next")


class KtGaussianConfig(KtConfig):
    """Variable density in k-space, even in time."""

    fwhm: float = Field(default=FWHM, gt=0, description="full width at half maximum, a share of the axis")


def kt_equispaced_mask(
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float = 0.08,
    seed: int | None = None,
    *,
    shift: int = 1,
) -> np.ndarray:
    """Sample the centre and every n-th line of each frame, moved by `shift` lines from a frame to the next.

    The lattice of UNFOLD, TGRAPPA and k-t BLAST (Tsao et al. 2003, doi:10.1002/mrm.10611): with a shift that has no
    divisor in common with n, n frames together sample every line.

    Parameters
    ----------
    shape
        (frame, line).
    acceleration
        n, an integer; what is achieved is below it, because the centre comes on top.
    center_fraction
        Share of lines at the centre that every frame samples; may be 0.
    seed
        Of `numpy.random.default_rng`: draws the first line.
    shift
        Lines from a frame to the next.

    Returns
    -------
    numpy.ndarray
        uint8 (frame, line), 1 where sampled.

    Raises
    ------
    ConfigError
        When the acceleration is no integer or a parameter is out of range.
    """
    check_parameters(shape, acceleration, center_fraction)
    check_acceleration("kt-equispaced", acceleration)
    step = int(acceleration)
    first = int(np.random.default_rng(seed).integers(step))
    frame, line = np.arange(shape[0])[:, None], np.arange(shape[1])
    mask = ((line - first - shift * frame) % step == 0).astype(np.uint8)
    mask[:, centre(shape[1], center_fraction)] = 1
    return mask


def kt_gaussian_mask(
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float = 0.08,
    seed: int | None = None,
    *,
    fwhm: float = FWHM,
) -> np.ndarray:
    r"""Sample the centre and lines of Gaussian density, every frame others and all frames equally many.

    Each line has the probability :math:`\pi` of being sampled, at most 1 and summing to the number of lines; a frame
    takes the lines in which the cumulative sum of :math:`\pi` passes an integer plus an offset (systematic sampling,
    Madow 1949, doi:10.1214/aoms/1177729988). The offset advances by the golden ratio from frame to frame, so that
    frames close in time complement each other (as GRO, Joshi et al. 2022, doi:10.48550/arXiv.2206.03630).

    Parameters
    ----------
    acceleration
        Lines over sampled lines of each frame, the centre counted in: exact to rounding.
    seed
        Of `numpy.random.default_rng`: draws the first offset.
    fwhm
        Full width at half maximum of the density, a share of the axis.
    shape, center_fraction
        As of `kt_equispaced_mask`.

    Returns
    -------
    numpy.ndarray
        uint8 (frame, line), 1 where sampled.

    Raises
    ------
    ConfigError
        When the centre alone has more lines than the acceleration leaves, or a parameter is out of range.
    """
    check_parameters(shape, acceleration, center_fraction)
    always = np.zeros(shape[1], bool)
    always[centre(shape[1], center_fraction)] = True
    missing = samples_to_draw(shape[1], acceleration, int(always.sum()))
    passed = np.concatenate([[0], np.cumsum(_probabilities(gaussian_density(shape[1], fwhm), always, missing))])
    passed[-1] = round(passed[-1])
    offsets = (np.random.default_rng(seed).uniform() + GOLDEN * np.arange(shape[0])) % 1
    return (np.diff(np.floor(passed + offsets[:, None]), axis=1) > 0).astype(np.uint8)


def _probabilities(density: np.ndarray, always: np.ndarray, missing: int) -> np.ndarray:
    """Scale a density to probabilities that sum to a number of lines; what would exceed 1 becomes 1."""
    full = always.copy()
    wanted = missing + int(always.sum())
    while True:
        rest = wanted - int(full.sum())
        probability = np.where(full, 1.0, density * (rest / max(float(density[~full].sum()), 1e-300)))
        if rest <= 0 or not (probability > 1).any():
            return np.where(full, 1.0, 0.0) if rest <= 0 else probability
        full |= probability > 1
