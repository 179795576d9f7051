r"""The centred orthonormal Fourier transform, the convention of the whole project.

.. math:: (F x)_k = N^{-1/2} \sum_n x_n \exp(-2 \pi i (k - c)(n - c) / N), \quad c = \lfloor N / 2 \rfloor

k-space has its centre in the middle of the array and keeps the energy of the image. For even lengths the shifts
become a multiplication with alternating signs (the phase ``exp(i pi n)``) before and after; for odd lengths they are
rolls.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Complex
from torch import Tensor

__all__ = ["centre_phase", "fft1c", "fft2c", "fftc", "ifft1c", "ifft2c", "ifftc"]


@lru_cache(maxsize=64)
def _signs(length: int, inverse_constant: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``(-1)^n``; with the constant ``(-1)^(N / 2)`` that the shift of both sides leaves."""
    # Kept tensors must not be inference tensors: a later training could not save them for its backward pass.
    with torch.inference_mode(False):
        signs = 1 - 2 * (torch.arange(length, device=device) % 2)
        if inverse_constant and (length // 2) % 2:
            signs = -signs
        return signs.to(dtype)


def _modulation(x: Tensor, dims: tuple[int, ...], *, constant: bool) -> Tensor:
    """Return the product of the signs of some axes, of size one along the others."""
    factor: Tensor | None = None
    for dim in dims:
        shape = [1] * x.ndim
        shape[dim] = -1
        signs = _signs(x.shape[dim], constant, x.real.dtype, x.device).view(shape)
        factor = signs if factor is None else factor * signs
    assert factor is not None
    return factor


def _transform(x: Tensor, dims: tuple[int, ...], *, inverse: bool) -> Tensor:
    if not dims:
        return x
    function = torch.fft.ifftn if inverse else torch.fft.fftn
    even = tuple(dim for dim in dims if x.shape[dim] % 2 == 0)
    odd = tuple(dim for dim in dims if x.shape[dim] % 2)
    if odd:
        x = torch.fft.ifftshift(x, dim=odd)
    if even:
        x = x * _modulation(x, even, constant=True)
    x = function(x, dim=dims, norm="ortho")
    if even:
        x = x.mul_(_modulation(x, even, constant=False))  # in place: nothing else holds the transform
    return torch.fft.fftshift(x, dim=odd) if odd else x


def centre_phase(x: Tensor, dim: int) -> Tensor:
    r"""Return what the centre of the image means in k-space, :math:`\exp(2 \pi i k c / N)`, origin of k first.

    ``fft(ifftshift(x)) = centre_phase * fft(x)`` along the axis.

    Parameters
    ----------
    x
        Complex; the length of its axis `dim`, its type and device are used.
    dim
        The axis.

    Returns
    -------
    Tensor
        Complex, broadcastable to `x`.
    """
    length = x.shape[dim]
    shape = [1] * x.ndim
    shape[dim] = -1
    # k c modulo N in integers: the product itself would lose digits of the angle.
    turns = (torch.arange(length, device=x.device) * (length // 2)) % max(length, 1)
    angle = (2 * torch.pi / max(length, 1)) * turns.to(torch.float64)
    return torch.polar(torch.ones_like(angle), angle).to(x.dtype).view(shape)


def fftc(image: Complex[Tensor, "*batch"], dims: Sequence[int]) -> Complex[Tensor, "*batch"]:
    """Transform images to k-space over any axes.

    Parameters
    ----------
    image
        Complex, of any shape.
    dims
        Axes to transform; none: the image itself.

    Returns
    -------
    Tensor
        Of the same shape, centred along `dims`, same energy.
    """
    return _transform(image, tuple(dims), inverse=False)


def ifftc(kspace: Complex[Tensor, "*batch"], dims: Sequence[int]) -> Complex[Tensor, "*batch"]:
    """Transform k-space to images over any axes; inverse and adjoint of `fftc`."""
    return _transform(kspace, tuple(dims), inverse=True)


def fft2c(image: Complex[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
    """Transform images to k-space over the last two axes.

    Parameters
    ----------
    image
        (..., y, x).

    Returns
    -------
    Tensor
        (..., ky, kx), centred, same energy.
    """
    return _transform(image, (-2, -1), inverse=False)


def ifft2c(kspace: Complex[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
    """Transform k-space to images over the last two axes; inverse and adjoint of `fft2c`."""
    return _transform(kspace, (-2, -1), inverse=True)


def fft1c(signal: Complex[Tensor, "*batch"], dim: int) -> Complex[Tensor, "*batch"]:
    """Transform one axis to k-space."""
    return _transform(signal, (dim,), inverse=False)


def ifft1c(signal: Complex[Tensor, "*batch"], dim: int) -> Complex[Tensor, "*batch"]:
    """Transform one axis back; inverse and adjoint of `fft1c`."""
    return _transform(signal, (dim,), inverse=True)
