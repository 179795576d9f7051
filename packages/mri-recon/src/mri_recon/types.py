"""Tensor types in the signatures of this package."""

from jaxtyping import Complex, Float, Shaped
from torch import Tensor

__all__ = ["CoilImages", "Image", "Kspace", "Maps", "Mask", "RealImage"]

Kspace = Complex[Tensor, "*batch coil ky kx"]
"""Multi-coil k-space, centred, orthonormal."""
CoilImages = Complex[Tensor, "*batch coil y x"]
"""Images of single coils."""
Image = Complex[Tensor, "*batch y x"]
"""Coil-combined image."""
RealImage = Float[Tensor, "*batch y x"]
"""Magnitude image."""
Maps = Complex[Tensor, "*batch map coil y x"]
"""Coil sensitivities; soft-SENSE has several sets."""
Mask = Shaped[Tensor, "*#mask"]
"""Sampling mask, broadcastable to k-space; not zero where sampled."""
