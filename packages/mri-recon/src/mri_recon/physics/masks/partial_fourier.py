"""Partial Fourier: one side of k-space is left out, on top of any mask."""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from mri_recon.errors import ConfigError
from mri_recon.physics.masks.lines import LineSettings

__all__ = ["PartialFourierConfig", "all_lines", "partial_fourier"]


class PartialFourierConfig(LineSettings):
    """One side of k-space, and the centre."""

    partial_fourier: float = Field(default=0.75, gt=0.5, le=1, description="share of the lines kept")


def all_lines(columns: int) -> np.ndarray:
    """Sample every line, uint8 (columns,)."""
    if columns < 1:
        raise ConfigError(f"mask: expected columns >= 1, got {columns}.")
    return np.ones(columns, np.uint8)


def partial_fourier(
    mask: np.ndarray, fraction: float, axis: int = -1, keep: Literal["first", "last"] = "last"
) -> np.ndarray:
    """Leave the samples of one side of k-space out of a mask.

    Parameters
    ----------
    mask
        Any mask; one value per line, or points, or frames of them.
    fraction
        Share of the positions along the axis that are kept, rounded up, above 0.5 so that the centre is among them.
    axis
        Of `mask`.
    keep
        Which end of the axis is complete.

    Returns
    -------
    numpy.ndarray
        A copy of the mask.

    Raises
    ------
    ConfigError
        For a fraction that loses the centre or is above 1.
    """
    if not 0.5 < fraction <= 1:
        raise ConfigError(f"partial_fourier: expected 0.5 < fraction <= 1, got {fraction}.")
    length = mask.shape[axis]
    # At least one position on the other side of the centre, n // 2.
    kept = min(length, max(math.ceil(round(fraction * length, 6)), length // 2 + 1))
    position = np.arange(length)
    inside = position < kept if keep == "first" else position >= length - kept
    return np.where(np.moveaxis(np.broadcast_to(inside, (*[1] * (mask.ndim - 1), length)), -1, axis), mask, 0).astype(
        mask.dtype
    )
