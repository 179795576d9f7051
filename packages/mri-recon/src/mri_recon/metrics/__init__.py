"""Metrics of images: errors and similarity of magnitudes, and what a reconstruction does to noise.

NMSE and PSNR are over the whole volume, SSIM is averaged over slices, as fastMRI does (Zbontar et al. 2018,
arXiv:1811.08839, section 5).
"""

from mri_recon.metrics.image import Peak, difference_map, hfen, least_squares_scale, nmse, psnr
from mri_recon.metrics.noise import Replicas, pseudo_replicas, replica_gfactor, sense_gfactor
from mri_recon.metrics.similarity import ssim

__all__ = [
    "METRICS",
    "Peak",
    "Replicas",
    "difference_map",
    "hfen",
    "least_squares_scale",
    "nmse",
    "pseudo_replicas",
    "psnr",
    "replica_gfactor",
    "sense_gfactor",
    "ssim",
]

METRICS: dict[str, dict[str, str]] = {
    "psnr": {"unit": "dB", "better": "higher", "description": "peak signal-to-noise ratio, peak: volume maximum"},
    "ssim": {"unit": "", "better": "higher", "description": "structural similarity, mean over slices"},
    "nmse": {"unit": "", "better": "lower", "description": "squared error over squared norm of the reference"},
    "hfen": {"unit": "", "better": "lower", "description": "error of edges over edges of the reference"},
}
