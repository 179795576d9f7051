"""Errors of magnitudes as fastMRI defines them: over a volume, with the volume's maximum as the peak.

Zbontar et al. 2018, arXiv:1811.08839, section 5.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import correlate1d

from mri_recon.errors import ConfigError, ShapeError

__all__ = ["Peak", "Region", "Volume", "difference_map", "hfen", "least_squares_scale", "nmse", "peaks", "psnr"]

Volume = Float[np.ndarray, "slice y x"]
Region = Bool[np.ndarray, "slice y x"] | None
Peak = float | Literal["volume", "slice"] | None

LOG_SIZE, LOG_SIGMA = 15, 1.5


def check(reference: np.ndarray, image: np.ndarray) -> None:
    """Raise ShapeError where an image is not of the reference's shape."""
    if reference.shape != image.shape:
        raise ShapeError(f"metrics: expected an image of the reference's shape {reference.shape}, got {image.shape}.")


def peaks(reference: Volume, peak: Peak) -> Iterator[float]:
    """Yield the peak of each slice: a number, the maximum of the volume (None, ``"volume"``) or of the slice.

    Raises
    ------
    ConfigError
        For another word.
    """
    if isinstance(peak, str) and peak not in ("volume", "slice"):
        raise ConfigError(f"peak: expected volume, slice or a number, got {peak!r}.")
    if peak == "slice":
        return (float(plane.max()) for plane in reference)
    return iter([float(reference.max()) if peak is None or isinstance(peak, str) else peak] * len(reference))


def psnr(reference: Volume, image: Volume, region: Region = None, peak: Peak = None) -> float:
    """Return ``20 log10(peak / rmse)`` in dB.

    Parameters
    ----------
    reference, image
        Magnitudes (slice, y, x).
    region
        Where the error is measured; None for everywhere.
    peak
        By default, or ``"volume"``, the maximum of the whole reference, with the error of all slices together. With
        ``"slice"`` each slice has its maximum and its error, and their decibels are averaged; slices of zeros, or
        without region, do not count.
    """
    check(reference, image)
    tops = list(peaks(reference, peak))
    if peak == "slice":
        inside = [None if region is None else region[number : number + 1] for number in range(len(reference))]
        parts = [(reference[n : n + 1], image[n : n + 1], inside[n], top) for n, top in enumerate(tops)]
        counted = [psnr(r, i, m, top) for r, i, m, top in parts if top > 0 and (m is None or m.any())]
        return float(np.mean(counted)) if counted else float("nan")
    difference = (image - reference) if region is None else (image - reference)[region]
    error = float(np.mean(difference.astype(np.float64) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(tops[0] ** 2 / error))


def nmse(reference: Volume, image: Volume, region: Region = None) -> float:
    """Return ``|image - reference|^2 / |reference|^2``; parameters as of `psnr`."""
    check(reference, image)
    r, i = (reference, image) if region is None else (reference[region], image[region])
    return _energy((i - r).astype(np.float64)) / _energy(r.astype(np.float64))


def hfen(reference: Volume, image: Volume, region: Region = None) -> float:
    """Return the high-frequency error norm, ``|LoG(image - reference)| / |LoG(reference)|``, over the volume.

    LoG is the Laplacian of a Gaussian, 15 x 15 pixels with a standard deviation of 1.5, slice by slice (Ravishankar and
    Bresler 2011, doi:10.1109/TMI.2010.2090538, there without the denominator); zeros beyond the border. Parameters as
    of `psnr`. NaN where the reference has no edges.
    """
    check(reference, image)
    error = size = 0.0
    for number in range(len(reference)):
        truth = reference[number].astype(np.float64)
        edges, wrong = _log(truth), _log(image[number] - truth)
        inside = slice(None) if region is None else region[number]
        error, size = error + _energy(wrong[inside]), size + _energy(edges[inside])
    return float(np.sqrt(error / size)) if size else float("nan")


def _log(plane: np.ndarray) -> np.ndarray:
    """Filter by the Laplacian of a Gaussian, whose taps sum to zero: a sum of separable filters."""
    x = np.arange(LOG_SIZE) - LOG_SIZE // 2
    gauss = np.exp(-(x**2) / (2 * LOG_SIGMA**2))
    gauss /= gauss.sum()
    curve = gauss * (x**2 - LOG_SIGMA**2) / LOG_SIGMA**4
    flat = np.full(LOG_SIZE, np.sqrt(2 * abs(curve.sum())) / LOG_SIZE)
    total = -np.sign(curve.sum()) * _separable(plane, flat, flat)
    return np.asarray(total + _separable(plane, curve, gauss) + _separable(plane, gauss, curve))


def _separable(plane: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.asarray(correlate1d(correlate1d(plane, rows, 0, mode="constant"), columns, 1, mode="constant"))


def difference_map(
    reference: np.ndarray, image: np.ndarray, factor: float = 5, peak: float | None = None
) -> np.ndarray:
    """Return ``factor |image - reference| / peak``, cut at 1: one means an error of ``peak / factor`` or more.

    Parameters
    ----------
    reference, image
        Magnitudes of one shape.
    factor
        How much errors are enlarged.
    peak
        By default the maximum of the reference.
    """
    check(reference, image)
    top = float(reference.max()) if peak is None else peak
    return np.minimum(np.abs(image - reference) * (factor / top if top else 0.0), 1)


def _energy(values: np.ndarray) -> float:
    """Return the sum of squares; `numpy.linalg.norm` adds up in an order that depends on the number of threads."""
    return float(np.sum(values**2))


def least_squares_scale(reference: Volume, image: Volume) -> float:
    """Return the factor on the image that minimises the squared error."""
    energy = float(np.sum(image.astype(np.float64) ** 2))
    return float(np.sum(reference.astype(np.float64) * image)) / energy if energy else 1.0
