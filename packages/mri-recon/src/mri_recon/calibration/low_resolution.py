r"""Low-resolution maps: images of the windowed centre of k-space, divided by their root sum of squares.

.. math:: s_c = x_c / \sqrt{\textstyle\sum_j |x_j|^2}, \qquad x_c = F^H (w\, y_c)

McKenzie 2002 (doi:10.1002/mrm.10087). The phase is that of the strongest virtual coil, so that the image keeps the rest
of its phase. Quick and without anything to choose; wrong where the image varies within a low-resolution pixel.
"""

import torch
from jaxtyping import Complex, Float
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_recon.calibration.support import low_resolution_support
from mri_recon.errors import ConfigError
from mri_recon.physics import ifft2c, root_sum_of_squares

__all__ = ["CalibrationConfig", "LowResolutionConfig", "coil_images", "low_resolution", "reference_phase", "unit_maps"]


class CalibrationConfig(Config):
    """What the methods that work on low-resolution images have in common."""

    calibration: int = Field(default=24, ge=4, description="largest width of the calibration region")
    support: float = Field(
        default=0.05, ge=0, lt=1, description="maps are zero where the low-resolution image is below, of its maximum"
    )


class LowResolutionConfig(CalibrationConfig):
    """Parameters of `low_resolution`."""


def low_resolution(
    calibration: Complex[Tensor, "coil cy cx"], shape: tuple[int, int], config: LowResolutionConfig | None = None
) -> Complex[Tensor, "1 coil y x"]:
    """Estimate coil sensitivities of one slice from its low-resolution images.

    Parameters
    ----------
    calibration
        Fully sampled centre of k-space.
    shape
        Grid (y, x) of the maps.
    config
        Parameters; by default `LowResolutionConfig()`.

    Returns
    -------
    Tensor
        (1, coil, y, x); over the coils of norm one inside the support, zero outside.

    Raises
    ------
    ConfigError
        When the calibration region is zero or not finite.
    """
    config = config or LowResolutionConfig()
    images = coil_images(calibration, shape)
    return unit_maps(images * reference_phase(images), images, config.support)


def coil_images(calibration: Complex[Tensor, "coil cy cx"], shape: tuple[int, int]) -> Complex[Tensor, "coil y x"]:
    """Return images of the centre of k-space, with a Hann window against ringing, scaled to a maximum of one.

    Raises
    ------
    ConfigError
        When the calibration region is zero or not finite.
    """
    scale = torch.view_as_real(calibration).abs().max()
    if not torch.isfinite(scale):
        raise ConfigError("calibration: expected finite values, found NaN or infinity. Repair the k-space.")
    if scale == 0:
        raise ConfigError("calibration: the calibration region is all zero.")
    windowed = calibration / scale
    top = []
    for axis, (width, length) in enumerate(zip(calibration.shape[-2:], shape, strict=True)):
        # A fully sampled axis is not cut off, so it needs no window.
        position = (torch.arange(width, device=calibration.device) - width // 2) / (width / 2 + 1)
        window = torch.ones_like(position) if width == length else torch.cos(torch.pi / 2 * position).square()
        windowed = windowed * (window[:, None] if axis == 0 else window)
        top.append(length // 2 - width // 2)
    padded = calibration.new_zeros((calibration.shape[0], *shape))
    padded[:, top[0] : top[0] + calibration.shape[1], top[1] : top[1] + calibration.shape[2]] = windowed
    images = ifft2c(padded)
    return images / images.abs().max()


def reference_phase(images: Complex[Tensor, "coil y x"]) -> Complex[Tensor, "y x"]:
    """Return the factor of modulus one that makes the strongest virtual coil real."""
    data = images.flatten(1)
    strongest = torch.linalg.eigh(data @ data.mH)[1][:, -1]
    strongest = strongest * torch.exp(-1j * strongest[strongest.abs().argmax()].angle())
    return torch.exp(-1j * torch.einsum("c,cyx->yx", strongest.conj(), images).angle())


def unit_maps(
    maps: Complex[Tensor, "coil y x"], images: Complex[Tensor, "coil y x"], threshold: float
) -> Complex[Tensor, "1 coil y x"]:
    """Return maps of norm one over coils in the support of low-resolution images, zero outside."""
    norm: Float[Tensor, "y x"] = root_sum_of_squares(maps)
    support = low_resolution_support(images, threshold) & (norm > 0)
    return torch.where(support, maps / norm.clamp_min(torch.finfo(norm.dtype).tiny), torch.zeros_like(maps))[None]
