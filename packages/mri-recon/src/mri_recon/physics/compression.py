r"""Coil compression: fewer virtual coils that keep nearly all of the signal.

SVD (Buehrer 2007, doi:10.1002/mrm.21237): the principal components of the calibration data over coils, one matrix for
all of k-space. Geometric decomposition (Zhang 2013, doi:10.1002/mrm.24267): one matrix for every position along a fully
sampled axis, where fewer coils see anything; neighbouring matrices are aligned by a unitary rotation (eqs. 5 and 6),
so that virtual coils stay smooth. The matrices have orthonormal rows: white noise stays white.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics.fourier import fft1c, ifft1c

__all__ = ["CoilCompression", "geometric_compression", "svd_compression", "virtual_coils"]


@dataclass(frozen=True)
class CoilCompression:
    """A compression that can be applied.

    Attributes
    ----------
    matrix
        (virtual, coil), or (position, virtual, coil) with rows orthonormal.
    kept
        Share of the energy of the calibration data that is kept.
    axis
        -1 or -2: the axis along which the matrix changes, in image space; None for one matrix.
    """

    matrix: Tensor
    kept: float
    axis: Literal[-2, -1] | None = None

    @property
    def coils(self) -> int:
        """Number of virtual coils."""
        return int(self.matrix.shape[-2])

    def apply(self, kspace: Complex[Tensor, "*batch coil ky kx"]) -> Complex[Tensor, "*batch virtual ky kx"]:
        """Return k-space of the virtual coils."""
        if self.axis is None:
            self._check(kspace, -3)
            return torch.einsum("vc,...cyx->...vyx", self.matrix.to(kspace.dtype), kspace)
        return fft1c(self.apply_images(ifft1c(kspace, self.axis)), self.axis)

    def apply_images(self, images: Complex[Tensor, "*batch coil y x"]) -> Complex[Tensor, "*batch virtual y x"]:
        """Return coil images, or maps (..., map, coil, y, x), of the virtual coils.

        The norm of compressed maps is below one by what the compression leaves out.
        """
        self._check(images, -3)
        if self.axis is None:
            return torch.einsum("vc,...cyx->...vyx", self.matrix.to(images.dtype), images)
        if images.shape[self.axis] != len(self.matrix):
            raise ShapeError(f"axis {self.axis}: expected {len(self.matrix)} positions, got {images.shape[self.axis]}.")
        letters = "yvc,...cyx->...vyx" if self.axis == -2 else "xvc,...cyx->...vyx"
        return torch.einsum(letters, self.matrix.to(images.dtype), images)

    def apply_covariance(self, covariance: Complex[Tensor, "coil coil"]) -> Complex[Tensor, "*position v v"]:
        """Return the noise covariance of the virtual coils, at every position where the matrix changes."""
        self._check(covariance, -1)
        matrix = self.matrix.to(covariance.dtype)
        return matrix @ covariance @ matrix.mH

    def _check(self, data: Tensor, axis: int) -> None:
        if data.shape[axis] != self.matrix.shape[-1]:
            raise ShapeError(f"expected {self.matrix.shape[-1]} coils on axis {axis}, got {tuple(data.shape)}.")


def virtual_coils(energies: Float[Tensor, " coil"], coils: int | None = None, energy: float = 0.99) -> int:
    """Return how many coils to keep.

    Parameters
    ----------
    energies
        Of the principal components, descending.
    coils
        This number, or
    energy
        as many as hold this share of the energy.

    Raises
    ------
    ConfigError
        For more virtual coils than coils, a share that is none, or data of zeros or not finite.
    """
    total = energies.sum()
    if not (torch.isfinite(total) and total > 0):
        raise ConfigError("calibration: expected finite data that are not all zero. Check the k-space.")
    if coils is not None:
        if not 1 <= coils <= len(energies):
            raise ConfigError(f"coils: expected 1 to {len(energies)}, the number of coils, got {coils}.")
        return coils
    if not 0 < energy <= 1:
        raise ConfigError(f"energy: expected a share above 0 and at most 1, got {energy}.")
    kept = energies.cumsum(0) / total
    return min(len(energies), int((kept < energy * (1 - 1e-6)).sum()) + 1)


def svd_compression(
    calibration: Complex[Tensor, "*batch coil ky kx"], coils: int | None = None, energy: float = 0.99
) -> CoilCompression:
    """Return the compression to the principal components of calibration data.

    Parameters
    ----------
    calibration
        Any part of k-space, batches (slices, frames) together; not sampled positions are zero.
    coils, energy
        See `virtual_coils`.
    """
    covariance = _covariance(calibration.movedim(-3, 0).flatten(1))
    values, vectors = torch.linalg.eigh(covariance)
    values = values.flip(-1).clamp_min(0)
    count = virtual_coils(values, coils, energy)
    matrix = vectors.flip(-1)[:, :count].mH
    return CoilCompression(_steady(matrix), float(values[:count].sum() / values.sum()))


def geometric_compression(
    calibration: Complex[Tensor, "*batch coil ky kx"],
    coils: int | None = None,
    energy: float = 0.99,
    *,
    axis: Literal[-2, -1] = -1,
    window: int = 5,
) -> CoilCompression:
    """Return a compression that changes along a fully sampled axis.

    Parameters
    ----------
    calibration
        K-space that is whole along `axis`, its centre along the other.
    coils, energy
        See `virtual_coils`; the number that the mean over positions needs, the same at every position.
    axis
        Fully sampled, as the readout is.
    window
        Positions that share their data, against noise and for smoothness.
    """
    hybrid = ifft1c(calibration, axis).movedim(axis, 0).movedim(-2, 1).flatten(2)  # position, coil, sample
    local = torch.stack([_covariance(part) for part in hybrid])
    near = (
        torch.arange(len(local), device=local.device)[:, None] - torch.arange(len(local), device=local.device)
    ).abs()
    local = torch.einsum("pq,qab->pab", (2 * near < window).to(local.dtype), local)
    values, vectors = torch.linalg.eigh(local)
    energies = values.flip(-1).clamp_min(0)
    count = virtual_coils(energies.sum(dim=0), coils, energy)
    matrices = vectors.flip(-1)[..., :count].mH
    aligned = [_steady(matrices[0])]
    for matrix in matrices[1:]:
        left, _, right = torch.linalg.svd(aligned[-1] @ matrix.mH)
        aligned.append(left @ right @ matrix)
    return CoilCompression(torch.stack(aligned), float(energies[:, :count].sum() / energies.sum()), axis)


def _covariance(data: Complex[Tensor, "coil sample"]) -> Complex[Tensor, "coil coil"]:
    """Return the covariance, in double precision since it squares the data."""
    data = data.to(torch.complex128)
    return data @ data.mH


def _steady(matrix: Tensor) -> Tensor:
    """Give every row the phase that makes its largest entry real, so that results are reproducible."""
    largest = matrix.gather(-1, matrix.abs().argmax(dim=-1, keepdim=True))
    return matrix * torch.exp(-1j * largest.angle())
