"""Array types in the signatures of this package."""

from jaxtyping import Bool, Complex, Float
from numpy import ndarray
from torch import Tensor

__all__ = ["ImageBatch", "ImageVolume", "KspaceBatch", "LogitBatch", "MapBatch", "RegionVolume"]

KspaceBatch = Complex[Tensor, "batch coil ky kx"]
"""Measured k-space, zero where not sampled."""
MapBatch = Complex[Tensor, "batch map coil y x"]
"""Coil sensitivities."""
ImageBatch = Complex[Tensor, "batch y x"] | Float[Tensor, "batch y x"]
"""Reconstructed images: complex where coil-combined, real where root-sum-of-squares."""
LogitBatch = Float[Tensor, "batch label y x"]
"""Scores before softmax; label 0 is background."""
ImageVolume = Float[ndarray, "slice y x"]
"""Magnitudes of a volume."""
RegionVolume = Bool[ndarray, "slice y x"]
"""The region that a focused metric looks at."""
