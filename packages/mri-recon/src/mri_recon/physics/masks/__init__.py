"""Sampling masks, one family per file, by name in `MASKS`; see docs/reconstruction/masks.md for their pictures.

A mask is uint8, 1 where sampled: one value per line (line,), points (ky, kx), or lines of frames (frame, line). Each is
drawn from a seed; `acceleration` tells what it achieves.
"""

from mri_recon.physics.masks.calibration import calibration_region
from mri_recon.physics.masks.common import MaskSettings, acceleration
from mri_recon.physics.masks.gaussian import gaussian_2d_mask, gaussian_mask
from mri_recon.physics.masks.kt import kt_equispaced_mask, kt_gaussian_mask
from mri_recon.physics.masks.lattice import caipirinha_mask, equispaced_2d_mask
from mri_recon.physics.masks.lines import equispaced_fraction_mask, equispaced_mask, random_mask
from mri_recon.physics.masks.partial_fourier import partial_fourier
from mri_recon.physics.masks.poisson import poisson_mask, poisson_radius
from mri_recon.physics.masks.prospective import prospective_mask
from mri_recon.physics.masks.radial import radial_mask
from mri_recon.physics.masks.spiral import spiral_mask
from mri_recon.physics.masks.table import MASKS, MaskKind

__all__ = [
    "MASKS",
    "MaskKind",
    "MaskSettings",
    "acceleration",
    "caipirinha_mask",
    "calibration_region",
    "equispaced_2d_mask",
    "equispaced_fraction_mask",
    "equispaced_mask",
    "gaussian_2d_mask",
    "gaussian_mask",
    "kt_equispaced_mask",
    "kt_gaussian_mask",
    "partial_fourier",
    "poisson_mask",
    "poisson_radius",
    "prospective_mask",
    "radial_mask",
    "random_mask",
    "spiral_mask",
]
