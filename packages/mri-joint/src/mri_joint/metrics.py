"""Focused metrics: the error of a reconstruction inside the region of the segmentation labels (Acar 2022).

The definitions are those of `mri_recon.metrics`, restricted to a region. The peak stays the maximum of the whole
reference, so that PSNR and focused PSNR share one scale.
"""

import numpy as np

from mri_joint.errors import ShapeError, expected_got
from mri_joint.types import ImageVolume, RegionVolume
from mri_recon.metrics import psnr, ssim

__all__ = ["METRICS", "focused_metrics", "image_metrics"]

METRICS: dict[str, dict[str, str]] = {
    "f_mse": {
        "unit": "",
        "better": "lower",
        "description": "mean squared error within the labels, relative to the squared peak of the reference",
    },
    "f_psnr": {"unit": "dB", "better": "higher", "description": "PSNR within the labels, peak: volume maximum"},
    "f_ssim": {"unit": "", "better": "higher", "description": "mean of local similarities within the labels"},
}


def focused_metrics(reference: ImageVolume, image: ImageVolume, region: RegionVolume) -> dict[str, float | None]:
    """Return F-MSE, F-PSNR and F-SSIM.

    Parameters
    ----------
    reference, image
        Magnitudes (slice, y, x).
    region
        True where any label other than background is, on the same grid.

    Returns
    -------
    dict
        ``f_mse``, ``f_psnr`` (dB) and ``f_ssim``; all None where the region is empty.

    Raises
    ------
    ShapeError
        When the grids differ.
    """
    if not reference.shape == image.shape == region.shape:
        raise ShapeError(
            expected_got("focused metrics", expected=reference.shape, got=f"{image.shape}, region {region.shape}")
        )
    if not region.any():
        return dict.fromkeys(METRICS)
    error = (image.astype(np.float64) - reference)[region] / float(reference.max())
    return {
        "f_mse": float(np.mean(error**2)),
        "f_psnr": psnr(reference, image, region),
        "f_ssim": ssim(reference, image, region),
    }


def image_metrics(reference: ImageVolume, image: ImageVolume, region: RegionVolume) -> dict[str, float | None]:
    """Return PSNR and SSIM of the whole volume and the focused metrics."""
    return {
        "psnr": psnr(reference, image),
        "ssim": ssim(reference, image),
        **focused_metrics(reference, image, region),
    }
