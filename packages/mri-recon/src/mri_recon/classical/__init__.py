"""Classical reconstructions."""

from mri_recon.classical.cg_sense import CgSenseConfig, cg_sense
from mri_recon.classical.grappa import GrappaConfig, grappa, grappa_kspace
from mri_recon.classical.homodyne import HomodyneConfig, homodyne
from mri_recon.classical.low_rank import LowRankConfig, low_rank
from mri_recon.classical.pocs import PocsConfig, pocs
from mri_recon.classical.result import Reconstruction
from mri_recon.classical.spirit import SpiritConfig, spirit
from mri_recon.classical.total_variation import TotalVariationConfig, total_variation
from mri_recon.classical.wavelet import WaveletConfig, wavelet
from mri_recon.classical.zero_filled import ZeroFilledConfig, zero_filled

__all__ = [
    "CgSenseConfig",
    "GrappaConfig",
    "HomodyneConfig",
    "LowRankConfig",
    "PocsConfig",
    "Reconstruction",
    "SpiritConfig",
    "TotalVariationConfig",
    "WaveletConfig",
    "ZeroFilledConfig",
    "cg_sense",
    "grappa",
    "grappa_kspace",
    "homodyne",
    "low_rank",
    "pocs",
    "spirit",
    "total_variation",
    "wavelet",
    "zero_filled",
]
