r"""The calibration matrix of k-space: its kernels, their correlation, and how many of them are signal.

The windows of the calibration region are the rows of a matrix A (Uecker 2014, doi:10.1002/mrm.24751, eq. 3); its
dominant right singular vectors are the kernels. A has the structure of a Hankel matrix, but the covariance of its
noise is a multiple of the identity, and its largest singular value lies within 3 % of the edge of Marchenko and Pastur.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Complex, Float
from pydantic import Field
from torch import Tensor

from mri_recon.errors import ConfigError

__all__ = ["Threshold", "calibration_matrix", "kernel_correlation", "kernel_space", "local_matrices", "noise_rank"]

_SLACK = 1.1
"""By how much the structure widens the spectrum of noise, in squared singular values."""

Threshold = Annotated[float, Field(ge=0, lt=1)] | Literal["auto"]


def calibration_matrix(calibration: Complex[Tensor, "coil cy cx"], width: int) -> Complex[Tensor, "window entry"]:
    """Return the windows of a calibration region as rows, (window, coil * width^2)."""
    windows = calibration.unfold(-2, width, 1).unfold(-2, width, 1)  # coil, wy, wx, width, width
    return windows.permute(1, 2, 0, 3, 4).reshape(-1, calibration.shape[0] * width * width)


def kernel_space(calibration: Complex[Tensor, "coil cy cx"], width: int, threshold: Threshold) -> tuple[Tensor, float]:
    """Return the kernels that are signal, (kernel, coil, width, width), and the standard deviation of the noise.

    Parameters
    ----------
    calibration
        Fully sampled centre of k-space.
    width
        Of the kernels.
    threshold
        Of singular values, relative to the largest; ``"auto"``: those above the noise, see `noise_rank`.

    Notes
    -----
    From the smaller of the two Gram matrices, in double precision: squaring halves the digits.

    Raises
    ------
    ConfigError
        When nothing is above the noise.
    """
    matrix = calibration_matrix(calibration.to(torch.complex128), width)
    wide = matrix.shape[0] < matrix.shape[1]
    values, vectors = torch.linalg.eigh(matrix @ matrix.mH if wide else matrix.mH @ matrix)
    values = values.clamp_min(0)
    rank, noise = noise_rank(values.flip(0), matrix.shape)
    if threshold != "auto":
        rank = int((values > threshold**2 * values[-1]).sum())
    if rank == 0:
        raise ConfigError(
            "calibration: no singular value is above the noise; expected a signal in the centre of k-space. Check the "
            "data, or give a threshold: --set threshold=0.02"
        )
    kept = vectors[:, -rank:]
    if wide:
        kept = (matrix.mH @ kept) / values[-rank:].sqrt()
    return kept.mT.reshape(rank, calibration.shape[0], width, width).conj().to(calibration.dtype), noise


def noise_rank(energies: Float[Tensor, " value"], shape: tuple[int, ...]) -> tuple[int, float]:
    """Return how many singular values are signal, and the standard deviation of the noise of the entries.

    The smallest ones are noise as long as their range is not more than the law of Marchenko and Pastur allows for
    their mean (Veraart 2016, doi:10.1016/j.neuroimage.2016.08.016, eqs. 10-12).

    Parameters
    ----------
    energies
        Squared singular values, descending.
    shape
        Of the matrix.
    """
    short, long = sorted(shape)
    ascending = energies.flip(0) / long
    count = torch.arange(1, short + 1, device=energies.device, dtype=energies.dtype)
    mean = ascending.cumsum(0) / count
    span = (ascending - ascending[0]) / (4 * (count / (long - short + count)).sqrt())
    noise = (span < _SLACK * mean).nonzero()
    last = int(noise[-1]) if len(noise) else -1
    return short - last - 1, float(mean[last].sqrt()) if last >= 0 else 0.0


def kernel_correlation(kernels: Complex[Tensor, "kernel coil w w"]) -> Complex[Tensor, "coil coil lag lag"]:
    """Return the sum over kernels of the correlation of their coils, by displacement -w + 1 .. w - 1."""
    width, coils = kernels.shape[-1], kernels.shape[1]
    span = 2 * width - 1
    spectrum = torch.fft.fft2(kernels, s=(span, span)).permute(2, 3, 1, 0).reshape(span * span, coils, -1)
    power = (spectrum @ spectrum.mH).reshape(span, span, coils, coils).permute(2, 3, 0, 1)
    return torch.fft.fftshift(torch.fft.ifft2(power), dim=(-2, -1)) / width**2


def local_matrices(
    correlation: Complex[Tensor, "coil coil lag lag"],
    y: Float[Tensor, " y"],
    x: Float[Tensor, " x"],
) -> Complex[Tensor, "y x coil coil"]:
    """Evaluate the trigonometric polynomial M(r) at positions in fields of view, zero in the centre (eq. 12)."""
    coils, span = correlation.shape[0], correlation.shape[-1]
    lags = torch.arange(span, device=correlation.device) - span // 2

    def waves(positions: Tensor) -> Tensor:
        phase = 2 * torch.pi * torch.outer(positions, lags)
        return torch.polar(torch.ones_like(phase), phase).to(correlation.dtype)

    along_y = waves(y) @ correlation.permute(2, 3, 0, 1).reshape(span, -1)
    rows = waves(x) @ along_y.reshape(len(y), span, coils * coils)
    return rows.reshape(len(y), len(x), coils, coils)
