"""All metrics of a volume, per class."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mri_seg.metrics.overlap import dice, iou, same_shape
from mri_seg.metrics.surface import average_surface_distance, hausdorff95

__all__ = ["METRICS", "volume_metrics", "voxel_size_mm"]

METRICS: dict[str, dict[str, str]] = {
    "dice": {
        "unit": "",
        "better": "higher",
        "description": "Dice overlap; undefined where class and prediction are both empty",
    },
    "iou": {"unit": "", "better": "higher", "description": "intersection over union"},
    "hd95": {
        "unit": "mm",
        "better": "lower",
        "description": "95th percentile of surface distance, the larger direction; undefined where one is empty",
    },
    "asd": {"unit": "mm", "better": "lower", "description": "symmetric average surface distance"},
}


def voxel_size_mm(affine: np.ndarray | None) -> tuple[float, float, float] | None:
    """Return the voxel size along (slice, y, x) from an affine of (x, y, slice), None without an affine."""
    if affine is None:
        return None
    x, y, z = (float(n) for n in np.linalg.norm(affine[:3, :3], axis=0))
    return z, y, x


def volume_metrics(
    prediction: np.ndarray,
    reference: np.ndarray,
    labels: Mapping[int, str],
    spacing_mm: Sequence[float] | None,
) -> list[dict[str, float | str | None]]:
    """Return one row per class with Dice, IoU, HD95 and ASD.

    Parameters
    ----------
    prediction, reference
        Label maps (slice, y, x) on one grid.
    labels
        Ids and names of the classes.
    spacing_mm
        Voxel size (slice, y, x). None, where neither the distance of slices nor whether they are neighbours in space
        is known, gives the mean over slices of distances within the slice, in pixels, which the caller must say.

    Returns
    -------
    list of dict
        With the keys ``label``, ``dice``, ``iou``, ``hd95``, ``asd``; None where a metric is undefined.
    """
    same_shape(prediction, reference)
    rows: list[dict[str, float | str | None]] = []
    for number, name in labels.items():
        p, r = prediction == number, reference == number
        rows.append(
            {
                "label": name,
                "dice": dice(p, r),
                "iou": iou(p, r),
                "hd95": _distance(hausdorff95, p, r, spacing_mm),
                "asd": _distance(average_surface_distance, p, r, spacing_mm),
            }
        )
    return rows


def _distance(
    metric: Callable[..., float | None], p: np.ndarray, r: np.ndarray, spacing_mm: Sequence[float] | None
) -> float | None:
    if spacing_mm is not None:
        return metric(p, r, tuple(spacing_mm))
    slices = [metric(a, b, (1.0, 1.0)) for a, b in zip(p, r, strict=True)]
    defined = [value for value in slices if value is not None]
    return float(np.mean(defined)) if defined else None
