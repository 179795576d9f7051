"""Structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861), equal to scikit-image's.

By default a uniform window of 7 pixels, K1 = 0.01, K2 = 0.03 and sample covariances, as scikit-image and fastMRI. The
sum of both variances is all that is needed of them, so four windowed means do, and sums over a uniform window are built
by doubling, row by row.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d

from mri_recon.errors import ConfigError, ShapeError
from mri_recon.metrics.image import Peak, Region, Volume, check, peaks

__all__ = ["ssim"]

WINDOW, K1, K2 = 7, 0.01, 0.03
SIGMA, RADIUS = 1.5, 5
"""Of the Gaussian window, 11 pixels, as in the publication."""


def ssim(
    reference: Volume,
    image: Volume,
    region: Region = None,
    peak: Peak = None,
    window: Literal["uniform", "gaussian"] = "uniform",
) -> float:
    """Return the structural similarity, averaged over slices.

    Within a region the local similarities of its pixels are averaged. Without one the border of half a window is left
    out, as scikit-image does.

    Parameters
    ----------
    reference, image
        Magnitudes (slice, y, x).
    region
        Where similarities are averaged; None for everywhere.
    peak
        By default, or ``"volume"``, the maximum of the whole reference; ``"slice"``: that of each slice, and
        slices of zeros do not count.
    window
        ``"gaussian"``: a standard deviation of 1.5 pixels and population covariances, as Wang et al.; scikit-image's
        ``gaussian_weights=True, use_sample_covariance=False``.

    Raises
    ------
    ShapeError
        When slices are smaller than the window, or shapes differ.
    """
    check(reference, image)
    if window not in ("uniform", "gaussian"):
        raise ConfigError(f"window: expected uniform or gaussian, got {window!r}.")
    size, sample = (WINDOW, WINDOW**2 / (WINDOW**2 - 1)) if window == "uniform" else (2 * RADIUS + 1, 1.0)
    if min(reference.shape[-2:]) < size:
        raise ShapeError(f"ssim: expected slices of at least {size} x {size}, got {reference.shape[-2:]}.")
    mean = _box_mean if window == "uniform" else _gaussian_mean
    values = []
    for number, top in enumerate(peaks(reference, peak)):
        if (region is not None and not region[number].any()) or (peak == "slice" and top == 0):
            continue
        planes = [volume[number].astype(np.float64) for volume in (reference, image)]
        if region is not None:  # the border counts, too
            planes = [np.pad(plane, size // 2, mode="symmetric") for plane in planes]
        local = _local_similarity(planes[0], planes[1], mean, sample, top)
        values.append((local if region is None else local[region[number]]).mean())
    return float(np.mean(values)) if values else float("nan")


def _local_similarity(
    r: np.ndarray, i: np.ndarray, mean: Callable[[np.ndarray], np.ndarray], sample: float, peak: float
) -> np.ndarray:
    """Return the similarity where the window lies within the planes."""
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    mean_r, mean_i = mean(r), mean(i)
    # Twice the product of the means, and the sum of their squares.
    product = 2 * mean_r * mean_i
    mean_r *= mean_r
    mean_i *= mean_i
    mean_r += mean_i
    covariance = mean(r * i)
    covariance *= 2
    covariance -= product
    covariance *= sample
    covariance += c2
    variances = mean(r * r + i * i)
    variances -= mean_r
    variances *= sample
    variances += c2
    product += c1
    mean_r += c1
    product *= covariance
    mean_r *= variances
    product /= mean_r
    return product


def _box_mean(plane: np.ndarray) -> np.ndarray:
    rows = _box_sum(plane)
    total = _box_sum(rows.T).T
    total /= WINDOW**2
    return total


def _box_sum(x: np.ndarray) -> np.ndarray:
    """Return sums of 7 neighbours along the first axis: of 4, of 2 and 1."""
    two = x[:-1] + x[1:]
    four = two[:-2] + two[2:]
    total = four[:-3] + two[4:-1]
    total += x[6:]
    return total


def _gaussian_mean(plane: np.ndarray) -> np.ndarray:
    filtered = gaussian_filter1d(gaussian_filter1d(plane, SIGMA, 0, radius=RADIUS), SIGMA, 1, radius=RADIUS)
    return np.asarray(filtered[RADIUS:-RADIUS, RADIUS:-RADIUS])
