"""Classical reconstructions."""

from mri_recon.classical.cg_sense import CgSenseConfig, cg_sense
from mri_recon.classical.result import Reconstruction
from mri_recon.classical.total_variation import TotalVariationConfig, total_variation
from mri_recon.classical.wavelet import WaveletConfig, wavelet
from mri_recon.classical.zero_filled import ZeroFilledConfig, zero_filled

__all__ = [
    "CgSenseConfig",
    "Reconstruction",
    "TotalVariationConfig",
    "WaveletConfig",
    "ZeroFilledConfig",
    "cg_sense",
    "total_variation",
    "wavelet",
    "zero_filled",
]
