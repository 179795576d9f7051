"""Segmentation networks: pure modules from images to label scores."""

from mri_seg.networks.builder import SegmentationNetwork, build_network, build_run_network
from mri_seg.networks.normalise import normalise_images

__all__ = ["SegmentationNetwork", "build_network", "build_run_network", "normalise_images"]
