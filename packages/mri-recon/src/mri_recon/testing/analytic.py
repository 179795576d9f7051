"""Objects with a closed-form Fourier transform, to check transforms against."""

import math
from collections.abc import Sequence

import torch
from scipy.special import j1
from torch import Tensor

__all__ = ["ellipse_kspace", "gaussian_image", "gaussian_kspace"]


def ellipse_kspace(
    trajectory: Tensor, shape: tuple[int, int], radii: tuple[float, float], centre: tuple[float, float] = (0.0, 0.0)
) -> Tensor:
    r"""Return k-space of an ellipse of height one, :math:`\sqrt{N} a b J_1(2 \pi q) / q`, with q = |(a k_y, b k_x)|.

    Parameters
    ----------
    trajectory
        (..., 2), cycles per field of view, (ky, kx).
    shape
        Of the image that an orthonormal transform would come from.
    radii, centre
        Along y and x, in fields of view.
    """
    q = torch.hypot(radii[0] * trajectory[..., 0], radii[1] * trajectory[..., 1]).double()
    safe = q.clamp_min(1e-9)
    value = math.prod(radii) * torch.where(q > 1e-9, torch.from_numpy(j1((2 * math.pi * safe).numpy())) / safe, math.pi)
    turns = trajectory[..., 0] * centre[0] + trajectory[..., 1] * centre[1]
    return math.sqrt(math.prod(shape)) * value * torch.exp(-2j * math.pi * turns.double())


def gaussian_image(shape: Sequence[int], width: float) -> Tensor:
    """Return ``exp(-|r|^2 / (2 width^2))``, r and width in fields of view, in the middle of the grid; float64."""
    image = torch.ones((), dtype=torch.float64)
    for n in shape:
        image = image[..., None] * torch.exp(-(((torch.arange(n) - n // 2) / n) ** 2).double() / (2 * width**2))
    return image


def gaussian_kspace(trajectory: Tensor, shape: Sequence[int], width: float) -> Tensor:
    """Return its k-space at (..., dimension) cycles per field of view; exact when field and grid hold it."""
    scale = math.sqrt(math.prod(shape)) * (math.sqrt(2 * math.pi) * width) ** len(shape)
    return scale * torch.exp(-2 * (math.pi * width) ** 2 * trajectory.double().square().sum(dim=-1))
