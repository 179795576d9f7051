"""Coil sensitivities from the centre of k-space."""

from mri_recon.calibration.espirit import EspiritConfig, espirit, espirit_eigenmaps
from mri_recon.calibration.inati import InatiConfig, inati, inati_maps
from mri_recon.calibration.jsense import JsenseConfig, jsense
from mri_recon.calibration.low_resolution import LowResolutionConfig, low_resolution
from mri_recon.calibration.support import apply_support, low_resolution_support
from mri_recon.calibration.walsh import WalshConfig, walsh, walsh_maps

__all__ = [
    "EspiritConfig",
    "InatiConfig",
    "JsenseConfig",
    "LowResolutionConfig",
    "WalshConfig",
    "apply_support",
    "espirit",
    "espirit_eigenmaps",
    "inati",
    "inati_maps",
    "jsense",
    "low_resolution",
    "low_resolution_support",
    "walsh",
    "walsh_maps",
]
