r"""CG-SENSE: least squares by conjugate gradients (Pruessmann 2001, doi:10.1002/mrm.1241).

.. math:: \min_x \|A x - y\|^2 + \lambda \|x\|^2 \quad\Rightarrow\quad (A^H A + \lambda) x = A^H y
"""

import torch
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_io.errors import NonFiniteError
from mri_recon.classical.kernels import check_maps, check_sampled
from mri_recon.classical.result import Reconstruction
from mri_recon.errors import ConfigError
from mri_recon.physics import LinearOperator, SenseOperator
from mri_recon.types import Kspace, Maps, Mask

__all__ = ["CgSenseConfig", "cg_sense", "conjugate_gradient"]


class CgSenseConfig(Config):
    """Parameters of `cg_sense`."""

    regularisation: float = Field(default=5e-3, ge=0)
    iterations: int = Field(default=30, ge=1)
    tolerance: float = Field(default=1e-5, gt=0)


def cg_sense(
    kspace: Kspace,
    mask: Mask,
    maps: Maps,
    *,
    regularisation: float = 5e-3,
    iterations: int = 30,
    tolerance: float = 1e-5,
    start: Tensor | None = None,
) -> Reconstruction:
    """Reconstruct Cartesian multi-coil k-space; slices in the batch run together.

    Parameters
    ----------
    kspace
        (..., coil, ky, kx), zero where not sampled.
    mask
        Broadcastable to `kspace`.
    maps
        (..., map, coil, y, x), of norm one over coils in their support.
    regularisation
        Weight of the squared norm of the image, lambda. With normalised maps and an orthonormal transform the largest
        eigenvalue of the normal operator is one, so it is relative to that.
    iterations
        At most so many; fewer act as a regularisation of their own.
    tolerance
        Stop when the residual of every batch element has fallen to this share of the right-hand side.
    start
        First image, by default zero.

    Returns
    -------
    Reconstruction
        Its residual is that of the normal equations, relative to their right-hand side.

    Raises
    ------
    ConfigError
        For a negative regularisation, no iterations, or a mask that samples nothing.
    ShapeError
        When the maps are not for these coils and this matrix.
    NonFiniteError
        When k-space or maps hold NaN or infinity.
    """
    if regularisation < 0 or iterations < 1:
        raise ConfigError(
            f"cg-sense: expected regularisation >= 0 and iterations >= 1, got {regularisation}, {iterations}."
        )
    check_maps(kspace, maps, "cg-sense")
    check_sampled(mask, "cg-sense")
    operator, data = SenseOperator(maps, mask).reduced(kspace)
    right = operator.adjoint(data)
    if not bool(torch.isfinite(torch.view_as_real(right)).all()):
        raise NonFiniteError("cg-sense: expected finite k-space and maps, got NaN or infinity.")
    first = None
    if start is not None:
        first = start.unsqueeze(-3) if start.ndim == right.ndim - 1 else start
    solution, done, residual = conjugate_gradient(operator, right, regularisation, iterations, tolerance, start=first)
    image = solution[..., 0, :, :] if maps.shape[-4] == 1 else solution
    return Reconstruction(image, done, residual, "converged" if residual <= tolerance else "iterations")


def conjugate_gradient(
    operator: LinearOperator,
    right: Tensor,
    regularisation: float | Tensor,
    iterations: int,
    tolerance: float,
    *,
    start: Tensor | None = None,
    dims: tuple[int, ...] = (-3, -2, -1),
) -> tuple[Tensor, int, float]:
    """Solve ``(A^H A + lambda) x = b`` for every batch element by conjugate gradients.

    Hestenes and Stiefel 1952, doi:10.6028/jres.049.044. Each batch element has its own step sizes and its own unit, the
    largest magnitude of b, so the result depends neither on what else is in the batch nor on the units.

    Parameters
    ----------
    operator
        Any whose `normal` takes b.
    right
        b, (..., map, y, x).
    regularisation
        lambda, one for all or one per batch element (..., 1, 1, 1).
    iterations, tolerance, start
        As of `cg_sense`.
    dims
        Dimensions of one batch element; the others are the batch.

    Returns
    -------
    x, iterations, residual
        The residual is the largest over the batch, relative to the norm of b.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a.conj() * b).real.sum(dim=dims, keepdim=True)

    def over(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(b > 0, a / torch.where(b > 0, b, torch.ones_like(b)), torch.zeros_like(a))

    unit = right.abs().amax(dim=dims, keepdim=True)
    unit = torch.where(unit > 0, unit, torch.ones_like(unit))
    right = right / unit
    x = torch.zeros_like(right) if start is None else start / unit
    r = right if start is None else right - operator.normal(x) - regularisation * x
    p = r
    norm, squared = dot(right, right), dot(r, r)
    residual = float(over(squared, norm).max())
    done = 0
    while done < iterations and residual > tolerance**2:
        q = operator.normal(p) + regularisation * p
        step = over(squared, dot(p, q))
        x = x + step * p
        r = r - step * q
        fresh = dot(r, r)
        p = r + over(fresh, squared) * p
        squared = fresh
        residual = float(over(squared, norm).max())
        done += 1
    return x * unit, done, residual**0.5
