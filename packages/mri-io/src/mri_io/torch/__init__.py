"""Data sets of slices over a cohort, for PyTorch (extra ``[torch]``)."""

from mri_io.torch.datasets import SliceDataset, collate_slices
from mri_io.torch.samplers import StepSampler

__all__ = ["SliceDataset", "StepSampler", "collate_slices"]
