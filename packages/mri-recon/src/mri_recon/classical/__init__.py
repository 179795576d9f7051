"""Classical reconstructions: zero-filled and CG-SENSE."""

from mri_recon.classical.cg_sense import CgResult, cg_sense
from mri_recon.classical.zero_filled import zero_filled

__all__ = ["CgResult", "cg_sense", "zero_filled"]
