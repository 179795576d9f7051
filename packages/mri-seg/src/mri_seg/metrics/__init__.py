"""Overlap and surface distance of label maps, per class and volume."""

from mri_seg.metrics.overlap import dice, iou
from mri_seg.metrics.surface import average_surface_distance, hausdorff95, surface_distances
from mri_seg.metrics.volume import METRICS, volume_metrics

__all__ = [
    "METRICS",
    "average_surface_distance",
    "dice",
    "hausdorff95",
    "iou",
    "surface_distances",
    "volume_metrics",
]
