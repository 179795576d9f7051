"""The linear operator and what is built of operators: compositions, sums, multiples, adjoints."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mri_recon.errors import ConfigError

__all__ = ["Adjoint", "Composition", "LinearOperator", "Multiple", "Sum", "power_iteration"]


class LinearOperator(ABC):
    """A linear map between tensors, with batch dimensions in front; differentiable by autograd, its adjoint too.

    ``A @ B`` applies B first, ``A + B`` adds the results, ``2 * A`` is a multiple, ``A.H`` is the adjoint operator.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Apply A."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the Hermitian adjoint: ``<A x, y> = <x, A^H y>``."""

    def normal(self, x: Tensor) -> Tensor:
        """Apply ``A^H A``."""
        return self.adjoint(self.forward(x))

    @property
    def H(self) -> "LinearOperator":  # noqa: N802
        """The adjoint as an operator of its own."""
        return Adjoint(self)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply A."""
        return self.forward(x)

    def __matmul__(self, other: "LinearOperator") -> "Composition":
        """Compose: ``(A @ B)(x) = A(B(x))``."""
        return Composition(self, other)

    def __add__(self, other: "LinearOperator") -> "Sum":
        """Add: ``(A + B)(x) = A(x) + B(x)``."""
        return Sum(self, other)

    def __mul__(self, factor: complex | Tensor) -> "Multiple":
        """Multiply by a number, or by one per batch element that broadcasts against domain and range."""
        return Multiple(self, factor)

    __rmul__ = __mul__


class Adjoint(LinearOperator):
    """The adjoint of an operator."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator's adjoint."""
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the operator."""
        return self.operator.forward(y)

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        """The operator itself."""
        return self.operator


class Composition(LinearOperator):
    """Two operators, one after the other."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        self.outer, self.inner = outer, inner

    def forward(self, x: Tensor) -> Tensor:
        """Apply the inner, then the outer operator."""
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the adjoints in reverse order."""
        return self.inner.adjoint(self.outer.adjoint(y))

    def normal(self, x: Tensor) -> Tensor:
        """Apply the inner operator, the outer one's normal, the inner adjoint."""
        return self.inner.adjoint(self.outer.normal(self.inner.forward(x)))


class Sum(LinearOperator):
    """The sum of two operators."""

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        """Add what both give."""
        return self.first.forward(x) + self.second.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Add what both adjoints give."""
        return self.first.adjoint(y) + self.second.adjoint(y)


class Multiple(LinearOperator):
    """An operator times a number."""

    def __init__(self, operator: LinearOperator, factor: complex | Tensor) -> None:
        self.operator, self.factor = operator, factor

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator, multiply."""
        return self.factor * self.operator.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Multiply by the conjugate, apply the adjoint."""
        conjugate = self.factor.conj() if isinstance(self.factor, Tensor) else complex(self.factor).conjugate()
        return self.operator.adjoint(conjugate * y)


def power_iteration(
    operator: LinearOperator, start: Tensor, *, dims: tuple[int, ...] = (-3, -2, -1), iterations: int = 20
) -> Tensor:
    """Return the largest eigenvalue of ``A^H A`` per batch element, from below, by power iteration.

    Parameters
    ----------
    operator
        Any whose `normal` takes `start`.
    start
        In the operator's domain, random.
    dims
        Dimensions of one batch element; the others are the batch.
    iterations
        The relative error falls with the square of the ratio of the two largest eigenvalues per iteration.

    Returns
    -------
    Tensor
        Real, of the shape of `start` with `dims` of size one; 0 for a zero operator.

    Raises
    ------
    ConfigError
        When there are no iterations.
    """
    if iterations < 1:
        raise ConfigError(f"power iteration: expected iterations >= 1, got {iterations}.")
    x = start / torch.linalg.vector_norm(start, dim=dims, keepdim=True)
    value = torch.zeros(())
    for _ in range(iterations):
        x = operator.normal(x)
        value = torch.linalg.vector_norm(x, dim=dims, keepdim=True)
        x = x / torch.where(value > 0, value, torch.ones_like(value))
    return value
