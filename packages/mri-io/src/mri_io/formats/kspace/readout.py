"""The readout: its oversampling, removed by cutting the field of view to its centre."""

import numpy as np

__all__ = ["crop_readout"]


def crop_readout(kspace: np.ndarray, length: int) -> np.ndarray:
    """Return centred k-space whose field of view along the last axis is cut to its centre.

    Parameters
    ----------
    kspace
        (..., kx) complex.
    length
        Columns that remain. The transforms are orthonormal: noise keeps its variance.

    Returns
    -------
    numpy.ndarray
        (..., length) complex64.
    """
    samples = kspace.shape[-1]
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=-1), norm="ortho"), axes=-1)
    start = samples // 2 - length // 2
    cropped = np.fft.ifftshift(image[..., start : start + length], axes=-1)
    return np.asarray(np.fft.fftshift(np.fft.fft(cropped, norm="ortho"), axes=-1), np.complex64)
