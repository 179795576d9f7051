r"""JSENSE: maps of few coefficients and the image, estimated together (Ying and Sheng 2007, doi:10.1002/mrm.21245).

.. math:: \min_{a, m} \sum_c \| P F (\textstyle\sum_p a_{c p} B_p)\, m - y_c \|^2 + \lambda \|a\|^2 + \lambda \|m\|^2

P takes the calibration region. Alternately the coefficients a, by a direct solution that all coils share since the
columns :math:`P F (B_p m)` do not depend on the coil, and the image m, by conjugate gradients. The maps
are polynomials (as in the paper, eq. 9), or waves of low frequency, that is kernels in k-space.
"""

from typing import Literal

import torch
from jaxtyping import Complex
from pydantic import Field
from torch import Tensor

from mri_recon.calibration.low_resolution import CalibrationConfig, coil_images, reference_phase, unit_maps
from mri_recon.physics import fft2c, ifft2c, root_sum_of_squares

__all__ = ["JsenseConfig", "jsense"]


class JsenseConfig(CalibrationConfig):
    """Parameters of `jsense`."""

    basis: Literal["kernel", "polynomial"] = Field(default="kernel", description="what the maps are made of")
    order: int = Field(default=8, ge=1, description="width of the kernels, or degree of the polynomials")
    iterations: int = Field(default=10, ge=1, description="of maps and image")
    inner: int = Field(default=10, ge=1, description="conjugate-gradient steps for the image")
    regularisation: float = Field(default=1e-3, gt=0, description="lambda, relative to the largest coefficient of each")


def jsense(
    calibration: Complex[Tensor, "coil cy cx"], shape: tuple[int, int], config: JsenseConfig | None = None
) -> Complex[Tensor, "1 coil y x"]:
    """Estimate coil sensitivities of one slice; see `mri_recon.calibration.low_resolution.low_resolution`."""
    config = config or JsenseConfig()
    images = coil_images(calibration, shape)
    grid = tuple(min(2 * width, length) for width, length in zip(calibration.shape[-2:], shape, strict=True))
    data = calibration / torch.view_as_real(calibration).abs().max()
    y, x = (_basis(length, config, calibration) for length in grid)
    terms = _terms(y, x, config)
    low = coil_images(calibration, (grid[0], grid[1]))
    image = root_sum_of_squares(low) / reference_phase(low)
    coefficients = data.new_zeros((len(data), len(terms)))
    for _ in range(config.iterations):
        image = image / image.abs().max()
        coefficients = _fit(terms * image, data, config.regularisation)
        maps = torch.einsum("cp,pyx->cyx", coefficients, terms)
        image = _image(maps, data, image, config)
    y, x = (_basis(length, config, calibration) for length in shape)
    maps = torch.einsum("cp,pyx->cyx", coefficients, _terms(y, x, config))
    return unit_maps(maps * reference_phase(maps), images, config.support)


def _basis(length: int, config: JsenseConfig, like: Tensor) -> Complex[Tensor, "term position"]:
    """Return Legendre polynomials or waves along one axis, positions from -1 to 1."""
    position = 2 * (torch.arange(length, device=like.device) - length // 2).to(like.real.dtype) / length
    if config.basis == "kernel":
        frequency = torch.arange(config.order, device=like.device) - config.order // 2
        return torch.exp(1j * torch.pi * torch.outer(frequency.to(position.dtype), position))
    terms = [torch.ones_like(position), position]
    for n in range(1, config.order):
        terms.append(((2 * n + 1) * position * terms[n] - n * terms[n - 1]) / (n + 1))
    return torch.stack(terms).to(like.dtype)


def _terms(y: Tensor, x: Tensor, config: JsenseConfig) -> Complex[Tensor, "term y x"]:
    """Return products of the functions of both axes; of polynomials those of the total degree."""
    products = y[:, None, :, None] * x[None, :, None, :]
    if config.basis == "kernel":
        return products.flatten(0, 1)
    degree = torch.arange(len(y), device=y.device)
    return products[degree[:, None] + degree <= config.order]


def _take(kspace: Tensor, shape: torch.Size) -> Tensor:
    """Return the centre of k-space."""
    top, left = (n // 2 - w // 2 for n, w in zip(kspace.shape[-2:], shape[-2:], strict=True))
    return kspace[..., top : top + shape[-2], left : left + shape[-1]]


def _put(centre: Tensor, shape: torch.Size) -> Tensor:
    """Return k-space of a shape with this centre and zeros around; adjoint of `_take`."""
    out = centre.new_zeros((*centre.shape[:-2], *shape[-2:]))
    _take(out, centre.shape)[...] = centre
    return out


def _fit(products: Tensor, data: Tensor, regularisation: float) -> Complex[Tensor, "coil term"]:
    """Return the coefficients of the maps for an image, given the products of terms and image."""
    columns = _take(fft2c(products), data.shape).flatten(1)
    gram = columns.conj() @ columns.mT
    gram.diagonal().add_(regularisation * gram.diagonal().real.max())
    return torch.linalg.solve(gram, columns.conj() @ data.flatten(1).mT).mT


def _image(maps: Tensor, data: Tensor, start: Tensor, config: JsenseConfig) -> Complex[Tensor, "y x"]:
    """Return the image of given maps, by conjugate gradients on the normal equations."""
    weight = config.regularisation * maps.abs().square().sum(dim=0).max()

    def normal(image: Tensor) -> Tensor:
        kspace = _take(fft2c(maps * image), data.shape)
        return (maps.conj() * ifft2c(_put(kspace, maps.shape))).sum(dim=0) + weight * image

    image = start
    residual = (maps.conj() * ifft2c(_put(data, maps.shape))).sum(dim=0) - normal(image)
    direction, energy = residual, residual.abs().square().sum()
    for _ in range(config.inner):
        product = normal(direction)
        curvature = (direction.conj() * product).real.sum()
        if not curvature > 0:  # converged to the last digit
            break
        image = image + energy / curvature * direction
        residual = residual - energy / curvature * product
        previous, energy = energy, residual.abs().square().sum()
        direction = residual + energy / previous * direction
    return image
