"""The least-squares problem of SENSE with the shortest transforms, for solvers: made by `SenseOperator.reduced`."""

import math
from itertools import product

import torch
from torch import Tensor

from mri_recon.errors import ShapeError
from mri_recon.physics.operators.base import LinearOperator
from mri_recon.physics.operators.coil import CoilOperator

__all__ = ["ReducedSense"]

BLOCK_BYTES = 4 * 2**20
"""Coil images that `normal` works on at a time on a CPU: they stay in the cache from the first step to the last."""


class ReducedSense(LinearOperator):
    """SENSE with plain FFTs along the undersampled axes only.

    Its range is k-space along `dims`, with the origin first, and image space along the others. Centring would only
    multiply its rows with phases and shift the rows and the image together, which the normal operator does not see.
    Without gradients `normal` works in two buffers that the operator keeps, so one operator serves one thread. It
    writes into them, which forward-mode differentiation and `torch.func.vmap` cannot follow: there,
    ``adjoint(forward(x))`` has to do.

    Parameters
    ----------
    coil
        With maps (..., map, coil, y, x), or z, y, x.
    mask
        Real, broadcastable to (..., coil, ky, kx), origin first along `dims`, of size one along the others.
    dims
        Axes that are not fully sampled, negative.
    spatial
        Number of spatial dimensions.
    """

    def __init__(self, coil: CoilOperator, mask: Tensor, dims: tuple[int, ...], spatial: int) -> None:
        self.coil, self.mask, self.dims, self.spatial = coil, mask, dims, spatial
        self._buffers: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return sampled data (..., coil, y | ky, x | kx) of images (..., map, y, x)."""
        coil_images = self.coil.forward(x)
        if self.dims:
            coil_images = torch.fft.fftn(coil_images, dim=self.dims, norm="ortho")
        return coil_images * self.mask

    def adjoint(self, y: Tensor) -> Tensor:
        """Return images (..., map, y, x)."""
        if torch.is_grad_enabled() and (y.requires_grad or self.coil.maps.requires_grad):
            data = self.mask * y
            return self.coil.adjoint(torch.fft.ifftn(data, dim=self.dims, norm="ortho") if self.dims else data)
        return self._in_blocks(y, of_data=True)

    def normal(self, x: Tensor) -> Tensor:
        """Return the ``A^H A x`` of the SENSE operator."""
        if torch.is_grad_enabled() and (x.requires_grad or self.coil.maps.requires_grad):
            return self.adjoint(self.forward(x))
        return self._in_blocks(x, of_data=False)

    def _in_blocks(self, source: Tensor, *, of_data: bool) -> Tensor:
        """Return the adjoint of data (..., coil, ky, kx), or what `normal` returns of images (..., map, y, x)."""
        maps, spatial = self.coil.maps, self.spatial
        expected = maps.shape[-spatial - 1 if of_data else -spatial - 2], *maps.shape[-spatial:]
        if source.shape[-spatial - 1 :] != expected:
            what = "coil, then k-space" if of_data else "map, then the image"
            raise ShapeError(
                f"sense: expected (..., {', '.join(map(str, expected))}): {what}; got {tuple(source.shape)}."
            )
        mask = self.mask.reshape((1,) * (spatial + 1 - self.mask.ndim) + self.mask.shape)
        leads = (maps.shape[: -spatial - 2], source.shape[: -spatial - 1], mask.shape[: -spatial - 1])
        batch = torch.broadcast_shapes(*leads)
        lead = tuple(n for n in batch if n > 1) or (1,)
        maps, source, mask = (
            _with_lead(each, own, batch, lead)
            for each, own in ((maps, spatial + 2), (source, spatial + 1), (mask, spatial + 1))
        )
        grid = maps.shape[-spatial:]
        kind = torch.result_type(maps, source)
        out = torch.empty((*lead, maps.shape[-spatial - 2], *grid), dtype=kind, device=source.device)
        coils = maps.shape[-spatial - 1]
        element = coils * grid.numel() * maps.element_size()
        block = BLOCK_BYTES if source.device.type == "cpu" else element * math.prod(lead)
        axis, size, step = self._split(coils, grid, element, block)
        together = max(1, block // element)
        for outer in product(*(range(n) for n in lead[:-1])):
            for low in range(0, lead[-1], together):
                s, part, m, result = (_at(each, outer, low, low + together) for each in (maps, source, mask, out))
                for start in range(0, size, step):
                    some = min(step, size - start)
                    if axis is None:
                        own = part.narrow(1, start, some) if of_data else part
                        share = m if m.shape[1] == 1 else m.narrow(1, start, some)
                        self._block(s.narrow(2, start, some), own, share, result, of_data=of_data, add=start > 0)
                    else:
                        rows = (each.narrow(axis, start, some) for each in (s, part, result))
                        self._block(next(rows), next(rows), m, next(rows), of_data=of_data, add=False)
        return out.reshape(*batch, *out.shape[-spatial - 1 :])

    def _split(self, coils: int, grid: torch.Size, element: int, block: int) -> tuple[int | None, int, int]:
        """Return along what a batch element is worked through, its length, and how much of it at a time.

        An axis without transform, if there is one; else (None) coils.
        """
        free = [dim for dim in range(-self.spatial, 0) if dim not in self.dims]
        axis = max(free, key=lambda dim: grid[dim], default=None)
        size = coils if axis is None else grid[axis]
        return axis, size, max(1, min(size, block * size // max(element, 1)))

    def _block(self, maps: Tensor, source: Tensor, mask: Tensor, out: Tensor, *, of_data: bool, add: bool) -> None:
        """Write (or add) the result of some coils and rows: maps (b, map, coil, ...), out (b, map, ...)."""
        one, two = self._room((out.shape[0], *maps.shape[2:]), out)
        if of_data:
            torch.mul(source.expand(one.shape), mask, out=two if self.dims else one)
        else:
            for number in range(maps.shape[1]):
                image = source[:, number].unsqueeze(1)
                if number:
                    one.addcmul_(maps[:, number], image)
                else:
                    torch.mul(maps[:, number].expand(one.shape), image, out=one)
            if self.dims:
                torch.fft.fftn(one, dim=self.dims, norm="ortho", out=two)
                two.mul_(mask)
            else:
                one.mul_(mask)
        if self.dims:
            torch.fft.ifftn(two, dim=self.dims, norm="ortho", out=one)
        # conj(sum(s conj(c))) instead of sum(conj(s) c), which would make conjugate maps each time.
        one.conj_physical_()
        for number in range(maps.shape[1]):
            torch.mul(maps[:, number], one, out=two)
            total = two.sum(dim=1).conj_physical_()
            if add:
                out[:, number] += total
            else:
                out[:, number] = total

    def _room(self, shape: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return two tensors to work in; memory that is asked for anew costs more than the arithmetic."""
        length = torch.Size(shape).numel()
        if self._buffers is None or self._buffers[0].numel() < length or self._buffers[0].dtype != like.dtype:
            with torch.inference_mode(False):  # a later training could not write into inference tensors
                self._buffers = (
                    torch.empty(length, dtype=like.dtype, device=like.device),
                    torch.empty(length, dtype=like.dtype, device=like.device),
                )
        one, two = (buffer[:length].view(shape) for buffer in self._buffers)
        return one, two


def _with_lead(tensor: Tensor, own: int, batch: tuple[int, ...], lead: tuple[int, ...]) -> Tensor:
    """Return a view with the batch axes that are longer than one, and `own` others."""
    sizes = (1,) * (len(batch) + own - tensor.ndim) + tensor.shape
    kept = tuple(size for size, n in zip(sizes[: len(batch)], batch, strict=True) if n > 1) or (1,) * len(lead)
    return tensor.reshape(*kept, *sizes[len(batch) :])


def _at(tensor: Tensor, outer: tuple[int, ...], low: int, high: int) -> Tensor:
    """Return some elements along the last batch axis, of the one that serves all where there is only one."""
    for index in outer:
        tensor = tensor[index if tensor.shape[0] > 1 else 0]
    return tensor[low:high] if tensor.shape[0] > 1 else tensor
