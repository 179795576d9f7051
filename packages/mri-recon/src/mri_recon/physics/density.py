"""Density compensation: the area, or volume, of k-space that each sample stands for.

In units of a Cartesian cell, (cycle per field of view)^dimension: Cartesian samples have weight one, and the adjoint of
weighted samples is the image in its own scale.
"""

import math
from importlib import import_module

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import ConvexHull
from torch import Tensor

from mri_io.errors import MissingPackageError
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics.noncartesian import NonCartesianOperator

__all__ = ["iterative_density", "radial_density", "voronoi_density"]


def radial_density(trajectory: Float[Tensor, "spokes samples dim"]) -> Float[Tensor, "spokes samples"]:
    r"""Return the weights of evenly distributed spokes from edge to edge, analytically.

    :math:`\pi r \Delta r / S` in two dimensions, :math:`2 \pi r^2 \Delta r / S` in three, for S spokes; the samples at
    the centre share its disc, or ball, of diameter :math:`\Delta r`.

    Parameters
    ----------
    trajectory
        (spokes, samples, 2 or 3), cycles per field of view, evenly spaced through the centre.

    Raises
    ------
    ShapeError
        When there are fewer than two samples, or neither two nor three dimensions.
    """
    spokes, samples, dim = trajectory.shape
    if samples < 2 or dim not in (2, 3):
        raise ShapeError(f"trajectory: expected (spokes, >= 2 samples, 2 or 3), got {tuple(trajectory.shape)}.")
    radius = torch.linalg.vector_norm(trajectory, dim=-1)
    step = torch.linalg.vector_norm(trajectory[:, 1] - trajectory[:, 0], dim=-1)[:, None]
    if dim == 2:
        shell, centre = math.pi * radius * step, math.pi * (step / 2) ** 2
    else:
        shell, centre = 2 * math.pi * radius.square() * step, 4 / 3 * math.pi * (step / 2) ** 3
    return torch.where(radius < step / 4, centre, shell) / spokes


def iterative_density(
    trajectory: Float[Tensor, "*points dim"], shape: tuple[int, ...], *, iterations: int = 30
) -> Float[Tensor, "*points"]:
    r"""Return weights for any trajectory, :math:`w \leftarrow w / (C * w)` (Pipe 1999, equation 6).

    Pipe and Menon 1999, doi:10.1002/(SICI)1522-2594(199901)41:1<179::AID-MRM25>3.0.CO;2-V. The convolution kernel C is
    sinc squared along each axis, not negative, with its first zero at one cycle per field of view and integral one, as
    the transform of a triangle over twice the field of view. Weights stay positive.

    Parameters
    ----------
    trajectory
        (*points, dimension), cycles per field of view.
    shape
        (y, x) or (z, y, x) of the image.
    iterations
        Of the fixed point.

    Raises
    ------
    ConfigError
        When there are no iterations.
    """
    if iterations < 1:
        raise ConfigError(f"density: expected iterations >= 1, got {iterations}.")
    double = tuple(2 * n for n in shape)
    operator = NonCartesianOperator(2 * trajectory.double(), double, accuracy=1e-6)
    window = torch.ones((), dtype=torch.float64)
    for n in shape:
        triangle = 1 - (torch.arange(2 * n, dtype=torch.float64) - n).abs() / n
        window = window[..., None] * triangle
    # The transforms divide by the number of pixels of the wide grid, the kernel has one over that of the image.
    window = window * 2 ** len(shape)
    weights = torch.ones(operator.points, dtype=torch.float64)
    for _ in range(iterations):
        spread = operator.forward(window * operator.adjoint(weights.to(torch.complex128))).real
        weights = weights / spread.clamp_min(torch.finfo(torch.float64).tiny)
    return weights.to(trajectory.real.dtype).to(trajectory.device)


def voronoi_density(trajectory: Float[Tensor, "*points dim"]) -> Float[Tensor, "*points"]:
    """Return the area, or volume, of the part of k-space that is nearest to each sample, by mri-nufft.

    Cells at the edge, which are open, are extrapolated from their neighbours; all are scaled so that they fill the
    convex hull of the samples. Rasche et al. 1999, doi:10.1109/42.774166.

    Parameters
    ----------
    trajectory
        (*points, 2 or 3), cycles per field of view. Only at the origin there may be several
        samples, which share a cell.

    Raises
    ------
    MissingPackageError
        Without mri-nufft.
    ShapeError
        When there are neither two nor three dimensions, or too few samples.
    ConfigError
        When samples coincide elsewhere: they would have no cell.
    """
    try:
        voronoi = import_module("mrinufft.density").voronoi
    except ImportError as error:
        raise MissingPackageError(
            f"mri-nufft is needed for Voronoi cells and not installed ({error}). "
            "Install it: pip install 'mri-recon[noncart]'"
        ) from error
    points = trajectory.detach().cpu().double().numpy().reshape(-1, trajectory.shape[-1])
    if points.shape[1] not in (2, 3) or len(points) < 16:
        raise ShapeError(f"trajectory: expected (>= 16 points, 2 or 3), got {tuple(trajectory.shape)}.")
    # Rounding of angles leaves the origin within 1e-12 of where it is.
    extent = float(np.abs(points).max())
    points[np.linalg.norm(points, axis=1) < 1e-6 * extent] = 0
    places, counts = np.unique(points, axis=0, return_counts=True)
    if np.any(counts[places.any(axis=1)] > 1):
        raise ConfigError(
            "trajectory: expected samples at different places but for the origin. Use iterative_density, which takes "
            "any."
        )
    cells = voronoi(points / (2 * extent * (1 + 1e-9)))
    weights = torch.from_numpy(cells * (ConvexHull(places).volume / cells.sum()))
    return weights.to(trajectory.dtype).to(trajectory.device).reshape(trajectory.shape[:-1])
