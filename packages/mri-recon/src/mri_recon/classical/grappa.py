r"""GRAPPA: missing k-space from its neighbours in all coils (Griswold 2002, doi:10.1002/mrm.10171).

Each missing sample is a linear combination of the sampled ones around it, with weights fitted where everything was
sampled (eq. 1 of the paper). With the calibration windows as rows of A, split into the columns of the sources s and of
the targets t that one local sampling geometry has,

.. math:: w = (A_s^H A_s + \lambda)^{-1} A_s^H A_t, \qquad
          \lambda = \rho \, \mathrm{mean} \, \mathrm{diag}(A_s^H A_s) + (N - P) \sigma^2

One Gram matrix per slice serves all geometries: its rows and columns are picked. The second term of lambda is the noise
that the weights will carry to the N positions of k-space, of which only the P calibration windows are in the fit: the
weights then minimise aliasing plus noise over the whole image rather than over the calibration region.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from mri_io.config import Config
from mri_recon.classical.kernels import (
    BLOCK_BYTES,
    calibration_data,
    check_calibration,
    check_input,
    check_maps,
    coil_combination,
    gram_matrix,
    one_thread,
    unit_scale,
)
from mri_recon.classical.result import Reconstruction
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics.noise import noise_level
from mri_recon.types import Kspace, Maps, Mask

__all__ = ["GrappaConfig", "automatic_kernel", "grappa", "grappa_kspace"]

BITS = 60
MANY = 500
"""Distinct local geometries that make a pattern irregular."""


class GrappaConfig(Config):
    """Parameters of `grappa`."""

    kernel: tuple[int, int] | None = Field(
        default=None, description="positions of k-space along (ky, kx) that a kernel spans; None: from the pattern"
    )
    regularisation: float = Field(
        default=1e-4, gt=0, description="Tikhonov weight relative to the mean energy of the sources"
    )
    noise: float | None = Field(
        default=None, ge=0, description="standard deviation of the complex noise; None: from the edge of k-space"
    )


def grappa(
    kspace: Kspace,
    mask: Mask,
    maps: Maps | None = None,
    *,
    kernel: tuple[int, int] | None = None,
    regularisation: float = 1e-4,
    noise: float | Tensor | None = None,
    calibration: Tensor | None = None,
) -> Reconstruction:
    """Fill k-space by `grappa_kspace`, transform, and combine the coils: by the maps, or by root sum of squares.

    Parameters
    ----------
    maps
        (..., map, coil, y, x): matched-filter combination, complex. None: root sum of squares, real.
    kspace, mask, kernel, regularisation, noise, calibration
        See `grappa_kspace`.

    Returns
    -------
    Reconstruction
        Its settings name the kernel.
    """
    size = kernel or automatic_kernel(kspace, mask)
    check_maps(kspace, maps, "grappa")
    filled = grappa_kspace(
        kspace, mask, kernel=size, regularisation=regularisation, noise=noise, calibration=calibration
    )
    return Reconstruction(coil_combination(filled, maps), reason="direct", settings={"kernel": size})


def grappa_kspace(
    kspace: Kspace,
    mask: Mask,
    *,
    kernel: tuple[int, int] | None = None,
    regularisation: float = 1e-4,
    noise: float | Tensor | None = None,
    calibration: Tensor | None = None,
) -> Kspace:
    """Return k-space with the missing samples filled in and the acquired ones as they are.

    Works for any pattern: lines, 2 x 2, CAIPIRINHA, irregular ones. Temporary memory is at most about 4 times 64 MiB,
    the Gram matrix of one slice (``16 (height * width * coil)^2`` bytes), and two copies of its k-space.

    Parameters
    ----------
    kspace
        (..., coil, ky, kx), zero where not sampled.
    mask
        Broadcastable to `kspace`, one for all coils; each slice may have its own.
    kernel
        Number of positions (ky, kx) that a kernel spans, sampled or not; None: `automatic_kernel`.
    regularisation
        Tikhonov weight relative to the mean energy of the sources; it keeps the fit well posed.
    noise
        Standard deviation of the complex noise in units of k-space, a number or (..., 1, 1, 1); None: `noise_level`.
        Zero: no noise term.
    calibration
        Fully sampled (..., coil, cy, cx) in the units of k-space; None: the fully sampled centre of k-space.

    Returns
    -------
    Tensor
        (..., coil, ky, kx). Where a kernel holds no sampled position, k-space stays zero, as outside a partial Fourier
        acquisition.

    Raises
    ------
    ConfigError
        When the calibration region is smaller than the kernel, the mask samples nothing, or values are not finite.
    ShapeError
        When shapes do not fit.
    """
    sampled = check_input(kspace, mask, "grappa")
    size = kernel or automatic_kernel(kspace, mask)
    if min(size) < 1 or regularisation <= 0:
        raise ConfigError(
            f"grappa: expected a kernel of at least 1 x 1 and regularisation > 0, got {size}, {regularisation}."
        )
    given = None if calibration is None else _as_batch(calibration, kspace, size)
    flat = kspace.reshape(-1, *kspace.shape[-3:])
    level = noise_level(kspace, mask) if noise is None else torch.as_tensor(noise, device=kspace.device)
    levels = level.to(flat.real.dtype).expand(*kspace.shape[:-3], 1, 1, 1).reshape(-1)
    patterns, which = torch.unique(sampled, dim=0, return_inverse=True)
    which = which.expand(len(flat))
    out = torch.empty_like(flat)
    for number, pattern in enumerate(patterns):
        if not bool(pattern.any()):
            raise ConfigError("grappa: the mask samples nothing of some slice. Choose another mask.")
        buckets = list(_buckets(pattern, size))
        for index in torch.nonzero(which == number)[:, 0].tolist():
            data = flat[index]
            scale = unit_scale(data[None])[0]
            source = calibration_data(data, pattern, size, "grappa") if given is None else given[index]
            gram, windows = gram_matrix(source / scale, size)
            extra = max(pattern.numel() - windows, 0) * float(levels[index] / scale) ** 2
            out[index] = _fill(data, buckets, size, gram, regularisation, extra)
    return out.reshape(kspace.shape)


def automatic_kernel(kspace: Kspace, mask: Mask) -> tuple[int, int]:
    """Return the span of the kernel, from the pattern of the first slice.

    Lines: 5 along them; across them twice their spacing (the median gap) and one more, at least 7, as far as a third of
    the calibration lines allows. Regular patterns in both directions: 7 x 7, when the calibration region is twice that.
    Others: 5 x 5, since larger windows have too many different geometries.
    """
    sampled = check_input(kspace, mask, "grappa")[0]
    if bool(sampled.all()):
        return 5, 5
    across = next((axis for axis in (0, 1) if bool((sampled == sampled.narrow(1 - axis, 0, 1)).all())), None)
    if across is None:
        rows, columns = (_central_run(sampled[:, sampled.shape[1] // 2]), _central_run(sampled[sampled.shape[0] // 2]))
        codes = _geometries(sampled, (5, 5))[2]
        regular = len(codes) == 0 or int(codes.max()) < MANY
        return (7, 7) if regular and min(rows, columns) >= 14 else (5, 5)
    lines = sampled.select(1 - across, 0)
    gaps = torch.nonzero(lines)[:, 0].diff()
    gaps = gaps[gaps > 1]
    span = 2 * int(gaps.median()) + 1 if len(gaps) else 1
    width = max(5, min(max(span, 7), _central_run(lines) // 3 // 2 * 2 + 1))
    return (width, 5) if across == 0 else (5, width)


def _central_run(lines: Tensor) -> int:
    """Return how many lines around the centre were sampled without a gap."""
    middle = len(lines) // 2
    if not bool(lines[middle]):
        return 0
    return int(lines[middle:].long().cumprod(0).sum() + lines[:middle].flip(0).long().cumprod(0).sum())


def _as_batch(calibration: Tensor, kspace: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Return calibration data (batch, coil, cy, cx), one for each slice."""
    if calibration.ndim < 3 or calibration.shape[-3] != kspace.shape[-3] or not calibration.is_complex():
        raise ShapeError(
            f"grappa: expected complex calibration (..., {kspace.shape[-3]}, cy, cx), got {calibration.dtype} "
            f"{tuple(calibration.shape)}."
        )
    check_calibration(calibration, kernel, "grappa")
    shape = calibration.shape[-3:]
    return calibration.to(kspace.dtype).expand(*kspace.shape[:-3], *shape).reshape(-1, *shape)


