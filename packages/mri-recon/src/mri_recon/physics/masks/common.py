"""What masks have in common: the centre, checks of their parameters, the acceleration that was achieved."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from mri_io.config import Config
from mri_recon.errors import ConfigError

__all__ = ["MaskSettings", "acceleration", "centre", "centre_rectangle", "samples_to_draw"]


class MaskSettings(Config):
    """What every kind of mask can be told; the fields of its own configuration are its function's parameters."""

    partial_fourier: float = Field(
        default=1, gt=0.5, le=1, description="share of the lines kept, from the last towards the first"
    )


def acceleration(mask: np.ndarray) -> float:
    """Return the acceleration that a mask achieves, positions over sampled positions.

    Parameters
    ----------
    mask
        Of any shape, not zero where sampled; for lines one value per line, for frames one pattern per frame.

    Raises
    ------
    ConfigError
        When it samples nothing.
    """
    sampled = int(np.count_nonzero(mask))
    if sampled == 0:
        raise ConfigError(f"mask: expected at least one sample, got none of {np.size(mask)} positions.")
    return float(np.size(mask) / sampled)


def centre(length: int, fraction: float) -> slice:
    """Return the central positions of an axis, a share of its length; placed as fastMRI does."""
    low = round(length * fraction)
    start = (length - low + 1) // 2
    return slice(start, start + low)


def centre_rectangle(shape: tuple[int, int], fraction: float) -> np.ndarray:
    """Return where the central rectangle is, bool (ky, kx); each side is a share of its axis."""
    check_parameters(shape, 1, fraction)
    inside = np.zeros(shape, bool)
    inside[centre(shape[0], fraction), centre(shape[1], fraction)] = True
    return inside


def check_parameters(shape: Sequence[int], acceleration: float, center_fraction: float) -> None:
    """Raise ConfigError for an empty shape, an acceleration below one, or a centre that is no share."""
    if min(shape) < 1 or not acceleration >= 1 or not 0 <= center_fraction <= 1:
        raise ConfigError(
            "mask: expected lengths >= 1, acceleration >= 1 and 0 <= center_fraction <= 1, "
            f"got {tuple(shape)}, {acceleration}, {center_fraction}."
        )


def samples_to_draw(positions: int, acceleration: float, always: int, available: int | None = None) -> int:
    """Return how many samples are missing beside those `always` taken, so that the acceleration is exact to rounding.

    Parameters
    ----------
    positions
        Number of all positions.
    acceleration
        That the whole mask is to have.
    always
        Number of samples that are there already.
    available
        Number of positions that can be sampled, those already there among them; by default all.

    Raises
    ------
    ConfigError
        When the acceleration cannot be reached.
    """
    wanted = round(positions / acceleration)
    if wanted < max(always, 1):
        raise ConfigError(
            f"mask: an acceleration of {acceleration:g} leaves {wanted} of {positions} samples, fewer than the "
            f"{always} at the centre. Choose a smaller centre or acceleration."
        )
    if available is not None and wanted > available:
        raise ConfigError(
            f"mask: an acceleration of {acceleration:g} needs {wanted} samples, the pattern reaches {available} of "
            f"{positions} positions. Choose at least {positions / available:.4g}."
        )
    return wanted - always
