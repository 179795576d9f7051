r"""Inati: coil sensitivities and combined image, each smooth with respect to the other (Inati 2014, ISMRM 22, p. 4407).

.. math:: \rho = \sum_c \overline{s_c}\, x_c, \qquad s_c \leftarrow \mathrm{box}(\overline{\rho}\, x_c) / \|\cdot\|

Alternating these is a power iteration with the local covariance of Walsh, whose matrices are never formed: the memory
is that of a few copies of the coil images, whatever the number of coils. The phase of the maps comes out smooth.
"""

import torch
from jaxtyping import Complex
from pydantic import Field
from torch import Tensor

from mri_recon.calibration.low_resolution import CalibrationConfig, coil_images, reference_phase, unit_maps
from mri_recon.physics import root_sum_of_squares

__all__ = ["InatiConfig", "inati", "inati_maps"]


class InatiConfig(CalibrationConfig):
    """Parameters of `inati`."""

    width: int = Field(default=5, ge=1, description="of the box over which the maps are averaged, in pixels")
    iterations: int = Field(default=10, ge=1, description="of image and maps, at most")
    tolerance: float = Field(default=1e-3, gt=0, description="stop when the image changes by less, relative to it")


def inati(
    calibration: Complex[Tensor, "coil cy cx"], shape: tuple[int, int], config: InatiConfig | None = None
) -> Complex[Tensor, "1 coil y x"]:
    """Estimate coil sensitivities of one slice; see `mri_recon.calibration.low_resolution.low_resolution`."""
    config = config or InatiConfig()
    images = coil_images(calibration, shape)
    maps = inati_maps(images, config.width, config.iterations, config.tolerance)
    return unit_maps(maps, images, config.support)


def inati_maps(
    images: Complex[Tensor, "coil y x"], width: int = 5, iterations: int = 10, tolerance: float = 1e-3
) -> Complex[Tensor, "coil y x"]:
    """Return maps of norm one over coils, zero where all coil images are.

    Parameters
    ----------
    images
        Coil images of any resolution.
    width
        Of the box, pixels.
    iterations, tolerance
        At most so many; stop when the image changes by less, relative to its norm.
    """
    tiny = torch.finfo(images.real.dtype).tiny
    images = images / images.abs().max().clamp_min(tiny)
    combined = root_sum_of_squares(images) / reference_phase(images)
    maps = images
    for _ in range(iterations):
        maps = _box(combined.conj() * images, width)
        maps = maps / root_sum_of_squares(maps).clamp_min(tiny)
        # The phase of image and maps is free: that of the strongest virtual coil stays in the image.
        maps = maps * reference_phase(maps)
        previous, combined = combined, (maps.conj() * images).sum(dim=0)
        change = torch.linalg.vector_norm(combined.abs() - previous.abs())
        if change <= tolerance * torch.linalg.vector_norm(combined):
            break
    return maps


def _box(images: Tensor, width: int) -> Tensor:
    before, after = (width - 1) // 2, width // 2
    parts = torch.view_as_real(images).movedim(-1, 0)
    parts = torch.nn.functional.pad(parts, (before, after, before, after))
    parts = torch.nn.functional.avg_pool2d(parts, (width, 1), 1)
    return torch.complex(*torch.nn.functional.avg_pool2d(parts, (1, width), 1).unbind(0))
