r"""SPIRiT: k-space that its own kernels reproduce (Lustig and Pauly 2010, doi:10.1002/mrm.22428).

Every sample, of any coil, is a linear combination of all its neighbours in all coils, with weights from the calibration
region. With G that convolution, the missing samples u solve

.. math:: \min_u \| (G - 1)(y + D^T u) \|^2, \qquad \text{or softly} \qquad \min_x \| (G - 1) x \|^2 + w \|M x - y\|^2

by conjugate gradients. In image space G is a coil x coil matrix at each pixel, and all that the iterations need of it
is ``(G - 1)^H (G - 1)``. The weights of all coils come from one inverse of the regularised Gram matrix: the regression
of column t on the others is ``-P[s, t] / P[t, t]`` for ``P = (A^H A + lambda)^-1``; lambda as in `grappa`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Complex
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_recon.classical.kernels import (
    BLOCK_BYTES,
    calibration_data,
    check_calibration,
    check_input,
    coil_combination,
    gram_matrix,
    one_thread,
    unit_scale,
)
from mri_recon.classical.result import Reconstruction
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics.fourier import fft1c, fft2c, ifft1c, ifft2c
from mri_recon.physics.noise import noise_level
from mri_recon.types import Kspace, Maps, Mask

__all__ = ["SpiritConfig", "consistency_matrices", "spirit", "spirit_kspace"]


class SpiritConfig(Config):
    """Parameters of `spirit`."""

    kernel: tuple[int, int] = Field(default=(7, 7), description="positions of k-space along (ky, kx) of a kernel")
    regularisation: float = Field(
        default=1e-3, gt=0, description="Tikhonov weight of the calibration relative to the mean energy of the sources"
    )
    noise: float | None = Field(
        default=None, ge=0, description="standard deviation of the complex noise; None: from the edge of k-space"
    )
    data_weight: float | None = Field(
        default=None, gt=0, description="weight of the acquired samples; None: they are kept exactly"
    )
    iterations: int = Field(default=50, ge=1, description="at most so many")
    tolerance: float = Field(
        default=1e-3, ge=0, description="relative residual of the normal equations at which to stop"
    )


def spirit(
    kspace: Kspace,
    mask: Mask,
    maps: Maps | None = None,
    *,
    kernel: tuple[int, int] = (7, 7),
    regularisation: float = 1e-3,
    noise: float | Tensor | None = None,
    data_weight: float | None = None,
    iterations: int = 50,
    tolerance: float = 1e-3,
    calibration: Tensor | None = None,
) -> Reconstruction:
    """Fill k-space, transform, and combine the coils: by the maps, or by root sum of squares without them.

    Works for any Cartesian pattern with a sampled centre. Slices are done one by one: the memory is
    ``8 * coil^2 * y * x`` bytes for the matrices of one slice, and as much as five copies of its k-space.

    Parameters
    ----------
    kspace
        (..., coil, ky, kx), zero where not sampled.
    mask
        Broadcastable to it, one for all coils; each slice may have its own.
    maps
        (..., map, coil, y, x) or None.
    kernel
        Odd numbers of positions along (ky, kx).
    regularisation
        Tikhonov weight of the calibration relative to the mean energy of the sources.
    noise
        Standard deviation of the complex noise in units of k-space, a number or (..., 1, 1, 1); None: `noise_level`.
    data_weight
        Weight w of the acquired samples; None: they are kept exactly.
    iterations
        At most so many.
    tolerance
        Stop when the residual of the normal equations has fallen to this share of their right-hand side.
    calibration
        Fully sampled (coil, cy, cx) in the units of k-space, for all slices; None: the centre of k-space.

    Returns
    -------
    Reconstruction
        Iterations and residual are the largest of the batch.

    Raises
    ------
    ConfigError
        When the calibration region is smaller than the kernel, the mask samples nothing, or values are not finite.
    """
    sampled = check_input(kspace, mask, "spirit", maps)
    if min(kernel) < 1 or kernel[0] % 2 == 0 or kernel[1] % 2 == 0 or iterations < 1 or regularisation <= 0:
        raise ConfigError(
            f"spirit: expected a kernel of odd sizes, iterations >= 1 and regularisation > 0, got {kernel}, "
            f"{iterations}, {regularisation}."
        )
    if tolerance < 0 or not (data_weight is None or data_weight > 0):
        raise ConfigError(f"spirit: expected tolerance >= 0 and data_weight > 0, got {tolerance}, {data_weight}.")
    if calibration is not None:
        if calibration.shape[:-2] != kspace.shape[-3:-2]:
            raise ShapeError(
                f"spirit: expected calibration data of {kspace.shape[-3]} coils, (coil, cy, cx), "
                f"got {tuple(calibration.shape)}."
            )
        check_calibration(calibration, kernel, "spirit")
    flat = kspace.reshape(-1, *kspace.shape[-3:])
    level = noise_level(kspace, mask) if noise is None else torch.as_tensor(noise, device=kspace.device)
    levels = level.to(flat.real.dtype).expand(*kspace.shape[:-3], 1, 1, 1).reshape(-1)
    filled, done, residual = torch.empty_like(flat), 0, 0.0
    for index, pattern in enumerate(sampled.expand(len(flat), *sampled.shape[1:])):
        data = flat[index] * pattern
        scale = unit_scale(data)
        source = calibration_data(data, pattern, kernel, "spirit") if calibration is None else calibration
        gram, windows = gram_matrix(source / scale, kernel)
        extra = max(pattern.numel() - windows, 0) * float(levels[index] / scale) ** 2
        weights = _weights(gram, kernel, regularisation, extra).to(data.dtype)
        matrices = consistency_matrices(weights, (data.shape[-2], data.shape[-1]))
        x, steps, rest = spirit_kspace(data / scale, pattern, matrices, data_weight, iterations, tolerance)
        filled[index], done, residual = x * scale, max(done, steps), max(residual, rest)
    image = coil_combination(filled.reshape(kspace.shape), maps)
    return Reconstruction(image, done, residual, "converged" if residual <= tolerance else "iterations")


def _weights(gram: Tensor, kernel: tuple[int, int], regularisation: float, extra: float) -> Tensor:
    """Return the kernels (coil of target, height, width, coil of source), zero at the target itself."""
    height, width = kernel
    coils = len(gram) // (height * width)
    ridge = regularisation * float(gram.diagonal().real.mean()) + extra
    with one_thread():
        inverse = torch.linalg.inv(
            gram + (ridge if ridge > 0 else 1.0) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        )
    targets = (height // 2 * width + width // 2) * coils + torch.arange(coils, device=gram.device)
    columns = -inverse[:, targets] / inverse[targets, targets]
    columns[targets, torch.arange(coils, device=gram.device)] = 0
    return columns.T.reshape(coils, height, width, coils)


def consistency_matrices(
    weights: Complex[Tensor, "coil height width coil"], shape: tuple[int, int]
) -> Complex[Tensor, "coil coil y x"]:
    """Return ``(G - 1)^H (G - 1)`` in image space, for a grid (y, x); the largest array of the method."""

    def waves(size: int, length: int) -> Tensor:
        offset = torch.arange(size, device=weights.device) - size // 2
        place = torch.arange(length, device=weights.device) - length // 2
        phase = -2 * torch.pi * torch.outer(place, offset).double() / length
        return torch.polar(torch.ones_like(phase), phase).to(weights.dtype)

    y, x = waves(weights.shape[1], shape[0]), waves(weights.shape[2], shape[1])
    coils = len(weights)
    out = weights.new_empty((coils, coils, *shape))
    identity = torch.eye(coils, device=weights.device)
    step = max(1, BLOCK_BYTES // (4 * 8 * coils**2 * shape[1]))
    for top in range(0, shape[0], step):
        rows = torch.einsum("yh,ahwb->aybw", y[top : top + step], weights)
        matrices = torch.einsum("aybw,xw->yxab", rows, x) - identity
        out[:, :, top : top + step] = (matrices.mH @ matrices).permute(2, 3, 0, 1)
    return out


def spirit_kspace(
    kspace: Complex[Tensor, "coil ky kx"],
    mask: Tensor,
    matrices: Complex[Tensor, "coil coil y x"],
    data_weight: float | None,
    iterations: int,
    tolerance: float,
) -> tuple[Complex[Tensor, "coil ky kx"], int, float]:
    """Complete one slice by conjugate gradients; parameters as of `spirit`, mask bool (ky, kx).

    A mask of lines needs transforms along one axis only: along the other, k-space can be transformed once.

    Returns
    -------
    kspace, iterations, residual
    """
    line = next((axis for axis in (-1, -2) if bool((mask == mask.narrow(axis, 0, 1)).all())), None)
    data = kspace if line is None else ifft1c(kspace, line)
    across = -3 - line if line is not None else 0
    missing = (~mask).to(kspace.real.dtype)

    def consistency(x: Tensor) -> Tensor:
        image = ifft2c(x) if line is None else ifft1c(x, across)
        out = torch.zeros_like(image)
        for coil in range(len(matrices)):
            out.addcmul_(matrices[:, coil], image[coil])
        return fft2c(out) if line is None else fft1c(out, across)

    if data_weight is None:
        x, done, residual = _conjugate_gradient(
            lambda u: missing * consistency(u), -missing * consistency(data), iterations, tolerance
        )
        x = torch.where(mask, data, x)
    else:
        weight = data_weight * mask
        x, done, residual = _conjugate_gradient(
            lambda u: consistency(u) + weight * u, weight * data, iterations, tolerance
        )
    x = x if line is None else fft1c(x, line)
    return (torch.where(mask, kspace, x) if data_weight is None else x), done, residual


def _conjugate_gradient(
    normal: Callable[[Tensor], Tensor], right: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, int, float]:
    """Solve ``normal(x) = right`` from zero (Hestenes and Stiefel 1952, doi:10.6028/jres.049.044)."""
    x, r, p = torch.zeros_like(right), right, right
    first = squared = float(torch.linalg.vector_norm(right)) ** 2
    done = 0
    while done < iterations and squared > tolerance**2 * first:
        q = normal(p)
        curvature = float((p.conj() * q).real.sum())
        if curvature <= 0:
            break
        x, r = x + squared / curvature * p, r - squared / curvature * q
        fresh = float(torch.linalg.vector_norm(r)) ** 2
        p, squared, done = r + fresh / squared * p, fresh, done + 1
    return x, done, (squared / first) ** 0.5 if first > 0 else 0.0
