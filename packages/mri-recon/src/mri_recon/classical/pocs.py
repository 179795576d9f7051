r"""Partial Fourier by projection onto convex sets (Haacke 1991, doi:10.1016/0022-2364(91)90253-P).

Two sets in turn: images with the phase of the low-resolution image, and images whose k-space is as acquired,

.. math:: x \leftarrow \mathrm{Re}(x e^{-i \phi}) e^{i \phi}, \qquad
          x \leftarrow F^{-1} ( M y + (1 - M) F x )

Acquired samples are kept exactly, so errors of the phase estimate reach only the missing side.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_recon.classical.kernels import check_input, image_combination, unit_scale
from mri_recon.classical.partial_fourier import PartialFourier, low_resolution, with_phase_of
from mri_recon.classical.result import Reconstruction
from mri_recon.errors import ConfigError
from mri_recon.physics.coils import combine, expand
from mri_recon.physics.fourier import fft1c, ifft1c
from mri_recon.types import Kspace, Maps, Mask

__all__ = ["PocsConfig", "pocs"]


class PocsConfig(Config):
    """Parameters of `pocs`."""

    axis: Literal[-2, -1] | None = Field(default=None, description="-2: ky, -1: kx; None: the one with a side missing")
    iterations: int = Field(default=30, ge=1, description="at most so many")
    tolerance: float = Field(default=1e-3, ge=0, description="relative change of the image at which to stop")


def pocs(
    kspace: Kspace,
    mask: Mask,
    maps: Maps | None = None,
    *,
    axis: int | None = None,
    iterations: int = 30,
    tolerance: float = 1e-3,
) -> Reconstruction:
    """Reconstruct partial Fourier k-space.

    With maps the phase is that of the combined image, which the missing side of every coil then follows.

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
    iterations
        At most so many.
    tolerance
        A slice stops when the norm of an iteration's change falls to this share of the image's.

    Returns
    -------
    Reconstruction
        Its residual is that share, the largest of the batch.

    Raises
    ------
    ConfigError
        When the pattern is not partial Fourier along one axis, or there are no iterations.
    """
    if iterations < 1 or tolerance < 0:
        raise ConfigError(f"pocs: expected iterations >= 1 and tolerance >= 0, got {iterations}, {tolerance}.")
    part = PartialFourier.of(check_input(kspace, mask, "pocs"), axis, "pocs")
    other = -1 if part.axis == -2 else -2
    scale = unit_scale(kspace)
    # What was sampled along the other axis is the same everywhere, so that axis can stay transformed.
    data = ifft1c(kspace / scale * (mask != 0), other)
    low = low_resolution(data, part)
    low = low if maps is None else combine(low, maps)
    acquired = part.along(part.acquired(kspace.device), data)
    image = ifft1c(data, part.axis)
    active = torch.ones_like(scale, dtype=torch.bool)
    done, residual = 0, torch.zeros_like(scale)
    while done < iterations and bool(active.any()):
        if maps is None:
            constrained = with_phase_of(image, low)
        else:
            constrained = expand(with_phase_of(combine(image, maps), low), maps)
        fresh = ifft1c(torch.where(acquired > 0, data, fft1c(constrained, part.axis)), part.axis)
        size = _norm(fresh)
        change = torch.where(size > 0, _norm(fresh - image) / torch.where(size > 0, size, torch.ones_like(size)), 0.0)
        image = torch.where(active, fresh, image)
        residual = torch.where(active, change, residual)
        active = active & (change > tolerance)
        done += 1
    settings = {"axis": part.axis, "acquired": (part.low, part.high)}
    reason = "iterations" if bool(active.any()) else "converged"
    return Reconstruction(image_combination(image * scale, maps), done, float(residual.max()), reason, settings)


def _norm(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values, dim=(-3, -2, -1), keepdim=True)
