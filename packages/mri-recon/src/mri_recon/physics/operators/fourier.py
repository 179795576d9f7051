"""The centred Fourier transform as an operator."""

from torch import Tensor

from mri_recon.physics.fourier import fftc, ifftc
from mri_recon.physics.operators.base import LinearOperator

__all__ = ["FourierOperator"]


class FourierOperator(LinearOperator):
    """Centred orthonormal FFT over any axes, see `mri_recon.physics.fourier`; its adjoint is its inverse.

    Parameters
    ----------
    dims
        Axes, counted from the end to allow any batch.
    """

    def __init__(self, dims: tuple[int, ...] = (-2, -1)) -> None:
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """Transform to k-space."""
        return fftc(x, self.dims)

    def adjoint(self, y: Tensor) -> Tensor:
        """Transform back."""
        return ifftc(y, self.dims)

    def normal(self, x: Tensor) -> Tensor:
        """Return x: the transform is unitary."""
        return x
