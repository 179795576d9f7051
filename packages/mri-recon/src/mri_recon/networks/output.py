"""What every reconstruction network returns."""

from typing import NamedTuple

from jaxtyping import Shaped
from torch import Tensor

__all__ = ["ReconOutput"]


class ReconOutput(NamedTuple):
    """A reconstruction: `image` (batch, y, x), complex where coils were combined by maps, real for RSS."""

    image: Shaped[Tensor, "batch y x"]
