r"""Noise of the coils: its level and covariance, from k-space itself or a noise scan, and pre-whitening.

Receiver noise is complex, normal and white along k-space; far from the centre of k-space little else is there. Coils
share some of it: with the covariance :math:`\Psi = E[n n^H] = L L^H` of their noise, k-space and maps are multiplied by
:math:`L^{-1}`, after which the noise of all coils is independent and of unit variance (Pruessmann 2001,
doi:10.1002/mrm.1241, appendix).
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from mri_io.formats.kspace.prewhitening import covariance_whitener
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics.fourier import ifft2c
from mri_recon.types import Kspace, Maps, Mask

__all__ = [
    "background_samples",
    "coil_noise_levels",
    "noise_covariance",
    "noise_level",
    "outermost_samples",
    "patch_samples",
    "whiten_kspace",
    "whiten_maps",
    "whitening_matrix",
]

MEDIAN_OF_NORMAL = 0.6744897501960817
"""Median of the absolute value of a normal number of unit variance."""
FEWEST = 256
"""Samples that a median takes at least, as far as there are so many: its error is then 5 %."""


def outermost_samples(
    kspace: Kspace, mask: Mask | None = None, *, fraction: float = 0.05
) -> Complex[Tensor, "*batch coil sample"]:
    """Return the sampled points of k-space that are farthest from its centre, in each direction relative to the edge.

    The corners come first, where the signal is weakest. Points that are zero in all coils do not count as sampled,
    whatever the mask says: padding, or a line that was left out.

    Parameters
    ----------
    kspace
        (..., coil, ky, kx), centred.
    mask
        Broadcastable to `kspace`, one pattern for all coils; None: what is not zero was sampled.
    fraction
        Share of the sampled points, at least 256 points where there are so many.

    Returns
    -------
    Tensor
        (..., coil, sample). Where a batch element has fewer than another, NaN fills up.

    Raises
    ------
    ConfigError
        When the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"noise: expected 0 < fraction <= 1, got {fraction}.")
    squares = [((torch.arange(n, device=kspace.device) - n // 2) / max(n / 2, 1)).square() for n in kspace.shape[-2:]]
    order = (squares[0][:, None] + squares[1]).flatten().argsort(descending=True, stable=True)
    sampled = (kspace != 0).any(dim=-3)
    if mask is not None:
        pattern = mask if mask.ndim < 3 else (mask != 0).any(dim=-3)
        sampled = sampled & (pattern != 0)
    sampled = sampled.flatten(-2)[..., order]
    total = sampled.sum(dim=-1, keepdim=True)
    wanted = (fraction * total).ceil().clamp_min(FEWEST)
    kept = sampled & (sampled.cumsum(dim=-1) <= wanted)
    # Only as far inwards as any batch element needs to go.
    reach = int((kept * torch.arange(1, len(order) + 1, device=kept.device)).max())
    values = kspace.flatten(-2)[..., order[:reach]]
    nothing = torch.full((), complex(math.nan, math.nan), dtype=kspace.dtype, device=kspace.device)
    return torch.where(kept[..., None, :reach], values, nothing)


def coil_noise_levels(
    kspace: Kspace, mask: Mask | None = None, *, fraction: float = 0.05
) -> Float[Tensor, "*batch coil"]:
    r"""Return the standard deviation of the complex noise of each coil, :math:`\sqrt{E |n|^2}`.

    From the median of the absolute real and imaginary parts of the outermost sampled points, which a few points with
    signal do not move (median absolute deviation; Hampel 1974, doi:10.1080/01621459.1974.10482962). Parameters as of
    `outermost_samples`.

    Returns
    -------
    Tensor
        (..., coil), in units of `kspace`; 0 for a coil, or a slice, that is all zero.
    """
    samples = outermost_samples(kspace, mask, fraction=fraction)
    if samples.shape[-1] == 0:
        return torch.zeros(samples.shape[:-1], dtype=samples.real.dtype, device=samples.device)
    parts = torch.view_as_real(samples).flatten(-2).abs()
    return math.sqrt(2) / MEDIAN_OF_NORMAL * parts.nanmedian(dim=-1).values.nan_to_num(0)


def noise_level(kspace: Kspace, mask: Mask | None = None) -> Float[Tensor, "*batch 1 1 1"]:
    r"""Return the standard deviation of the complex noise of each batch element, averaged over its coils.

    The root of the mean of the coils' variances, see `coil_noise_levels`; coils without any noise do not count. In an
    orthonormal transform it is the same in k-space and in the images of single coils, and with maps of norm one it is
    that of the fully sampled combined image. Too high where k-space ends before the signal does (a coarse matrix).

    Parameters
    ----------
    kspace
        (..., coil, ky, kx), zero where not sampled.
    mask
        Broadcastable to `kspace`; None: what is not zero was sampled.

    Returns
    -------
    Tensor
        (..., 1, 1, 1), real, in units of `kspace`; 0 for a batch element that is all zero.
    """
    levels = coil_noise_levels(kspace, mask)
    # Relative to the largest, so that the squares stay in range for any units.
    largest = levels.amax(dim=-1, keepdim=True)
    relative = torch.where(largest > 0, levels / largest, levels)
    mean = relative.square().sum(dim=-1, keepdim=True) / (levels > 0).sum(dim=-1, keepdim=True).clamp_min(1)
    return (largest * mean.sqrt())[..., None, None]


def patch_samples(
    kspace: Kspace, rows: slice = slice(None), columns: slice = slice(None)
) -> Complex[Tensor, "*batch coil sample"]:
    """Return the points of a rectangle of k-space; NaN where all coils are zero, so not sampled.

    Raises
    ------
    ConfigError
        When the rectangle is empty.
    """
    patch = kspace[..., rows, columns].flatten(-2)
    if patch.shape[-1] == 0:
        raise ConfigError(f"noise: expected a patch within {tuple(kspace.shape[-2:])}, got {rows}, {columns}.")
    nothing = torch.full((), complex(math.nan, math.nan), dtype=kspace.dtype, device=kspace.device)
    return torch.where((patch != 0).any(dim=-2, keepdim=True), patch, nothing)


def background_samples(kspace: Kspace, *, fraction: float = 0.05) -> Complex[Tensor, "*batch coil sample"]:
    """Return the corners of the coil images, where no body is; for fully sampled k-space only.

    Undersampling folds the body into the background. Parameters as of `outermost_samples`.
    """
    return outermost_samples(ifft2c(kspace), fraction=fraction)


def noise_covariance(
    noise: Complex[Tensor, "*batch coil sample"], bandwidth_ratio: float = 1.0
) -> Complex[Tensor, "*batch coil coil"]:
    r"""Return the covariance of the coils' noise, :math:`\Psi = E[n n^H]`, for noise of zero mean.

    Parameters
    ----------
    noise
        (..., coil, sample): a noise scan, or what `outermost_samples`, `patch_samples` or `background_samples` return.
        Samples with a NaN do not count.
    bandwidth_ratio
        Noise variance in `noise` over that in the data: the dwell time of the data over that of the noise scan.

    Raises
    ------
    ConfigError
        When the ratio is not positive.
    ShapeError
        When no samples are left.
    """
    if not (math.isfinite(bandwidth_ratio) and bandwidth_ratio > 0):
        raise ConfigError(f"noise: expected a bandwidth ratio > 0, got {bandwidth_ratio}.")
    valid = ~torch.isnan(noise.real + noise.imag).any(dim=-2, keepdim=True)
    count = valid.sum(dim=-1, keepdim=True)
    if not bool((count > 0).all()):
        raise ShapeError("noise: expected samples of noise, got none that are sampled and not NaN.")
    samples = torch.where(valid, noise, torch.zeros_like(noise)).to(torch.complex128)
    return (samples @ samples.mH / (count * bandwidth_ratio)).to(noise.dtype)


def whitening_matrix(
    noise: Complex[Tensor, "coil coil"] | Float[Tensor, " coil"],
) -> Complex[Tensor, "coil coil"]:
    r"""Return :math:`L^{-1}` of the covariance :math:`\Psi = L L^H`, complex128.

    Parameters
    ----------
    noise
        Covariance (coil, coil) as of `noise_covariance`, or the given standard deviation of each coil (coil,).

    Raises
    ------
    FormatError
        When the covariance is singular: a coil without noise, or coils that depend on each other.
    """
    covariance = torch.diag(noise.double().square()) if noise.ndim == 1 else noise
    fix = "Leave these coils out, or take more noise samples than there are coils."
    matrix = covariance_whitener(covariance.detach().cpu().to(torch.complex128).numpy(), fix=fix)
    return torch.from_numpy(matrix).to(noise.device)


def whiten_kspace(kspace: Kspace, matrix: Complex[Tensor, "coil coil"]) -> Kspace:
    """Return k-space (..., coil, ky, kx), or coil images, with the coils mixed by `whitening_matrix`."""
    return torch.einsum("dc,...cyx->...dyx", matrix.to(kspace.dtype), kspace)


def whiten_maps(maps: Maps, matrix: Complex[Tensor, "coil coil"]) -> tuple[Maps, Float[Tensor, "*batch map y x"]]:
    """Return maps for pre-whitened k-space, of norm one again, and the norm that they had before.

    The image for these maps is the image of the given ones times that norm, in units of the noise: divide by it to keep
    the weighting of the given maps. Where the maps are zero both stay zero.

    Parameters
    ----------
    maps
        (..., map, coil, y, x).
    matrix
        Of `whitening_matrix`.
    """
    mixed = torch.einsum("dc,...cyx->...dyx", matrix.to(maps.dtype), maps)
    # Scaled first: squares of the inverse of very small noise levels would overflow.
    largest = matrix.abs().max().to(maps.real.dtype)
    norm = largest * torch.linalg.vector_norm(mixed / largest, dim=-3)
    safe = torch.where(norm > 0, norm, torch.ones_like(norm))
    return mixed / safe.unsqueeze(-3), norm
