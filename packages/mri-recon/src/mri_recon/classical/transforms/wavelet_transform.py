r"""The orthonormal wavelet transform of Daubechies, periodic, for any size.

One level takes the even and odd rows of a circulant matrix to low and high frequencies,

.. math:: l_i = \sum_k h_k x_{2 i + k}, \qquad g_i = \sum_k (-1)^k h_{K - 1 - k} x_{2 i + k}

(Daubechies 1988, doi:10.1002/cpa.3160410705, section 4; Mallat 1989, doi:10.1109/34.192463, for the pyramid). For an
odd length the rows that meet at the seam are no longer orthogonal; they are replaced by the nearest orthonormal ones,
so the transform keeps the energy for every size and its inverse is its adjoint. The filters are short, so only rows at
the seam change. Applied as a matrix per axis, which on images of usual size costs less than strided convolutions, and
in which a circular shift of the image is a permutation that costs nothing.
"""

from functools import lru_cache
from math import comb, sqrt

import numpy as np
import torch
from torch import Tensor

from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics import LinearOperator

__all__ = ["COARSEST", "WaveletTransform", "daubechies"]

COARSEST = 16
"""By default levels are added while the coarsest approximation keeps so many samples along its shorter axis."""


@lru_cache(maxsize=16)
def daubechies(moments: int) -> np.ndarray:
    """Return the low-pass filter of Daubechies with so many vanishing moments, of minimal phase, float64 (2 moments,).

    By spectral factorisation (Daubechies 1992, Ten lectures on wavelets, eq. 6.1.12): the roots inside the unit circle.
    """
    if not 1 <= moments <= 10:
        raise ConfigError(f"wavelet: expected 1 to 10 vanishing moments, got {moments}.")
    # P(y) with y = sin^2(omega / 2) = (2 - z - 1 / z) / 4; each root y gives a pair z, 1 / z.
    polynomial = [comb(moments - 1 + k, k) for k in range(moments)][::-1]
    half = 1 - 2 * np.roots(polynomial).astype(complex)
    pairs = np.stack([half + np.sqrt(half**2 - 1), half - np.sqrt(half**2 - 1)])
    inside = np.where(np.abs(pairs[0]) < 1, pairs[0], pairs[1])
    filters = np.poly(np.concatenate([-np.ones(moments), inside])).real
    return np.asarray(filters * sqrt(2) / filters.sum())


@lru_cache(maxsize=64)
def _analysis_matrix(length: int, moments: int) -> np.ndarray:
    """Return one level along one axis, orthogonal (length, length): low frequencies first."""
    low_pass = daubechies(moments)
    high_pass = low_pass[::-1] * (-1.0) ** np.arange(len(low_pass))
    rows = np.arange((length + 1) // 2)[:, None] * 2
    columns = (rows + np.arange(len(low_pass)) - len(low_pass) // 2 + 1) % length
    low, high = np.zeros((2, len(rows), length))
    np.add.at(low, (rows // 2, columns), low_pass)
    np.add.at(high, (rows // 2, columns), high_pass)
    if length % 2 == 0:
        return np.concatenate([low, high])
    low = _nearest_orthonormal(low)
    high = high[: length // 2]
    return np.concatenate([low, _nearest_orthonormal(high - high @ low.T @ low)])


def _nearest_orthonormal(rows: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(left @ right)


class WaveletTransform(LinearOperator):
    """Wavelet pyramid over the last two axes, orthonormal; coefficients in an array of the image's shape.

    The approximation of the coarsest level is in the corner ``[:coarsest[0], :coarsest[1]]``.

    Parameters
    ----------
    shape
        Of the images, (y, x), at least 2 x 2 when there are levels.
    moments
        Vanishing moments: 1 is Haar, 2 the filter of four taps (``db2``, ``dau2`` in BART), 4 that of eight.
    levels
        Number; None for as many as leave `COARSEST` samples along the shorter axis.
    dtype, device
        Of the images.

    Raises
    ------
    ConfigError
        When there are more levels than the image can be halved.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        moments: int = 2,
        levels: int | None = None,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = "cpu",
    ) -> None:
        real = torch.empty(0, dtype=dtype).real.dtype
        sizes = [shape]
        while min(sizes[-1]) >= 2 * COARSEST if levels is None else len(sizes) <= levels:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
            if min(sizes[-2]) < 2:
                raise ConfigError(f"wavelet: expected at most {len(sizes) - 2} levels for {shape}, got {levels}.")
        self.shape, self.levels, self.coarsest = shape, len(sizes) - 1, sizes[-1]
        self._matrices = [
            tuple(torch.from_numpy(_analysis_matrix(n, moments)).to(device, real) for n in size) for size in sizes[:-1]
        ]

    def forward(self, x: Tensor, shift: tuple[int, int] = (0, 0)) -> Tensor:
        """Return the coefficients of images (..., y, x), moved by `shift` pixels first."""
        if tuple(x.shape[-2:]) != self.shape:
            raise ShapeError(f"wavelet: expected images of {self.shape}, got {tuple(x.shape[-2:])}.")
        # Real and imaginary part as two images: real products of matrices, each over contiguous memory.
        parts = torch.view_as_real(x).movedim(-1, 0).contiguous()
        for level, (rows, columns) in enumerate(self._matrices):
            ny, nx = rows.shape[0], columns.shape[0]
            if level == 0:
                rows, columns = rows.roll(-shift[0], 1), columns.roll(-shift[1], 1)
            fine = rows @ parts[..., :ny, :nx] @ columns.mT
            parts = fine if level == 0 else _with_corner(parts, fine)
        return torch.complex(parts[0], parts[1])

    def adjoint(self, y: Tensor, shift: tuple[int, int] = (0, 0)) -> Tensor:
        """Return the images of coefficients; the inverse of `forward` with the same shift."""
        parts = torch.view_as_real(y).movedim(-1, 0).contiguous()
        for level in reversed(range(self.levels)):
            rows, columns = self._matrices[level]
            ny, nx = rows.shape[0], columns.shape[0]
            if level == 0:
                rows, columns = rows.roll(-shift[0], 1), columns.roll(-shift[1], 1)
            coarse = rows.mT @ parts[..., :ny, :nx] @ columns
            parts = coarse if level == 0 else _with_corner(parts, coarse)
        return torch.complex(parts[0], parts[1])

    def normal(self, x: Tensor) -> Tensor:
        """Return x: the transform is orthonormal."""
        return x


def _with_corner(parts: Tensor, corner: Tensor) -> Tensor:
    """Replace the first rows and columns; a fresh tensor, so that it can be differentiated."""
    parts = parts.clone() if parts.requires_grad else parts
    parts[..., : corner.shape[-2], : corner.shape[-1]] = corner
    return parts
