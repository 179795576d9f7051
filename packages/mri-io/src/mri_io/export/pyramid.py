"""Coarser copies of images and label maps: factors of two along the fine axes, local means and majorities."""

from collections.abc import Sequence
from itertools import product

import numpy as np

__all__ = ["circular_mean", "halving_factors", "local_majority", "local_mean"]


def halving_factors(shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """Return by how much each axis is made coarser: 2 where voxels are less than twice the smallest, else 1.

    Voxels become isotropic so before all axes are halved: slices that are much thicker than pixels are kept first.

    Examples
    --------
    >>> halving_factors((20, 256, 256), (4.0, 0.5, 0.5))
    (1, 2, 2)
    """
    finest = min((space for size, space in zip(shape, spacing, strict=True) if size > 1), default=0.0)
    return tuple(2 if size > 1 and space < 2 * finest else 1 for size, space in zip(shape, spacing, strict=True))


def local_mean(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return means over blocks, of the values that are known; NaN where none is.

    Parameters
    ----------
    array
        Real, one dimension per factor. Where a length is odd, the last block is what is left.
    factors
        1 or 2 for each dimension.
    """
    stacked = _corners(array.astype(np.float64), factors)
    known = ~np.isnan(stacked)
    total, number = np.where(known, stacked, 0).sum(axis=0), known.sum(axis=0)
    mean = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return (np.rint(mean) if array.dtype.kind in "iu" else mean).astype(array.dtype)


def circular_mean(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return means of phases in radians over blocks; see `local_mean`."""
    return np.angle(np.exp(1j * _corners(array.astype(np.float64), factors)).sum(axis=0)).astype(array.dtype)


def local_majority(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return the most frequent label of blocks, of several the lowest id; see `local_mean`."""
    stacked = np.sort(_corners(array, factors), axis=0)
    counts = np.stack([(stacked == corner).sum(axis=0, dtype=np.uint8) for corner in stacked])
    return np.take_along_axis(stacked, counts.argmax(axis=0)[None], axis=0)[0]


def _corners(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return the members of each block along a new first axis; of halves, the one member as often as needed."""
    odd = [(0, size % factor) for size, factor in zip(array.shape, factors, strict=True)]
    padded = np.pad(array, odd, mode="edge")
    places = product(*(range(factor) for factor in factors))
    return np.stack(
        [padded[tuple(slice(start, None, f) for start, f in zip(place, factors, strict=True))] for place in places]
    )
