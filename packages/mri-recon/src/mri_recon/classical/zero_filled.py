"""Zero-filled reconstruction: the adjoint, or the root sum of squares of the coil images."""

from jaxtyping import Shaped
from torch import Tensor

from mri_recon.physics import combine, ifft2c, root_sum_of_squares
from mri_recon.types import Kspace, Maps

__all__ = ["zero_filled"]


def zero_filled(kspace: Kspace, maps: Maps | None = None) -> Shaped[Tensor, "*batch y x"]:
    """Transform k-space as it is, zeros where nothing was sampled, and combine the coils.

    Parameters
    ----------
    kspace
        (..., coil, ky, kx).
    maps
        (..., map, coil, y, x): matched-filter combination with the first map set, complex. None: root sum of squares,
        real.

    Returns
    -------
    Tensor
        (..., y, x).
    """
    coil_images = ifft2c(kspace)
    return root_sum_of_squares(coil_images) if maps is None else combine(coil_images, maps)[..., 0, :, :]
