"""Array types in the signatures of this package."""

from jaxtyping import Float, Int, Integer
from numpy import ndarray
from torch import Tensor

__all__ = ["ImageBatch", "LabelBatch", "LabelVolume", "LogitBatch"]

ImageBatch = Float[Tensor, "batch channel y x"]
"""Magnitude images."""
LogitBatch = Float[Tensor, "batch label y x"]
"""Scores before softmax; label 0 is background."""
LabelBatch = Int[Tensor, "batch y x"]
"""Label ids."""
LabelVolume = Integer[ndarray, "slice y x"]
"""A label map of a volume."""
