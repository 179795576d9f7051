"""Cartesian sampling as an operator."""

from torch import Tensor

from mri_recon.physics.operators.base import LinearOperator

__all__ = ["SamplingOperator"]


class SamplingOperator(LinearOperator):
    """Set to zero what is not sampled; a projection, so adjoint and normal are the same.

    Parameters
    ----------
    mask
        Broadcastable to k-space; not zero where sampled.
    """

    def __init__(self, mask: Tensor) -> None:
        self.sampled = mask != 0

    def forward(self, x: Tensor) -> Tensor:
        """Return k-space, zero where not sampled."""
        return x * self.sampled

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the same as `forward`."""
        return y * self.sampled

    def normal(self, x: Tensor) -> Tensor:
        """Return the same as `forward`."""
        return x * self.sampled
