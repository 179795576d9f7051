"""Classical reconstructions: zero-filled and CG-SENSE."""

from mri_recon.classical.cg_sense import CgSenseConfig, cg_sense
from mri_recon.classical.result import Reconstruction
from mri_recon.classical.zero_filled import zero_filled

__all__ = ["CgSenseConfig", "Reconstruction", "cg_sense", "zero_filled"]
