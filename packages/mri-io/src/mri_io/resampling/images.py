"""Images on another grid: B-splines or linear interpolation, smoothed before where the target is coarser."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from scipy import ndimage

from mri_io.resampling.grids import Grid, Slab, index_map, slabs

__all__ = ["Interpolation", "resampled_image", "smoothing"]

Interpolation = Literal["bspline", "linear", "nearest"]
_ORDERS = {"bspline": 3, "linear": 1, "nearest": 0}
_DECAY = 14
"""Voxels over which what is left out at the border of a slab fades from spline coefficients: 0.27^14 < 1e-7."""
_TRUNCATE = 4.0
_FWHM = 8 * np.log(2)

Read = Callable[[slice], np.ndarray]


def smoothing(source: Grid, target: Grid) -> np.ndarray:
    """Return the standard deviations, in voxels (slice, y, x) of the source, of the filter against aliasing.

    Point spreads are taken as Gaussian, their full width at half maximum the voxel size; the filter widens that of the
    source to that of the target, along the axes of the source. Nothing where the target is finer.

    Cardoso et al., Scale factor point spread function matching: beyond aliasing in image resampling, MICCAI 2015,
    section 2.2.
    """
    matrix, _ = index_map(source, target)
    widths = (matrix**2).sum(axis=1)
    return np.sqrt(np.maximum(widths - 1, 0) / _FWHM) * (widths > 1 + 1e-6) * (np.array(source.shape) > 1)


def resampled_image(
    read: Read, dtype: np.dtype, source: Grid, target: Grid, method: Interpolation, *, gaps: bool = False
) -> Iterator[np.ndarray]:
    """Yield an image on another grid, slabs along its first dimension.

    Parameters
    ----------
    read
        Returns slices of the source, real or complex (n, y, x).
    dtype
        Of the result; complex components are resampled one by one.
    source, target
        The grids.
    method
        ``bspline`` (order 3, prefiltered), ``linear`` or ``nearest``. The first two smooth before, see `smoothing`.
    gaps
        Whether the image has voxels without a value, NaN. Values are then taken from those that are known, and where
        these have less than half of the weight, or outside the field of view, the result is NaN; else 0 outside.
    """
    sigma = np.zeros(3) if method == "nearest" else smoothing(source, target)
    margin = (_DECAY if method == "bspline" else 2) + _TRUNCATE * sigma[0]
    for slab in slabs(source, target):
        if not slab.inside.any():
            yield np.full(slab.inside.shape, np.nan if gaps else 0, dtype)
            continue
        chosen = slab.source_slices(margin, source.shape[0])
        block, coordinates = read(chosen), _within(slab, chosen.start, source.shape)
        if gaps:
            result = _with_gaps(block.astype(np.float64), coordinates, sigma, method)
            yield np.where(slab.inside, result, np.nan).astype(dtype)
        elif block.dtype.kind == "c":
            parts = [_interpolated(part.astype(np.float64), coordinates, sigma, method) for part in _parts(block)]
            yield np.where(slab.inside, parts[0] + 1j * parts[1], 0).astype(dtype)
        else:
            result = _interpolated(block if method == "nearest" else block.astype(float), coordinates, sigma, method)
            yield np.where(slab.inside, result, 0).astype(dtype)


def _parts(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return block.real, block.imag


def _within(slab: Slab, first: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Return coordinates in a block that begins with slice `first`; those of the outer half voxels on its edge."""
    limits = np.array(shape)[:, None, None, None] - 1
    coordinates = np.clip(slab.coordinates, 0, limits)
    coordinates[0] -= first
    return coordinates


def _interpolated(block: np.ndarray, coordinates: np.ndarray, sigma: np.ndarray, method: Interpolation) -> np.ndarray:
    if sigma.any():
        block = ndimage.gaussian_filter(block, sigma, mode="nearest", truncate=_TRUNCATE)
    # Mirrored at the outer voxels' centres, where both filter and interpolation end.
    return ndimage.map_coordinates(block, coordinates, order=_ORDERS[method], mode="mirror")


def _with_gaps(block: np.ndarray, coordinates: np.ndarray, sigma: np.ndarray, method: Interpolation) -> np.ndarray:
    """Interpolate what is known; gaps are filled from their nearest neighbours, so that splines do not ring there."""
    known = np.isfinite(block)
    if known.all():
        return _interpolated(block, coordinates, sigma, method)
    if not known.any():
        return np.full(coordinates.shape[1:], np.nan)
    weight = known.astype(np.float64)
    values = np.where(known, block, 0)
    if sigma.any():
        values = ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=_TRUNCATE)
        weight = ndimage.gaussian_filter(weight, sigma, mode="nearest", truncate=_TRUNCATE)
        known = weight > 1e-3
        values = np.where(known, values / np.maximum(weight, 1e-3), 0)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = values[tuple(nearest)]
    result = _interpolated(filled, coordinates, np.zeros(3), method)
    share = ndimage.map_coordinates(weight, coordinates, order=min(1, _ORDERS[method]), mode="mirror")
    return np.where(share >= 0.5, result, np.nan)
