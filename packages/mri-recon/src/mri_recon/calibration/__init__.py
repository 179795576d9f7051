"""Coil sensitivities from the centre of k-space."""

from mri_recon.calibration.espirit import EspiritConfig, espirit

__all__ = ["EspiritConfig", "espirit"]
