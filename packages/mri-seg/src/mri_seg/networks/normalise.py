"""Intensity normalisation that depends on one image only, and lets gradients through."""

import torch

from mri_seg.types import ImageBatch

__all__ = ["normalise_images"]


def normalise_images(images: ImageBatch, eps: float = 1e-6) -> ImageBatch:
    """Scale each channel of each image to mean zero and standard deviation one.

    Parameters
    ----------
    images
        Magnitudes in any unit, (batch, channel, y, x).
    eps
        Smallest standard deviation relative to the mean magnitude; a constant image becomes zero.

    Returns
    -------
    Tensor
        Same shape. What else is in the batch has no influence.
    """
    mean = images.mean(dim=(-2, -1), keepdim=True)
    std = images.std(dim=(-2, -1), keepdim=True, correction=0)
    floor = eps * images.abs().mean(dim=(-2, -1), keepdim=True) + torch.finfo(images.dtype).tiny
    return (images - mean) / torch.maximum(std, floor)
