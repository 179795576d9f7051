"""Transforms in which images are sparse."""

from mri_recon.classical.transforms.finite_differences import FiniteDifferences, SymmetricDifferences
from mri_recon.classical.transforms.wavelet_transform import WaveletTransform, daubechies

__all__ = ["FiniteDifferences", "SymmetricDifferences", "WaveletTransform", "daubechies"]
