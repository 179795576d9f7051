"""The centred orthonormal FFT of the store's convention, in numpy, for simulation."""

import numpy as np

__all__ = ["fft2c", "ifft2c"]


def fft2c(image: np.ndarray) -> np.ndarray:
    """Transform the last two axes of an image to centred k-space, orthonormal."""
    shifted = np.fft.ifftshift(image, axes=(-2, -1))
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))


def ifft2c(kspace: np.ndarray) -> np.ndarray:
    """Transform the last two axes of centred k-space to an image, orthonormal."""
    shifted = np.fft.ifftshift(kspace, axes=(-2, -1))
    return np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))
