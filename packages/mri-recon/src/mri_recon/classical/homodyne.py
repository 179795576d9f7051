r"""Homodyne detection for partial Fourier data (Noll, Nishimura and Macovski 1991, doi:10.1109/42.79473).

The image is real but for a smooth phase, so its k-space is conjugate symmetric once the phase is taken away: what was
acquired on one side only counts twice, and the symmetric part in the middle once, with ramps at its ends (eq. 3):

.. math:: x = \mathrm{Re} \left( e^{-i \phi} F^{-1} W y \right) e^{i \phi}, \quad W(k) + W(-k) = 2

The phase is that of the symmetric part. The method is direct. What is out of phase is lost, at low frequencies, too:
where the phase is not smooth, `pocs` is better. The ramps are short, as wide ones multiply low frequencies, whose phase
error is the largest in absolute terms.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_recon.classical.kernels import check_input
from mri_recon.classical.partial_fourier import PartialFourier, low_resolution, with_phase_of
from mri_recon.classical.result import Reconstruction
from mri_recon.errors import ConfigError
from mri_recon.physics.coils import combine, root_sum_of_squares
from mri_recon.physics.fourier import ifft1c
from mri_recon.types import Kspace, Maps, Mask

__all__ = ["HomodyneConfig", "homodyne"]


class HomodyneConfig(Config):
    """Parameters of `homodyne`."""

    axis: Literal[-2, -1] | None = Field(default=None, description="-2: ky, -1: kx; None: the one with a side missing")
    ramp: float = Field(default=0.1, ge=0, le=1, description="share of each half of the symmetric part with a ramp")


def homodyne(
    kspace: Kspace, mask: Mask, maps: Maps | None = None, *, axis: int | None = None, ramp: float = 0.1
) -> Reconstruction:
    """Reconstruct partial Fourier k-space.

    With maps the coils are combined first: the phase of the combined image is much less noisy than that of one coil.

    Parameters
    ----------
    kspace
        (..., coil, ky, kx), a side of one axis missing, everything else sampled.
    mask
        Broadcastable to it; which axis and side were sampled is found from it.
    maps
        (..., map, coil, y, x): complex image. None: coil by coil, then the root sum of squares, real.
    axis
        -2 (ky) or -1 (kx, an asymmetric echo); None: the one with a side missing.
    ramp
        Share of each half of the symmetric part, at its end, over which the weights pass from 1 to 0 or 2; 0: a step.

    Returns
    -------
    Reconstruction
        Its settings say which axis and run of positions were acquired.

    Raises
    ------
    ConfigError
        When the pattern is not partial Fourier along one axis.
    """
    if not 0 <= ramp <= 1:
        raise ConfigError(f"homodyne: expected 0 <= ramp <= 1, got {ramp}.")
    part = PartialFourier.of(check_input(kspace, mask, "homodyne", maps), axis, "homodyne")
    other = -1 if part.axis == -2 else -2
    hybrid = ifft1c(kspace * (mask != 0), other)
    weights = homodyne_weights(part, ramp, kspace.device)
    images, low = ifft1c(hybrid * part.along(weights, hybrid), part.axis), low_resolution(hybrid, part)
    settings = {"axis": part.axis, "acquired": (part.low, part.high)}
    if maps is None:
        image = root_sum_of_squares(with_phase_of(images, low))
    else:
        image = with_phase_of(combine(images, maps), combine(low, maps))
        image = image[..., 0, :, :] if maps.shape[-4] == 1 else image
    return Reconstruction(image, reason="direct", settings=settings)


def homodyne_weights(part: PartialFourier, ramp: float, device: torch.device) -> Tensor:
    """Return W (length,): 2 on the side that was acquired whole, 0 on the other, 1 in the middle."""
    k = part.distance(device).double()
    width = max(ramp * part.half, 0.5)
    passed = ((k.abs() - (part.half + 0.5 - width)) / width).clamp(0, 1)
    weights = 1 + k.sign() * torch.sin(torch.pi / 2 * passed)
    # An even length has one frequency without a mirror image, -N / 2: it counts once.
    if part.length % 2 == 0:
        weights = torch.where(k.abs() == part.length // 2, torch.ones_like(weights), weights)
    return weights * part.acquired(device)
