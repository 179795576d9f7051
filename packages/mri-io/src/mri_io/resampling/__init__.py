"""Images, maps and labels on the grid of another image, or with other voxel sizes."""

from mri_io.resampling.cohort import ResampleConfig, resample
from mri_io.resampling.grids import Grid, parse_spacing, spaced_grid
from mri_io.resampling.images import resampled_image
from mri_io.resampling.labels import resampled_labels

__all__ = ["Grid", "ResampleConfig", "parse_spacing", "resample", "resampled_image", "resampled_labels", "spaced_grid"]
