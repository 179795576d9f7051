"""Reconstruction networks: pure modules ``(kspace, mask, maps) -> ReconOutput``."""

from mri_recon.networks.builder import build_network
from mri_recon.networks.output import ReconOutput
from mri_recon.networks.unet import NormUnet, Unet
from mri_recon.networks.varnet import VarNet

__all__ = ["NormUnet", "ReconOutput", "Unet", "VarNet", "build_network"]
