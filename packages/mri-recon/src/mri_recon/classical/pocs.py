r"""Partial Fourier by projection onto convex sets (Haacke 1991, doi:10.1016/0022-2364(91)90253-P).

Two sets in turn: images with the phase of the low-resolution image, and images whose k-space is as acquired,

.. math:: x \leftarrow \mathrm{Re}(x e^{-i \phi}) e^{i \phi}, \qquad
          x \leftarrow F^{-1} ( M y + (1 - M) F x )

Acquired samples are kept exactly, so errors of the phase estimate reach only the missing side. What was completed there
is as good as its phase and its noise let it be, often worse than zeros. So it is multiplied by the factor that fits
best where it can be seen: an outer quarter of the short side is hidden, completed the same way, and compared with what
was measured there.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_recon.classical.kernels import check_input, image_combination, unit_scale
from mri_recon.classical.partial_fourier import PartialFourier, low_resolution, with_phase_of
from mri_recon.classical.result import Reconstruction, plain
from mri_recon.classical.solvers.batched import divide
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
    trust: float | None = Field(default=None, ge=0, le=1, description="factor on what is completed; null: found")


def pocs(
    kspace: Kspace,
    mask: Mask,
    maps: Maps | None = None,
    *,
    axis: int | None = None,
    iterations: int = 30,
    tolerance: float = 1e-3,
    trust: float | None = None,
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
    trust
        Factor from 0 to 1 on the missing side as completed: 1 is the published method. None: found per batch element,
        0 where the short side has a single position, of which nothing can be hidden.

    Returns
    -------
    Reconstruction
        Its residual is that share, the largest of the batch; settings: axis, run of positions acquired, and the trust.

    Raises
    ------
    ConfigError
        When the pattern is not partial Fourier along one axis, there are no iterations, or a parameter is out of range.
    """
    if iterations < 1 or tolerance < 0 or not (trust is None or 0 <= trust <= 1):
        raise ConfigError(
            "pocs: expected iterations >= 1, tolerance >= 0 and 0 <= trust <= 1, "
            f"got {iterations}, {tolerance}, {trust}."
        )
    part = PartialFourier.of(check_input(kspace, mask, "pocs", maps), axis, "pocs")
    other = -1 if part.axis == -2 else -2
    scale = unit_scale(kspace)
    # What was sampled along the other axis is the same everywhere, so that axis can stay transformed.
    data = ifft1c(kspace / scale * (mask != 0), other)
    limits = iterations, tolerance
    image, done, residual, met = _complete(data, part, maps, *limits)
    start = ifft1c(data, part.axis)
    factor = torch.full_like(scale, 0.0 if trust is None else trust)
    if trust is None and (fewer := part.without_ends()) is not None:
        factor = _trust(data, part, fewer, maps, limits)
    image = start + factor * (image - start)
    settings = {"axis": part.axis, "acquired": (part.low, part.high), "trust": plain(factor)}
    reason = "converged" if met else "iterations"
    return Reconstruction(image_combination(image * scale, maps), done, residual, reason, settings)


def _complete(
    data: Tensor, part: PartialFourier, maps: Maps | None, iterations: int, tolerance: float
) -> tuple[Tensor, int, float, bool]:
    """Return the coil images, iterations, residual, and whether all converged; `data` is k-space along one axis."""
    low = low_resolution(data, part)
    inverse = None if maps is None else _inverse_gram(maps)
    low = low if maps is None else combine(low, maps)
    acquired = part.along(part.acquired(data.device), data)
    data = data * acquired
    image = ifft1c(data, part.axis)
    residual = torch.full_like(_norm(image), torch.inf)
    active, done = residual > 0, 0
    while done < iterations and bool(active.any()):
        if maps is None:
            constrained = with_phase_of(image, low)
        else:
            constrained = expand(with_phase_of(_least_squares(image, maps, inverse), low), maps)
        fresh = ifft1c(torch.where(acquired > 0, data, fft1c(constrained, part.axis)), part.axis)
        residual = torch.where(active, divide(_norm(fresh - image), _norm(fresh)), residual)
        image = torch.where(active, fresh, image)
        active = active & (residual > tolerance)
        done += 1
    return image, done, float(residual.max()), not bool(active.any())


def _inverse_gram(maps: Maps) -> Tensor:
    """Return the inverse of ``S^H S`` per pixel, (..., map, map, y, x), zero where no coil sees anything.

    Maps of norm one need it not; with others the combination would not be a projection, and the iteration would grow.
    """
    if maps.shape[-4] == 1:
        power = torch.view_as_real(maps).square().sum(dim=(-4, -1))[..., None, :, :]
        return divide(torch.ones_like(power), power).to(maps.dtype)
    gram = torch.einsum("...mcyx,...ncyx->...yxmn", maps.conj(), maps)
    return torch.linalg.pinv(gram, hermitian=True, rtol=1e-4).movedim((-2, -1), (-4, -3))


def _least_squares(images: Tensor, maps: Maps, inverse: Tensor | None) -> Tensor:
    """Return the images (..., map, y, x) whose coil images are nearest."""
    assert inverse is not None
    return torch.einsum("...mnyx,...nyx->...myx", inverse, combine(images, maps))


def _trust(
    data: Tensor, part: PartialFourier, fewer: PartialFourier, maps: Maps | None, limits: tuple[int, float]
) -> Tensor:
    """Return the factor on completed positions that fits those best which `part` has and `fewer` has not."""
    completed, *_ = _complete(data, fewer, maps, *limits)
    hidden = part.along(part.acquired(data.device) - fewer.acquired(data.device), data)
    guess = fft1c(completed, part.axis) * hidden
    dims = (-3, -2, -1)
    fit = (guess.conj() * data).real.sum(dim=dims, keepdim=True)
    return divide(fit, guess.abs().square().sum(dim=dims, keepdim=True)).clamp(0, 1)


def _norm(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values, dim=(-3, -2, -1), keepdim=True)
