r"""Locally low rank reconstruction of series (Zhang 2015, doi:10.1002/mrm.25161; Trzasko and Manduca 2011).

.. math:: \min_x \tfrac12 \|A x - y\|^2 + \lambda \sum_b \|R_b x\|_*

R_b takes a block of pixels over all frames as a matrix (pixel, frame); its nuclear norm is the sum of singular values.
FISTA (Beck and Teboulle 2009, doi:10.1137/080716542) with the blocks shifted at random in each iteration, which stands
for the average over all places of the blocks. The iterates then keep moving by about the weight, so the result is their
running mean with weights that grow as k^5: it forgets the beginning, and settles.

Without a given weight, lambda is the largest singular value that noise alone gives a block of b pixels and T frames
(Marchenko and Pastur; Gavish and Donoho 2017, doi:10.1109/TIT.2017.2653801), scaled to the sampled share p of k-space:

.. math:: \lambda = \sigma \sqrt{p} \, (\sqrt{b} + \sqrt{T})
"""

import torch
from jaxtyping import Complex
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from mri_io.config import Config
from mri_recon.classical.kernels import check_input, one_thread, unit_scale
from mri_recon.classical.result import Reconstruction
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics import SenseOperator
from mri_recon.physics.noise import noise_level
from mri_recon.types import Mask

__all__ = ["LowRankConfig", "low_rank", "shrink_blocks"]

MEMORY = 6
"""The running mean takes so many parts of k + 1 of iterate k."""


class LowRankConfig(Config):
    """Parameters of `low_rank`."""

    regularisation: float | None = Field(
        default=None, ge=0, description="weight of the nuclear norms relative to the largest k-space value; None: noise"
    )
    noise: float | None = Field(
        default=None, ge=0, description="standard deviation of the complex noise; None: from the edge of k-space"
    )
    block: int = Field(default=7, ge=1, description="width of the blocks in pixels")
    iterations: int = Field(default=100, ge=1, description="at most so many")
    tolerance: float = Field(default=3e-3, ge=0, description="relative change of the series at which to stop")
    seed: int = Field(default=0, ge=0, description="of the shifts")


def low_rank(
    kspace: Complex[Tensor, "*batch frame coil ky kx"],
    mask: Mask,
    maps: Complex[Tensor, "*maps map coil y x"],
    *,
    regularisation: float | None = None,
    noise: float | Tensor | None = None,
    block: int = 7,
    iterations: int = 100,
    tolerance: float = 3e-3,
    seed: int = 0,
) -> Reconstruction:
    """Reconstruct a series.

    Parameters
    ----------
    kspace
        (..., frame, coil, ky, kx), zero where not sampled.
    mask
        Broadcastable to it; each frame should have another pattern.
    maps
        (..., map, coil, y, x) for all frames, or (..., frame, map, coil, y, x); of norm one.
    regularisation
        Lambda in units of the largest magnitude of k-space; None: from the noise.
    noise
        Standard deviation of the complex noise in units of k-space, a number or (..., frame, 1, 1, 1); None:
        `noise_level`, which is too high where k-space ends before the signal does.
    block
        Width of the square blocks in pixels.
    iterations
        At most so many.
    tolerance
        A series stops when the norm of its change falls to this share of its own.
    seed
        Of the shifts of the blocks.

    Returns
    -------
    Reconstruction
        Image (..., frame, y, x), or (..., frame, map, y, x) with several map sets; the residual is the relative change
        of the series, the largest in the batch. Its settings hold lambda in the units of k-space, for each series.

    Raises
    ------
    ConfigError
        When a parameter is out of range, the mask samples nothing, or values are not finite.
    ShapeError
        When shapes do not fit.
    """
    if min(block, iterations) < 1 or tolerance < 0 or (regularisation is not None and regularisation < 0):
        raise ConfigError("low-rank: expected block and iterations >= 1, regularisation and tolerance >= 0.")
    if kspace.ndim < 4 or maps.ndim < kspace.ndim:
        raise ShapeError(
            f"low-rank: expected k-space (..., frame, coil, ky, kx) and maps (..., [frame,] map, coil, y, x) with the "
            f"same batch, got {tuple(kspace.shape)} and {tuple(maps.shape)}."
        )
    check_input(kspace, mask, "low-rank", maps)
    frames = kspace.shape[-4]
    maps = maps.unsqueeze(-5) if maps.ndim == kspace.ndim else maps
    maps = maps.expand(*maps.shape[:-5], frames, *maps.shape[-4:])
    scale = unit_scale(kspace).amax(dim=-4, keepdim=True)  # one for a series: (..., 1, 1, 1, 1)
    operator = SenseOperator(maps, mask)
    right = operator.adjoint(kspace / scale)
    level = noise_level(kspace, mask) if noise is None else torch.as_tensor(noise, device=kspace.device)
    level = (level.to(scale.dtype) / scale).square().mean(dim=-4, keepdim=True).sqrt()
    weight = _weight(kspace, mask, block, level) if regularisation is None else regularisation * torch.ones_like(level)
    image, done, change, active = _solve(operator, right, weight, block, iterations, tolerance, seed)
    image = image * scale
    settings = {"regularisation": (weight * scale).flatten().tolist()}
    return Reconstruction(
        image[..., 0, :, :] if maps.shape[-4] == 1 else image,
        done,
        float(change.max()),
        "iterations" if bool(active.any()) else "converged",
        settings,
    )


