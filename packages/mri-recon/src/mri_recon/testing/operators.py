"""Checks that every linear operator must pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["assert_adjoint", "assert_linear", "complex_normal"]


def complex_normal(shape: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    """Draw complex normal numbers of unit variance from an explicit seed."""
    return torch.randn(tuple(shape), dtype=dtype, generator=torch.Generator().manual_seed(seed))


def assert_adjoint(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.complex128,
    rtol: float = 1e-10,
    seed: int = 0,
) -> None:
    r"""Check :math:`\langle A x, y \rangle = \langle x, A^H y \rangle` for random x and y.

    Parameters
    ----------
    forward, adjoint
        The operator and its claimed adjoint.
    shape
        Of x; that of y follows.
    dtype
        Complex type of x and y.
    rtol
        Largest difference, relative to the product of the norms.
    seed
        Of x and y.

    Raises
    ------
    AssertionError
        When the two sides differ by more than `rtol`, or the operator is zero.
    """
    x = complex_normal(shape, seed, dtype)
    mapped = forward(x)
    y = complex_normal(mapped.shape, seed + 1, dtype)
    left = torch.vdot(y.flatten(), mapped.flatten())
    right = torch.vdot(adjoint(y).flatten(), x.flatten())
    scale = torch.linalg.vector_norm(mapped) * torch.linalg.vector_norm(y)
    if scale == 0:
        raise AssertionError("adjoint: the operator maps a random vector to zero, which tests nothing.")
    error = float((left - right).abs() / scale)
    if not error <= rtol:
        raise AssertionError(f"adjoint: <A x, y> = {left:.6g}, <x, A^H y> = {right:.6g}, difference {error:.2e}.")


def assert_linear(
    function: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.complex128,
    rtol: float = 1e-10,
    seed: int = 0,
) -> None:
    """Check ``A(a x + b z) = a A(x) + b A(z)`` for random complex x, z, a, b; parameters as of `assert_adjoint`."""
    x, z = complex_normal(shape, seed, dtype), complex_normal(shape, seed + 1, dtype)
    a, b = complex_normal((2,), seed + 2, dtype)
    expected = a * function(x) + b * function(z)
    error = torch.linalg.vector_norm(function(a * x + b * z) - expected) / torch.linalg.vector_norm(expected)
    if not float(error) <= rtol:
        raise AssertionError(f"linearity: relative difference {float(error):.2e}, expected at most {rtol:.0e}.")