@dataclass(frozen=True)
class _Bucket:
    """Geometries with as many sources and (about) as many positions, that are computed together.

    sources (geometry, source): positions in the window; places (geometry, position): flat positions in k-space, the
    last one repeated where a geometry has fewer.
    """

    sources: Tensor
    places: Tensor


def _geometries(mask: Tensor, kernel: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Tell the local sampling geometries apart; beyond the edge nothing is sampled.

    Returns
    -------
    hole, near, code
        The flat positions that were missed, which of each one's window were sampled, and the number of its geometry.
    """
    height, width = kernel
    hole = torch.nonzero(~mask.flatten())[:, 0]
    windows = _pad(mask, kernel).unfold(0, height, 1).unfold(1, width, 1)
    near = windows.reshape(mask.numel(), height * width)[hole]
    code = torch.zeros(len(hole), dtype=torch.int64, device=mask.device)
    for first in range(0, height * width, BITS):
        part = near[:, first : first + BITS]
        bits = (part.long() << torch.arange(part.shape[1], device=mask.device)).sum(dim=1)
        # What came before is renumbered, so that both fit into one integer.
        _, bits = torch.unique(bits, return_inverse=True)
        _, code = torch.unique(code * (len(hole) + 1) + bits, return_inverse=True)
    return hole, near, code


def _buckets(mask: Tensor, kernel: tuple[int, int]) -> Iterator[_Bucket]:
    """Group the missing positions by the sampled positions around them."""
    hole, near, code = _geometries(mask, kernel)
    order = torch.argsort(code, stable=True)
    counts = torch.bincount(code, minlength=1)
    starts = counts.cumsum(0) - counts
    members = near[order[starts]] if len(hole) else near
    sources = members.sum(dim=1)
    # Small geometries are rounded up to a power of two, so that many share a bucket.
    rounded = torch.where(counts > 64, counts, 2 ** torch.log2(counts.clamp_min(1).double()).ceil().long())
    keys = torch.stack([sources, rounded[: len(sources)]], dim=1)
    for found, total in torch.unique(keys, dim=0).tolist():
        if found == 0:
            continue
        chosen = torch.nonzero((keys == torch.tensor([found, total], device=mask.device)).all(dim=1))[:, 0]
        step = torch.arange(total, device=mask.device).minimum(counts[chosen, None] - 1)
        places = hole[order[starts[chosen, None] + step]]
        yield _Bucket(torch.nonzero(members[chosen])[:, 1].view(len(chosen), found), places)


def _pad(values: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Pad the last two axes with zeros so that every position has a whole window."""
    height, width = kernel
    return pad(values, (width // 2, (width - 1) // 2, height // 2, (height - 1) // 2))


def _fill(
    kspace: Tensor, buckets: list[_Bucket], kernel: tuple[int, int], gram: Tensor, regularisation: float, extra: float
) -> Tensor:
    """Fill one slice (coil, ky, kx); the noise term `extra` is in the units of the Gram matrix."""
    height, width = kernel
    coils, _, nx = kspace.shape
    wide = nx + width - 1
    columns = torch.arange(coils, device=kspace.device)
    offsets = (torch.arange(height)[:, None] * wide + torch.arange(width)).flatten().to(kspace.device)
    target = (height // 2 * width + width // 2) * coils + columns
    values = _pad(kspace, kernel).permute(1, 2, 0).reshape(-1, coils)
    out = kspace.flatten(1).T.clone()
    for bucket in buckets:
        geometries, found = bucket.sources.shape
        unknowns = found * coils
        together = max(1, BLOCK_BYTES // (16 * unknowns**2))
        for first in range(0, geometries, together):
            sources, places = bucket.sources[first : first + together], bucket.places[first : first + together]
            picked = (sources[:, :, None] * coils + columns).flatten(1)
            weights = _weights(gram, picked, target, regularisation, extra).to(kspace.dtype)
            corner = places // nx * wide + places % nx
            piece = max(1, BLOCK_BYTES // (values.element_size() * unknowns * len(sources)))
            for begin in range(0, places.shape[1], piece):
                window = corner[:, begin : begin + piece, None] + offsets[sources][:, None]
                gathered = values.index_select(0, window.flatten()).view(len(sources), -1, unknowns)
                out[places[:, begin : begin + piece].flatten()] = (gathered @ weights).flatten(0, 1)
    return out.T.reshape(kspace.shape)


def _weights(gram: Tensor, picked: Tensor, target: Tensor, regularisation: float, extra: float) -> Tensor:
    """Solve for the weights (geometry, source, coil) of some geometries, whose columns of A are `picked`."""
    matrix = gram[picked[:, :, None], picked[:, None, :]]
    right = gram[picked[:, :, None], target]
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    ridge = regularisation * diagonal.real.mean(dim=-1, keepdim=True) + extra
    diagonal += torch.where(ridge > 0, ridge, torch.ones_like(ridge))
    with one_thread():
        factor, failed = torch.linalg.cholesky_ex(matrix)
        # Two triangular solves: cholesky_solve is much slower on batches of complex matrices.
        forward = torch.linalg.solve_triangular(factor, right, upper=False)
        weights: Tensor = torch.linalg.solve_triangular(factor.mH, forward, upper=True)
    if bool(failed.any()):
        raise ConfigError(f"grappa: the calibration is singular with regularisation {regularisation}. Raise it.")
    return weights
