r"""The SENSE operator of Cartesian parallel imaging, :math:`A = M F S`, and its reduced form for solvers."""

import torch
from torch import Tensor

from mri_recon.errors import ShapeError
from mri_recon.physics.fourier import centre_phase, fftc, ifftc
from mri_recon.physics.operators.base import LinearOperator, power_iteration
from mri_recon.physics.operators.coil import CoilOperator

__all__ = ["ReducedSense", "SenseOperator"]


class SenseOperator(LinearOperator):
    r"""Sampled Fourier transform of coil images, :math:`A = M F S` (Pruessmann 1999, doi:10.1002/(SICI)1522-2594).

    Axes along which the mask is constant, given with size one or in full, are recognised: `normal` and `reduced` need
    no transform along them. Frames and echoes are batch dimensions of mask and images; static maps serve all.

    Parameters
    ----------
    maps
        Coil sensitivities (..., map, coil, y, x), or (..., map, coil, z, y, x), complex.
    mask
        Broadcastable to (..., coil, ky, kx) or (..., coil, kz, ky, kx); not zero where sampled.
    spatial
        Number of spatial dimensions, 2 or 3.

    Raises
    ------
    ShapeError
        When the maps are not complex, or the mask does not broadcast against their grid.
    """

    def __init__(self, maps: Tensor, mask: Tensor, *, spatial: int = 2) -> None:
        self.coil = CoilOperator(maps, spatial=spatial)
        grid = maps.shape[-spatial:]
        if mask.ndim < spatial or any(m not in (1, n) for m, n in zip(mask.shape[-spatial:], grid, strict=True)):
            expected = ", ".join(f"{n} or 1" for n in grid)
            raise ShapeError(f"mask: expected (..., {expected}), got {tuple(mask.shape)}.")
        self.maps, self.spatial = maps, spatial
        self.dims = tuple(range(-spatial, 0))
        sampled = mask != 0
        for dim in self.dims:
            first = sampled.narrow(dim, 0, 1)
            if sampled.shape[dim] > 1 and bool((sampled == first).all()):
                sampled = first
        self.mask = sampled.to(maps.real.dtype)
        self.full_dims = tuple(dim for dim in self.dims if self.mask.shape[dim] == 1)
        self._reduced: ReducedSense | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return k-space (..., coil, ky, kx) of images (..., map, y, x), zero where not sampled."""
        return self.mask * fftc(self.coil.forward(x), self.dims)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return images (..., map, y, x) of k-space (..., coil, ky, kx)."""
        return self.coil.adjoint(ifftc(self.mask * y, self.dims))

    def normal(self, x: Tensor) -> Tensor:
        """Return ``A^H A x``."""
        return self._reduced_operator().normal(x)

    def reduced(self, kspace: Tensor) -> tuple["ReducedSense", Tensor]:
        r"""Return an operator and data of the same least-squares problem, with the shortest transforms.

        The measured k-space is transformed once along its fully sampled axes, and loses its centring along the others.
        For the pair (B, d): :math:`\|B x - d\| = \|A x - y\|` for all x (over sampled points), :math:`B^H d = A^H y`
        and :math:`B^H B = A^H A`.

        Parameters
        ----------
        kspace
            (..., coil, ky, kx).
        """
        data = self.mask * kspace
        if self.full_dims:
            data = ifftc(data, self.full_dims)
        rest = tuple(dim for dim in self.dims if dim not in self.full_dims)
        if rest:
            data = torch.fft.ifftshift(data, dim=rest)
            for dim in rest:
                data = data * centre_phase(data, dim).conj()
        return self._reduced_operator(), data

    def norm(self, iterations: int = 20) -> Tensor:
        """Return the largest eigenvalue of ``A^H A`` per batch element, by power iteration; shape (..., 1, 1, 1)."""
        batch = torch.broadcast_shapes(self.maps.shape[: -self.spatial - 2], self.mask.shape[: -self.spatial - 1])
        shape = (*batch, self.maps.shape[self.coil.map_dim], *self.maps.shape[-self.spatial :])
        generator = torch.Generator(device="cpu").manual_seed(0)
        start = torch.randn(shape, dtype=self.maps.dtype, generator=generator).to(self.maps.device)
        return power_iteration(self, start, dims=(self.coil.coil_dim, *self.dims), iterations=iterations)

    def _reduced_operator(self) -> "ReducedSense":
        if self._reduced is None:
            rest = tuple(dim for dim in self.dims if dim not in self.full_dims)
            mask = torch.fft.ifftshift(self.mask, dim=rest) if rest else self.mask
            self._reduced = ReducedSense(self.coil, mask, rest)
        return self._reduced


class ReducedSense(LinearOperator):
    """SENSE with plain FFTs along the undersampled axes only; made by `SenseOperator.reduced`.

    Its range is k-space along `dims`, with the origin first, and image space along the others. Centring would only
    multiply its rows with phases and shift the rows and the image together, which the normal operator does not see.
    Without gradients the coil images of `normal` stay in one buffer that the operator keeps, because memory that is
    asked for anew costs more than the arithmetic; so one operator serves one thread.
    """

    def __init__(self, coil: CoilOperator, mask: Tensor, dims: tuple[int, ...]) -> None:
        self.coil, self.mask, self.dims = coil, mask, dims
        self._buffer: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return sampled data (..., coil, y | ky, x | kx) of images (..., map, y, x)."""
        return self._sampled(self.coil.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return images (..., map, y, x)."""
        return self.coil.adjoint(self._back(self.mask * y))

    def normal(self, x: Tensor) -> Tensor:
        """Return the ``A^H A x`` of the SENSE operator."""
        maps = self.coil.maps
        if torch.is_grad_enabled() and (x.requires_grad or maps.requires_grad):
            return self.coil.adjoint(self._back(self._sampled(self.coil.forward(x))))
        sets, images = maps.unbind(self.coil.map_dim), x.unbind(self.coil.coil_dim)
        shape = torch.broadcast_shapes(sets[0].shape, images[0].unsqueeze(self.coil.coil_dim).shape)
        if self._buffer is None or self._buffer.shape != shape or self._buffer.dtype != x.dtype:
            self._buffer = torch.empty(shape, dtype=x.dtype, device=x.device)
        for number, (set_, image) in enumerate(zip(sets, images, strict=True)):
            image = image.unsqueeze(self.coil.coil_dim)
            if number:
                self._buffer.addcmul_(set_, image)
            else:
                torch.mul(set_, image, out=self._buffer)
        back = self._back(self._sampled(self._buffer))
        # conj(sum(s conj(c))) instead of sum(conj(s) c), which would make conjugate maps each time.
        conjugate = back.conj_physical_()
        result = []
        for set_ in sets:
            # Frames of the mask alone do not fit into the buffer.
            fits = conjugate.shape == shape
            product = torch.mul(set_, conjugate, out=self._buffer) if fits else set_ * conjugate
            result.append(product.sum(dim=self.coil.coil_dim).conj_physical_())
        return torch.stack(result, dim=self.coil.coil_dim)

    def _sampled(self, coil_images: Tensor) -> Tensor:
        if not self.dims:
            return coil_images * self.mask
        data = torch.fft.fftn(coil_images, dim=self.dims, norm="ortho")
        if torch.broadcast_shapes(data.shape, self.mask.shape) != data.shape:
            return data * self.mask
        return data.mul_(self.mask)

    def _back(self, data: Tensor) -> Tensor:
        return torch.fft.ifftn(data, dim=self.dims, norm="ortho") if self.dims else data
