"""Distances between the surfaces of two masks, in millimetres.

The surface of a mask is the mask without its erosion by the nearest neighbours. The distance of each surface voxel to
the other surface is read from a Euclidean distance transform with the voxel spacing.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from mri_seg.errors import ShapeError
from mri_seg.metrics.overlap import same_shape

__all__ = ["average_surface_distance", "hausdorff95", "surface_distances"]


def surface_distances(
    prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."], spacing_mm: Sequence[float]
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " r"]] | None:
    """Return the distances from each surface to the other, None when a mask is empty.

    Parameters
    ----------
    prediction, reference
        Masks of one shape.
    spacing_mm
        Voxel size along each axis.

    Returns
    -------
    tuple of numpy.ndarray, or None
        From the prediction's surface to the reference's, and back, millimetres.

    Raises
    ------
    ShapeError
        When the shapes differ or the spacing does not fit them.
    """
    same_shape(prediction, reference)
    if len(spacing_mm) != prediction.ndim:
        raise ShapeError(f"spacing: expected {prediction.ndim} values, one per axis, got {len(spacing_mm)}.")
    if not prediction.any() or not reference.any():
        return None
    box = _bounding_box(prediction | reference)
    # A margin of one background voxel: a mask that touches the border has a surface there.
    p, r = np.pad(prediction[box], 1), np.pad(reference[box], 1)
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (p, r)]
    away = [ndimage.distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces]
    return away[1][surfaces[0]], away[0][surfaces[1]]


def hausdorff95(
    prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."], spacing_mm: Sequence[float]
) -> float | None:
    """Return the larger of the two 95th percentiles of surface distance, millimetres.

    The percentile is taken in each direction and the larger one returned, as MONAI does; the percentile of the pooled
    distances, which some tools report, is smaller.
    """
    distances = surface_distances(prediction, reference, spacing_mm)
    return None if distances is None else float(max(np.percentile(d, 95) for d in distances))


def average_surface_distance(
    prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."], spacing_mm: Sequence[float]
) -> float | None:
    """Return the symmetric mean surface distance (ASD), millimetres: the mean over both surfaces pooled.

    Heimann et al. 2009, doi:10.1109/TMI.2009.2013851.
    """
    distances = surface_distances(prediction, reference, spacing_mm)
    return None if distances is None else float(np.concatenate(distances).mean())


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(found)