def _weight(kspace: Tensor, mask: Tensor, block: int, level: Tensor) -> Tensor:
    """Return lambda (..., 1, 1, 1, 1) for a level of noise of that shape."""
    share = (mask != 0).to(level.dtype).expand(kspace.shape).mean(dim=(-4, -3, -2, -1), keepdim=True)
    return level * share.sqrt() * (block + kspace.shape[-4] ** 0.5)


def _solve(
    operator: SenseOperator,
    right: Tensor,
    weight: Tensor,
    block: int,
    iterations: int,
    tolerance: float,
    seed: int,
) -> tuple[Tensor, int, Tensor, Tensor]:
    """Run FISTA with unit steps: maps of norm one make the largest eigenvalue of the normal operator one."""
    generator = torch.Generator().manual_seed(seed)
    image = look = mean = right
    momentum, done = 1.0, 0
    change = torch.zeros_like(weight)
    active = torch.ones_like(weight, dtype=torch.bool)
    while done < iterations and bool(active.any()):
        shift = torch.randint(block, (2,), generator=generator).tolist()
        step = look + right - operator.normal(look)
        fresh = shrink_blocks(step, weight, block, (shift[0], shift[1]))
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        look = fresh + (momentum - 1) / following * (fresh - image)
        difference = min(1.0, MEMORY / (done + 1)) * (fresh - mean)
        size = _norm(mean + difference)
        moved = torch.where(size > 0, _norm(difference) / torch.where(size > 0, size, torch.ones_like(size)), 0.0)
        mean, change = torch.where(active, mean + difference, mean), torch.where(active, moved, change)
        active = active & (moved > tolerance)
        image, momentum, done = fresh, following, done + 1
    return mean, done, change, active


def _norm(series: Tensor) -> Tensor:
    return torch.linalg.vector_norm(series, dim=(-4, -3, -2, -1), keepdim=True)


def shrink_blocks(
    series: Complex[Tensor, "*batch frame map y x"], threshold: Tensor, block: int, shift: tuple[int, int] = (0, 0)
) -> Complex[Tensor, "*batch frame map y x"]:
    """Soft-threshold the singular values of all blocks, the proximal map of their nuclear norms.

    Parameters
    ----------
    series
        Blocks that reach over the edge are filled up with zeros.
    threshold
        (..., 1, 1, 1, 1), real.
    block, shift
        Width of the blocks, and where the first begins.
    """
    ny, nx = series.shape[-2:]
    # One block more than fits, so that the grid of blocks can begin before the first pixel.
    rows, columns = -(-(ny + shift[0]) // block), -(-(nx + shift[1]) // block)
    below, right = rows * block - ny - shift[0], columns * block - nx - shift[1]
    padded = pad(series, (shift[1], right, shift[0], below))
    blocks = padded.unflatten(-1, (columns, block)).unflatten(-3, (rows, block))
    # (..., frame, map, row, y, column, x) -> (..., map, row, column, pixel, frame)
    lead = series.ndim - 4
    order = (*range(lead), lead + 1, lead + 2, lead + 4, lead + 3, lead + 5, lead)
    matrices = blocks.permute(order).flatten(-3, -2)
    pixels, frames = matrices.shape[-2:]
    wide = frames > pixels
    gram = matrices @ matrices.mH if wide else matrices.mH @ matrices
    with one_thread():
        squared, vectors = torch.linalg.eigh(gram)
    values = squared.clamp_min(0).sqrt()
    positive = torch.where(values > 0, values, torch.ones_like(values))
    factor = torch.where(values > 0, (1 - threshold / positive).clamp_min(0), torch.zeros_like(values))
    shrink = (vectors * factor[..., None, :].to(vectors.dtype)) @ vectors.mH
    matrices = shrink @ matrices if wide else matrices @ shrink
    blocks = matrices.unflatten(-2, (block, block))
    back = (*range(lead), lead + 5, lead, lead + 1, lead + 3, lead + 2, lead + 4)
    padded = blocks.permute(back).flatten(-2).flatten(-3, -2)
    return padded[..., shift[0] : shift[0] + ny, shift[1] : shift[1] + nx]
