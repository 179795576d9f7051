r"""Walsh: coil sensitivities as leading eigenvectors of the local covariance of coil images.

Walsh 2000, doi:10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G.

.. math:: R(r) = \sum_{r' \in \mathrm{box}(r)} x(r')\, x(r')^H, \qquad R(r)\, s(r) = \lambda_1 s(r)

The box filter is separable, and neighbours are similar, so a few products find the eigenvector.
"""

import torch
from jaxtyping import Complex
from pydantic import Field
from torch import Tensor

from mri_recon.calibration.leading import leading_eigenvectors
from mri_recon.calibration.low_resolution import CalibrationConfig, coil_images, reference_phase, unit_maps

__all__ = ["WalshConfig", "walsh", "walsh_maps"]

_BLOCK_BYTES = 16 * 2**20
_DARK = 0.02
"""Pixels darker than this share of the brightest have no direction but the noise's, on which no time is spent."""


class WalshConfig(CalibrationConfig):
    """Parameters of `walsh`."""

    width: int = Field(default=5, ge=1, description="of the box over which the covariance is averaged, in pixels")


def walsh(
    calibration: Complex[Tensor, "coil cy cx"], shape: tuple[int, int], config: WalshConfig | None = None
) -> Complex[Tensor, "1 coil y x"]:
    """Estimate coil sensitivities of one slice; see `mri_recon.calibration.low_resolution.low_resolution`."""
    config = config or WalshConfig()
    images = coil_images(calibration, shape)
    maps = walsh_maps(images, config.width)
    return unit_maps(maps * reference_phase(maps), images, config.support)


def walsh_maps(images: Complex[Tensor, "coil y x"], width: int = 5) -> Complex[Tensor, "coil y x"]:
    """Return the leading eigenvectors of the local covariance of coil images, of norm one and of any phase.

    Parameters
    ----------
    images
        Coil images of any resolution.
    width
        Of the box, pixels; at the edge of the image it is smaller.

    Returns
    -------
    Tensor
        (coil, y, x). Where the box holds less than 2 % of the largest coil image, the vector is that of two products
        with the covariance, which may not have converged.
    """
    coils, height, columns = images.shape
    before, after = (width - 1) // 2, width // 2
    scale = images.abs().max().clamp_min(torch.finfo(images.real.dtype).tiny)
    padded = torch.nn.functional.pad(images / scale, (before, after, before, after)).permute(1, 2, 0)
    rows = max(1, _BLOCK_BYTES // (coils * coils * columns * images.element_size()))
    maps = torch.empty_like(images)
    floor = (_DARK * width) ** 2
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        part = padded[top : bottom + width - 1]
        covariance = _box(part[..., :, None] * part[..., None, :].conj(), width).reshape(-1, coils, coils)
        # A column of the covariance is a good start: one product from a unit vector, never zero where there is signal.
        strongest = covariance.diagonal(dim1=1, dim2=2).real.argmax(dim=1)
        column = covariance.gather(2, strongest[:, None, None].expand(-1, coils, 1))
        _, leading = leading_eigenvectors(covariance, column, floor=floor, tolerance=3e-3)
        maps[:, top:bottom] = leading[..., 0].mT.reshape(coils, bottom - top, columns)
    return maps


def _box(values: Tensor, width: int) -> Tensor:
    """Sum over squares of the first two axes, "valid"."""
    for axis in (0, 1):
        length = values.shape[axis] - width + 1
        total = values.narrow(axis, 0, length).clone()
        for shift in range(1, width):
            total += values.narrow(axis, shift, length)
        values = total
    return values
