"""Data sets of slices over a cohort, and where PyTorch computes (extra ``[torch]``)."""

from mri_io.torch.datasets import SliceDataset, as_tensor, collate_slices
from mri_io.torch.devices import check_device
from mri_io.torch.samplers import StepSampler

__all__ = ["SliceDataset", "StepSampler", "as_tensor", "check_device", "collate_slices"]
