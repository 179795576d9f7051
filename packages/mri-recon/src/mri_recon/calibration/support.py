"""Where there is an object: masks from low-resolution images, for the maps of any method.

The support matters more than the method: maps outside of the object give noise a place to go.
"""

import torch
from jaxtyping import Bool, Complex
from torch import Tensor

from mri_recon.physics import root_sum_of_squares

__all__ = ["apply_support", "low_resolution_support"]


def low_resolution_support(
    images: Complex[Tensor, "*batch coil y x"], threshold: float = 0.05, *, margin: int = 1
) -> Bool[Tensor, "*batch y x"]:
    """Return where the root sum of squares exceeds a share of its maximum, holes of the size of a margin closed.

    Parameters
    ----------
    images
        Low-resolution coil images; see `mri_recon.calibration.low_resolution.coil_images`.
    threshold
        Relative to the 99.5 % quantile, which one bright vessel does not change.
    margin
        Pixels by which the mask is grown.
    """
    magnitude = root_sum_of_squares(images)
    # kthvalue, since quantile refuses more than 2^24 elements.
    flat = magnitude.flatten(-2)
    level = flat.kthvalue(max(1, int(0.995 * flat.shape[-1])), dim=-1).values[..., None, None]
    inside = (magnitude > threshold * level).to(magnitude.dtype)
    if margin:
        planes = inside.reshape(-1, 1, *inside.shape[-2:])
        planes = torch.nn.functional.max_pool2d(planes, 2 * margin + 1, 1, margin)
        inside = planes.reshape(inside.shape)
    return inside > 0


def apply_support(
    maps: Complex[Tensor, "*batch map coil y x"], support: Bool[Tensor, "*batch y x"]
) -> Complex[Tensor, "*batch map coil y x"]:
    """Return maps that are zero outside of the support."""
    return maps * support[..., None, None, :, :]
