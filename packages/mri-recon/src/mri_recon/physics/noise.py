r"""Noise of the coils: its level from k-space itself, robustly.

Receiver noise is complex, normal and white along k-space; far from the centre of k-space little else is there.
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from mri_recon.errors import ConfigError
from mri_recon.types import Kspace, Mask

__all__ = ["coil_noise_levels", "noise_level", "outermost_samples"]

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
