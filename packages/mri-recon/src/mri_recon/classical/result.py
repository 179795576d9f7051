"""What every classical reconstruction returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Reconstruction"]


@dataclass(frozen=True)
class Reconstruction:
    """Outcome of a reconstruction.

    Attributes
    ----------
    image
        (..., y, x) for one map set or without maps, else (..., map, y, x).
    iterations
        Number done, 0 for a direct method.
    residual
        What the method's stopping rule looks at, the largest in the batch.
    reason
        Why it stopped: ``"converged"``, ``"iterations"``, or what else the method says.
    settings
        What was chosen from the data, such as the regularisation.
    """

    image: Tensor
    iterations: int = 0
    residual: float = 0.0
    reason: str = "converged"
    settings: Mapping[str, Any] = field(default_factory=dict)
