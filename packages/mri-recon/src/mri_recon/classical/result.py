"""What every classical reconstruction returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Reconstruction", "plain"]


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


def plain(values: Tensor) -> float | list[float]:
    """Return one number, or a list of one per batch element, for the settings."""
    numbers: list[float] = values.flatten().tolist()
    return numbers[0] if len(numbers) == 1 else numbers
