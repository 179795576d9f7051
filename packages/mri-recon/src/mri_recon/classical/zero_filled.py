"""Zero-filled reconstruction: the adjoint, or the root sum of squares of the coil images."""

from jaxtyping import Shaped
from torch import Tensor

from mri_io.config import Config
from mri_recon.classical.kernels import check_input, check_maps
from mri_recon.classical.result import Reconstruction
from mri_recon.physics import combine, ifft2c, root_sum_of_squares
from mri_recon.types import Kspace, Maps, Mask

__all__ = ["ZeroFilledConfig", "reconstruct_zero_filled", "zero_filled"]


class ZeroFilledConfig(Config):
    """Zero-filled reconstruction has nothing to choose."""


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

    Raises
    ------
    ShapeError
        When the maps are not for these coils and this matrix.
    """
    check_maps(kspace, maps, "zero-filled")
    coil_images = ifft2c(kspace)
    return root_sum_of_squares(coil_images) if maps is None else combine(coil_images, maps)[..., 0, :, :]


def reconstruct_zero_filled(kspace: Kspace, mask: Mask, maps: Maps | None = None) -> Reconstruction:
    """Return `zero_filled` as the other methods return theirs: with several map sets one image for each.

    Raises
    ------
    ShapeError
        When mask or maps do not fit.
    ConfigError
        When nothing is sampled, or k-space has values that are not finite.
    """
    check_input(kspace, mask, "zero-filled", maps)
    coil_images = ifft2c(kspace * (mask != 0))
    if maps is None:
        return Reconstruction(root_sum_of_squares(coil_images))
    images = combine(coil_images, maps)
    return Reconstruction(images[..., 0, :, :] if maps.shape[-4] == 1 else images)
