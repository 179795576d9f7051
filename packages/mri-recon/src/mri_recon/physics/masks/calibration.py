"""The fully sampled region around the centre of k-space that calibration uses."""

import numpy as np

from mri_recon.errors import ConfigError

__all__ = ["calibration_region"]


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
