r"""The SENSE operator of Cartesian parallel imaging, :math:`A = M F S`."""

import torch
from torch import Tensor

from mri_recon.errors import ShapeError
from mri_recon.physics.fourier import centre_phase, fftc, ifftc
from mri_recon.physics.operators.base import LinearOperator, power_iteration
from mri_recon.physics.operators.coil import CoilOperator
from mri_recon.physics.operators.reduced import ReducedSense

__all__ = ["SenseOperator"]


class SenseOperator(LinearOperator):
    r"""Sampled Fourier transform of coil images, :math:`A = M F S`.

    Pruessmann et al. 1999, doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S, section "Theory".
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
        When the maps are not complex, or the mask does not broadcast against their coils and grid.
    """

    def __init__(self, maps: Tensor, mask: Tensor, *, spatial: int = 2) -> None:
        self.coil = CoilOperator(maps, spatial=spatial)
        grid = maps.shape[-spatial:]
        if mask.ndim < spatial or any(m not in (1, n) for m, n in zip(mask.shape[-spatial:], grid, strict=True)):
            expected = ", ".join(f"{n} or 1" for n in grid)
            raise ShapeError(f"mask: expected (..., {expected}), got {tuple(mask.shape)}.")
        if mask.ndim > spatial and mask.shape[-spatial - 1] not in (1, maps.shape[-spatial - 1]):
            coils = maps.shape[-spatial - 1]
            raise ShapeError(f"mask: expected (..., {coils} coils or 1, grid), got {tuple(mask.shape)}.")
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
        expected = self.maps.shape[-self.spatial - 1 :]
        if kspace.shape[-self.spatial - 1 :] != expected:
            sizes = ", ".join(map(str, expected))
            raise ShapeError(
                f"kspace: expected (..., {sizes}), the coils and grid of the maps, got {tuple(kspace.shape)}."
            )
        rest = tuple(dim for dim in self.dims if dim not in self.full_dims)
        lines = self._lines(rest)
        if lines is not None:
            # What was not sampled need not be transformed.
            data = ifftc(kspace.index_select(rest[0], lines), self.full_dims)
            length = kspace.shape[rest[0]]
            places = (lines - length // 2) % length
            data = data * centre_phase(kspace, rest[0]).index_select(rest[0], places).conj()
            whole = torch.zeros(kspace.shape, dtype=kspace.dtype, device=kspace.device)
            return self._reduced_operator(), whole.index_copy(rest[0], places, data)
        data = ifftc(self.mask * kspace, self.full_dims)
        if rest:
            data = torch.fft.ifftshift(data, dim=rest)
            for dim in rest:
                data = data * centre_phase(data, dim).conj()
        return self._reduced_operator(), data

    def _lines(self, rest: tuple[int, ...]) -> Tensor | None:
        """Return the positions that are sampled along the only axis that is undersampled, None where there are more."""
        if len(rest) != 1 or not self.full_dims or self.mask.numel() != self.mask.shape[rest[0]]:
            return None
        return self.mask.flatten().nonzero()[:, 0]

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
            with torch.inference_mode(False):  # what is kept must serve a later training, too
                mask = self.mask.clone()
                mask = torch.fft.ifftshift(mask, dim=rest) if rest else mask
                self._reduced = ReducedSense(self.coil, mask, rest, self.spatial)
        return self._reduced
