"""Points of trajectories on the Cartesian grid."""

import numpy as np

from mri_recon.physics.masks.common import samples_to_draw

__all__ = ["first_hits", "grid_points"]


def grid_points(shape: tuple[int, int], y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the flat indices of the grid points nearest to points of k-space, whose edge is at -1 and 1."""
    rows, columns = (
        np.clip(np.rint(n // 2 + at * (n / 2)).astype(np.int64), 0, n - 1) for n, at in zip(shape, (y, x), strict=True)
    )
    return rows * shape[1] + columns


def first_hits(points: np.ndarray, mask: np.ndarray, wanted: int) -> tuple[np.ndarray, int]:
    """Return which shot meets each grid point first, and how many shots bring the samples nearest to a number.

    Parameters
    ----------
    points
        Flat indices (shot, sample).
    mask
        bool (ky, kx), what is sampled anyway.
    wanted
        Number of samples, those of `mask` among them.
    """
    shots = len(points)
    first = np.full(mask.size, shots)
    first[points.ravel()[::-1]] = np.repeat(np.arange(shots)[::-1], points.shape[1])  # the first is written last
    hits = first.reshape(mask.shape)
    after = int(mask.sum()) + np.cumsum(np.bincount(hits[~mask], minlength=shots + 1)[:shots])
    samples_to_draw(mask.size, mask.size / wanted, 0, int(after[-1]))
    return hits, 1 + int(np.argmin(np.abs(after - wanted)))
