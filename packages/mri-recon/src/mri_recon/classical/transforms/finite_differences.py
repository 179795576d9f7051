r"""Finite differences of images, the transforms of total (generalised) variation; their norms are known in closed form.

.. math:: (D x)_{y} = x_{y + 1} - x_y, \qquad (E v)_{ij} = (\partial_i v_j + \partial_j v_i) / 2
"""

import torch
from torch import Tensor

from mri_recon.physics import LinearOperator

__all__ = ["FiniteDifferences", "SymmetricDifferences"]


def _difference(x: Tensor, dim: int) -> Tensor:
    """Forward difference, zero at the last sample (Neumann)."""
    out = torch.zeros_like(x)
    n = x.shape[dim]
    torch.sub(x.narrow(dim, 1, n - 1), x.narrow(dim, 0, n - 1), out=out.narrow(dim, 0, n - 1))
    return out


def _difference_adjoint(y: Tensor, dim: int) -> Tensor:
    n = y.shape[dim]
    out = torch.zeros_like(y)
    inner = y.narrow(dim, 0, n - 1)
    out.narrow(dim, 0, n - 1).sub_(inner)
    out.narrow(dim, 1, n - 1).add_(inner)
    return out


class FiniteDifferences(LinearOperator):
    """Gradient (..., y, x) -> (..., 2, y, x) by forward differences, zero beyond the edge; its norm is below 8."""

    norm = 8.0
    """Bound of the largest eigenvalue of the normal operator (Chambolle 2004,
    doi:10.1023/B:JMIV.0000011325.36760.1e)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return differences along y and x."""
        return torch.stack([_difference(x, -2), _difference(x, -1)], dim=-3)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return minus the divergence."""
        return _difference_adjoint(y[..., 0, :, :], -2) + _difference_adjoint(y[..., 1, :, :], -1)


class SymmetricDifferences(LinearOperator):
    """Symmetrised Jacobian (..., 2, y, x) -> (..., 3, y, x): yy, xx and sqrt(2) xy, whose norm is Frobenius' norm."""

    norm = 8.0

    def forward(self, x: Tensor) -> Tensor:
        """Return the three different entries."""
        vy, vx = x[..., 0, :, :], x[..., 1, :, :]
        mixed = (_difference(vx, -2) + _difference(vy, -1)) * 0.5**0.5
        return torch.stack([_difference(vy, -2), _difference(vx, -1), mixed], dim=-3)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the vector field of a symmetric matrix field."""
        yy, xx, mixed = y[..., 0, :, :], y[..., 1, :, :], y[..., 2, :, :] * 0.5**0.5
        vy = _difference_adjoint(yy, -2) + _difference_adjoint(mixed, -1)
        vx = _difference_adjoint(xx, -1) + _difference_adjoint(mixed, -2)
        return torch.stack([vy, vx], dim=-3)
