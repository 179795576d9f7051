"""Dice and IoU of binary masks, with the rule for empty classes said once.

Both masks empty: there is nothing to segment and nothing was, the value is undefined (None) and left out of means.
One of them empty: 0. This follows Maier-Hein et al. 2024 (Metrics reloaded, doi:10.1038/s41592-023-02151-z), which
warns of counting empty references as perfect; MONAI's `DiceMetric` with its defaults leaves every empty reference
out, also where the prediction is not empty.
"""

import numpy as np
from jaxtyping import Bool

from mri_seg.errors import ShapeError

__all__ = ["dice", "iou", "same_shape"]


def same_shape(prediction: np.ndarray, reference: np.ndarray) -> None:
    """Raise ShapeError when two masks are on different grids."""
    if prediction.shape != reference.shape:
        raise ShapeError(
            f"label maps: expected the reference's shape {reference.shape}, got {prediction.shape}. "
            "Resample one to the other's grid."
        )


def dice(prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."]) -> float | None:
    """Return ``2 |P R| / (|P| + |R|)`` (Dice 1945), None when both are empty.

    Parameters
    ----------
    prediction, reference
        Masks of one shape.

    Raises
    ------
    ShapeError
        When the shapes differ.
    """
    same_shape(prediction, reference)
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else None


def iou(prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."]) -> float | None:
    """Return ``|P R| / |P or R|`` (Jaccard 1912), None when both are empty. ``dice = 2 iou / (1 + iou)``."""
    same_shape(prediction, reference)
    union = int((prediction | reference).sum())
    return int((prediction & reference).sum()) / union if union else None
