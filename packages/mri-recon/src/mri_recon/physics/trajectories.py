"""Trajectories through k-space: radial, golden angle and spiral.

Coordinates are in cycles per field of view, in the order of the image's axes (ky, kx) or (kz, ky, kx): the points of a
Cartesian grid of N samples are the integers from -N // 2 on, and the edge of k-space is N / 2.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mri_recon.errors import ConfigError

__all__ = ["GOLDEN_ANGLE", "radial", "radial_3d", "spiral"]

GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2
"""111.25 degrees (Winkelmann 2007, doi:10.1109/TMI.2006.885337)."""


def _positive(**counts: float) -> None:
    for name, value in counts.items():
        if not value > 0:
            raise ConfigError(f"trajectory: expected {name} > 0, got {value}.")


def _along_spoke(samples: int, matrix: int) -> Tensor:
    return (torch.arange(samples, dtype=torch.float64) - samples // 2) * (matrix / samples)


def radial(spokes: int, samples: int, matrix: int, *, golden: bool = False) -> Float[Tensor, "spokes samples 2"]:
    """Return spokes through the centre of k-space, from edge to edge.

    Parameters
    ----------
    spokes
        Number of them; pi / 2 times the matrix samples the edge fully.
    samples
        Per spoke; twice the matrix is the usual readout oversampling.
    matrix
        Of the image: the spokes reach ``matrix / 2`` cycles per field of view.
    golden
        Each spoke `GOLDEN_ANGLE` after the one before, instead of evenly over half a turn: any run of spokes is
        nearly even.

    Returns
    -------
    Tensor
        float64 (spokes, samples, 2), cycles per field of view, (ky, kx).

    Raises
    ------
    ConfigError
        When a number is not positive.
    """
    _positive(spokes=spokes, samples=samples, matrix=matrix)
    step = GOLDEN_ANGLE if golden else math.pi / spokes
    angle = step * torch.arange(spokes, dtype=torch.float64)
    directions = torch.stack([angle.sin(), angle.cos()], dim=-1)
    return directions[:, None] * _along_spoke(samples, matrix)[:, None]


def radial_3d(spokes: int, samples: int, matrix: int) -> Float[Tensor, "spokes samples 3"]:
    """Return spokes in three dimensions by two golden means (Chan 2009, doi:10.1002/mrm.21837, equation 3).

    Parameters and errors as of `radial`.
    """
    _positive(spokes=spokes, samples=samples, matrix=matrix)
    index = torch.arange(spokes, dtype=torch.float64)
    z = (0.4656 * index) % 1
    angle = 2 * math.pi * ((0.6823 * index) % 1)
    across = (1 - z.square()).sqrt()
    directions = torch.stack([z, across * angle.sin(), across * angle.cos()], dim=-1)
    return directions[:, None] * _along_spoke(samples, matrix)[:, None]


def spiral(
    interleaves: int, samples: int, matrix: int, *, turns: float | None = None
) -> Float[Tensor, "interleaves samples 2"]:
    r"""Return Archimedean spirals from the centre outwards, :math:`k(\tau) = (N / 2) \tau e^{2 \pi i T \tau}`.

    Samples follow with :math:`\tau = t^{2 / 3}`, slowly at first, as a gradient limited by its slew rate goes (Glover
    1999, Magn Reson Med 42:412).

    Parameters
    ----------
    interleaves
        Evenly rotated copies.
    samples
        Per interleaf.
    matrix
        Of the image: the spirals reach ``matrix / 2`` cycles per field of view.
    turns
        T; None: ``matrix / (2 * interleaves)``, which leaves one cycle per field of view between turns.

    Raises
    ------
    ConfigError
        When a number is not positive.
    """
    turns = matrix / (2 * interleaves) if turns is None and interleaves else turns or 0
    _positive(interleaves=interleaves, samples=samples, matrix=matrix, turns=turns)
    tau = (torch.arange(samples, dtype=torch.float64) / max(samples - 1, 1)) ** (2 / 3)
    start = 2 * math.pi * torch.arange(interleaves, dtype=torch.float64) / interleaves
    angle = start[:, None] + 2 * math.pi * turns * tau
    return matrix / 2 * tau[:, None] * torch.stack([angle.sin(), angle.cos()], dim=-1)
