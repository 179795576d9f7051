"""Image metrics as fastMRI defines them: on magnitudes, over a volume, with the volume's maximum as the peak.

Zbontar et al. 2018, arXiv:1811.08839, section 5. NMSE and PSNR are over the whole volume; SSIM (Wang et al. 2004,
doi:10.1109/TIP.2003.819861) is averaged over slices, with a uniform window of 7 pixels, K1 = 0.01, K2 = 0.03 and
sample covariances, the defaults of scikit-image.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import uniform_filter

from mri_recon.errors import ShapeError

__all__ = ["METRICS", "least_squares_scale", "nmse", "psnr", "ssim"]

METRICS: dict[str, dict[str, str]] = {
    "psnr": {"unit": "dB", "better": "higher", "description": "peak signal-to-noise ratio, peak: volume maximum"},
    "ssim": {"unit": "", "better": "higher", "description": "structural similarity, mean over slices"},
    "nmse": {"unit": "", "better": "lower", "description": "squared error over squared norm of the reference"},
}

WINDOW, K1, K2 = 7, 0.01, 0.03

Volume = Float[np.ndarray, "slice y x"]
Region = Bool[np.ndarray, "slice y x"] | None


def _check(reference: np.ndarray, image: np.ndarray) -> None:
    if reference.shape != image.shape:
        raise ShapeError(f"metrics: expected an image of the reference's shape {reference.shape}, got {image.shape}.")


def psnr(reference: Volume, image: Volume, region: Region = None, peak: float | None = None) -> float:
    """Return ``20 log10(peak / rmse)`` in dB.

    Parameters
    ----------
    reference, image
        Magnitudes (slice, y, x).
    region
        Where the error is measured; None for everywhere.
    peak
        By default the maximum of the whole reference.
    """
    _check(reference, image)
    difference = (image - reference) if region is None else (image - reference)[region]
    error = float(np.mean(difference.astype(np.float64) ** 2))
    top = float(reference.max()) if peak is None else peak
    return float("inf") if error == 0 else 10 * float(np.log10(top**2 / error))


def nmse(reference: Volume, image: Volume, region: Region = None) -> float:
    """Return ``|image - reference|^2 / |reference|^2``; parameters as of `psnr`."""
    _check(reference, image)
    r, i = (reference, image) if region is None else (reference[region], image[region])
    return _energy((i - r).astype(np.float64)) / _energy(r.astype(np.float64))


def _energy(values: np.ndarray) -> float:
    """Return the sum of squares; `numpy.linalg.norm` adds up in an order that depends on the number of threads."""
    return float(np.sum(values**2))


def ssim(reference: Volume, image: Volume, region: Region = None, peak: float | None = None) -> float:
    """Return the structural similarity, averaged over slices; parameters as of `psnr`.

    Within a region the local similarities of its pixels are averaged. Without one the border of half a window is left
    out, as scikit-image does.
    """
    _check(reference, image)
    top = float(reference.max()) if peak is None else peak
    values = []
    for number in range(len(reference)):
        local = _local_similarity(reference[number].astype(np.float64), image[number].astype(np.float64), top)
        pad = WINDOW // 2
        inner = local[pad:-pad, pad:-pad]
        if region is None:
            values.append(inner.mean())
        elif region[number].any():
            values.append(local[region[number]].mean())
    return float(np.mean(values))


def _local_similarity(reference: np.ndarray, image: np.ndarray, peak: float) -> np.ndarray:
    if min(reference.shape) < WINDOW:
        raise ShapeError(f"ssim: expected slices of at least {WINDOW} x {WINDOW}, got {reference.shape}.")
    sample = WINDOW**2 / (WINDOW**2 - 1)
    mean_r, mean_i = uniform_filter(reference, WINDOW), uniform_filter(image, WINDOW)
    var_r = sample * (uniform_filter(reference**2, WINDOW) - mean_r**2)
    var_i = sample * (uniform_filter(image**2, WINDOW) - mean_i**2)
    cov = sample * (uniform_filter(reference * image, WINDOW) - mean_r * mean_i)
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    numerator = (2 * mean_r * mean_i + c1) * (2 * cov + c2)
    return np.asarray(numerator / ((mean_r**2 + mean_i**2 + c1) * (var_r + var_i + c2)))


def least_squares_scale(reference: Volume, image: Volume) -> float:
    """Return the factor on the image that minimises the squared error."""
    energy = float(np.sum(image.astype(np.float64) ** 2))
    return float(np.sum(reference.astype(np.float64) * image)) / energy if energy else 1.0
