r"""The coil operator: sensitivities times image, and its adjoint, for one or several map sets.

.. math:: (S x)_c = \sum_m s_{m c} x_m, \qquad (S^H y)_m = \sum_c \overline{s_{m c}} y_c
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

__all__ = ["combine", "expand", "root_sum_of_squares"]


def expand(
    images: Complex[Tensor, "*batch map y x"], maps: Complex[Tensor, "*batch map coil y x"]
) -> Complex[Tensor, "*batch coil y x"]:
    """Return the coil images of one image per map set."""
    if maps.shape[-4] == 1:
        return maps[..., 0, :, :, :] * images
    return (maps * images.unsqueeze(-3)).sum(dim=-4)


def combine(
    coil_images: Complex[Tensor, "*batch coil y x"], maps: Complex[Tensor, "*batch map coil y x"]
) -> Complex[Tensor, "*batch map y x"]:
    """Return the matched-filter combination per map set, the adjoint of `expand`."""
    return (maps.conj() * coil_images.unsqueeze(-4)).sum(dim=-3)


def root_sum_of_squares(coil_images: Complex[Tensor, "*batch coil y x"]) -> Float[Tensor, "*batch y x"]:
    """Return the root of the sum of squares over coils (Roemer 1990, doi:10.1002/mrm.1910160203)."""
    return torch.view_as_real(coil_images).square().sum(dim=(-4, -1)).sqrt()
