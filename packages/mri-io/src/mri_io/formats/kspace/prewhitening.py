"""Pre-whitening of coils from a noise scan (Pruessmann et al. 2001, doi:10.1002/mrm.1241, appendix)."""

from pathlib import Path

import numpy as np

from mri_io.errors import FormatError, NonFiniteError, ShapeError, expected_got

__all__ = ["covariance_whitener", "noise_whitener", "whitened"]

DEPENDENT = 1e-10
"""Smallest admissible eigenvalue of the coils' correlation: rounding to complex64 leaves 1e-14 of equal coils."""


def noise_whitener(noise: np.ndarray, bandwidth_ratio: float = 1.0, *, where: str | Path | None = None) -> np.ndarray:
    """Return the matrix that turns the coils' noise into white noise of unit variance.

    With the covariance R = E[n n^H] = L L^H of the noise in the data, the matrix is the inverse of L: noise n of the
    data becomes W n with E[W n n^H W^H] = 1, where the variance is that of the complex value.

    Parameters
    ----------
    noise
        (coil, sample), readouts without signal, of zero mean.
    bandwidth_ratio
        Noise variance in `noise` over that in the data: the ratio of their receiver bandwidths, which is the dwell time
        of the data over that of the noise scan, times the receiver's own factor where the file states one.
    where
        The file, for errors.

    Returns
    -------
    numpy.ndarray
        (coil, coil), complex128, lower triangular.

    Raises
    ------
    ShapeError
        When `noise` is not two-dimensional, or the ratio is not positive.
    NonFiniteError
        When the noise holds NaN or infinity.
    FormatError
        When the covariance is singular: fewer samples than coils, a coil without noise, dependent coils.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = 3 * (rng.standard_normal((2, 100000)) + 1j * rng.standard_normal((2, 100000)))
    >>> np.round(np.abs(noise_whitener(noise)), 2)  # the standard deviation is 3 * sqrt(2)
    array([[0.24, 0.  ],
           [0.  , 0.24]])
    """
    if noise.ndim != 2 or 0 in noise.shape:
        raise ShapeError(expected_got("noise", expected="(coil, sample)", got=noise.shape, where=where))
    if not (np.isfinite(bandwidth_ratio) and bandwidth_ratio > 0):
        raise ShapeError(expected_got("bandwidth ratio", expected="> 0", got=bandwidth_ratio, where=where))
    if not np.isfinite(noise).all():
        raise NonFiniteError(expected_got("noise", expected="finite numbers", got="NaN or infinity", where=where))
    samples = noise.astype(np.complex128)
    covariance = samples @ samples.conj().T / samples.shape[1]
    fix = "The coils cannot be pre-whitened: convert with --noise keep."
    return covariance_whitener(covariance / bandwidth_ratio, samples.shape[1], where=where, fix=fix)


def covariance_whitener(
    covariance: np.ndarray, samples: int | None = None, *, where: str | Path | None = None, fix: str = ""
) -> np.ndarray:
    """Return the inverse of the Cholesky factor of the coils' covariance, lower triangular, complex128.

    Parameters
    ----------
    covariance
        (coil, coil), Hermitian.
    samples
        That it comes from, as far as that is known.
    where, fix
        The file, and what to do, for errors.

    Raises
    ------
    FormatError
        When the covariance is singular: fewer samples than coils, a coil without noise, dependent coils.
    """
    _check_regular(covariance, samples or len(covariance), where, fix)
    return np.asarray(np.tril(np.linalg.inv(np.linalg.cholesky(covariance))))


def whitened(kspace: np.ndarray, whitener: np.ndarray) -> np.ndarray:
    """Return k-space (..., coil, ky, kx) with its coils mixed by the matrix of `noise_whitener`, in complex64."""
    mixed = np.einsum("dc,...cyx->...dyx", whitener.astype(np.complex64), kspace, optimize=True)
    return np.ascontiguousarray(mixed, dtype=np.complex64)


def _check_regular(covariance: np.ndarray, samples: int, where: str | Path | None, fix: str) -> None:
    coils = len(covariance)
    deviation = np.sqrt(np.diag(covariance).real)
    got = ""
    if samples < coils:
        got = f"{samples} samples of {coils} coils"
    elif not deviation.all():
        got = f"no noise in coils {', '.join(map(str, np.flatnonzero(deviation == 0)))}"
    elif np.linalg.eigvalsh(covariance / np.outer(deviation, deviation))[0] < DEPENDENT:
        got = "coils that depend on each other linearly"
    if got:
        raise FormatError(expected_got("noise", expected="a regular covariance", got=got, where=where, fix=fix))
