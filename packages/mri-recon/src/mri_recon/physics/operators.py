"""Linear operators with forward, adjoint and normal; the SENSE operator of Cartesian parallel imaging."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mri_recon.errors import ShapeError
from mri_recon.physics.coils import combine, expand
from mri_recon.physics.fourier import fft1c, fft2c, ifft1c, ifft2c

__all__ = ["Composition", "LinearOperator", "SenseOperator"]


class LinearOperator(ABC):
    """A linear map between tensors; ``A @ B`` applies B first. Differentiable by autograd."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Apply A."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the Hermitian adjoint: ``<A x, y> = <x, A^H y>``."""

    def normal(self, x: Tensor) -> Tensor:
        """Apply ``A^H A``."""
        return self.adjoint(self.forward(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Apply A."""
        return self.forward(x)

    def __matmul__(self, other: "LinearOperator") -> "Composition":
        """Compose: ``(A @ B)(x) = A(B(x))``."""
        return Composition(self, other)


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


class SenseOperator(LinearOperator):
    r"""Sampled Fourier transform of coil images, :math:`A = M F S` (Pruessmann 1999, doi:10.1002/(SICI)1522-2594).

    A mask of lines, constant along one axis, is recognised: `normal` then needs no transform along that axis, because
    a fully sampled axis transforms there and back.

    Parameters
    ----------
    maps
        Coil sensitivities (..., map, coil, y, x), complex.
    mask
        Broadcastable to (..., coil, ky, kx); not zero where sampled.

    Raises
    ------
    ShapeError
        When the mask does not broadcast against the maps' grid.
    """

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        if maps.ndim < 4 or not maps.is_complex():
            raise ShapeError(f"maps: expected complex (..., map, coil, y, x), got {maps.dtype} {tuple(maps.shape)}.")
        if mask.ndim < 2 or any(m not in (1, n) for m, n in zip(mask.shape[-2:], maps.shape[-2:], strict=True)):
            raise ShapeError(
                f"mask: expected (..., {maps.shape[-2]} or 1, {maps.shape[-1]} or 1), got {tuple(mask.shape)}."
            )
        self.maps = maps
        self.mask = (mask != 0).to(maps.real.dtype)
        self._line_axis = next((axis for axis in (-2, -1) if mask.shape[axis] == 1), None)

    def forward(self, x: Tensor) -> Tensor:
        """Return k-space (..., coil, ky, kx) of images (..., map, y, x), zero where not sampled."""
        return self.mask * fft2c(expand(x, self.maps))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return images (..., map, y, x) of k-space (..., coil, ky, kx)."""
        return combine(ifft2c(self.mask * y), self.maps)

    def normal(self, x: Tensor) -> Tensor:
        """Return ``A^H A x``."""
        coil_images = expand(x, self.maps)
        if self._line_axis is None:
            return combine(ifft2c(self.mask * fft2c(coil_images)), self.maps)
        axis = -1 if self._line_axis == -2 else -2
        return combine(ifft1c(self.mask * fft1c(coil_images, axis), axis), self.maps)

    def norm(self, iterations: int = 20) -> Tensor:
        """Return the largest eigenvalue of ``A^H A`` per batch element, by power iteration; shape (..., 1, 1, 1)."""
        generator = torch.Generator(device="cpu").manual_seed(0)
        shape = (*self.maps.shape[:-3], *self.maps.shape[-2:])
        x = torch.randn(shape, dtype=self.maps.dtype, generator=generator).to(self.maps.device)
        value = torch.ones(())
        for _ in range(iterations):
            x = self.normal(x)
            value = torch.linalg.vector_norm(x, dim=(-3, -2, -1), keepdim=True)
            x = x / value.clamp_min(torch.finfo(value.dtype).tiny)
        return value
