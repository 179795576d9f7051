"""What the solvers share: sums over the unknowns of one batch element, and the outcome."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Solution", "divide", "dot", "norm", "where_active"]


@dataclass(frozen=True)
class Solution:
    """Outcome of a solver.

    Attributes
    ----------
    x
        The unknowns, of the shape of the right-hand side.
    iterations
        Done by the batch element that took most.
    residual
        What the stopping rule looks at, the largest of the batch.
    converged
        Whether every batch element met the tolerance.
    """

    x: Tensor
    iterations: int
    residual: float
    converged: bool

    @property
    def reason(self) -> str:
        """Why the solver stopped."""
        return "converged" if self.converged else "iterations"


def dot(a: Tensor, b: Tensor, unknowns: int) -> Float[Tensor, "..."]:
    """Return the real part of ``<a, b>`` over the last `unknowns` axes, which are kept with length one."""
    parts = torch.view_as_real(a) * torch.view_as_real(b)
    total: Tensor = parts.sum(dim=tuple(range(-unknowns - 1, 0)), keepdim=True)
    return total[..., 0]


def norm(a: Tensor, unknowns: int) -> Float[Tensor, "..."]:
    """Return the Euclidean norm over the last `unknowns` axes, which are kept with length one."""
    if not a.is_complex():
        return torch.linalg.vector_norm(a, dim=tuple(range(-unknowns, 0)), keepdim=True)
    # Twenty times as fast as of complex numbers.
    parts: Tensor = torch.linalg.vector_norm(torch.view_as_real(a), dim=tuple(range(-unknowns - 1, 0)), keepdim=True)
    return parts[..., 0]


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a / b``, zero where b is zero: an all-zero batch element stays zero."""
    return torch.where(b != 0, a / torch.where(b != 0, b, torch.ones_like(b)), torch.zeros_like(a))


def where_active(active: Bool[Tensor, "..."], new: Tensor, old: Tensor) -> Tensor:
    """Return the new value for batch elements that still move; those that are done keep theirs."""
    return new if bool(active.all()) else torch.where(active, new, old)
