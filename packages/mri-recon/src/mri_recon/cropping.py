"""The central part of images: published references are often smaller than the grid of k-space."""

from typing import TypeVar

import numpy as np
from torch import Tensor

from mri_io.store import Element
from mri_recon.errors import ShapeError

__all__ = ["center_crop", "check_grid", "on_grid_of"]

Array = TypeVar("Array", np.ndarray, Tensor)


def center_crop(image: Array, shape: tuple[int, ...]) -> Array:
    """Return the central part of images, cut as fastMRI's `center_crop` does.

    Parameters
    ----------
    image
        (..., y, x).
    shape
        Wanted (y, x).

    Raises
    ------
    ShapeError
        When the image is smaller than that.
    """
    (height, width), (rows, columns) = image.shape[-2:], shape
    if height < rows or width < columns:
        raise ShapeError(
            f"target: expected a grid no larger than that of the reconstruction, {height} x {width}, "
            f"got {rows} x {columns}. Give as data.target an image of this k-space, or its central part."
        )
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[..., top : top + rows, left : left + columns]


def check_grid(reference: Element, element: Element) -> None:
    """Check by its metadata that an element (slice, y, x) can be brought to the grid of a reference, see `on_grid_of`.

    Raises
    ------
    ShapeError
        When the reference is no central part of the element's grid; affines, where both have one, must agree.
    """
    (slices, *plane), (count, *found) = reference.shape, element.shape
    fits = slices == count and len(plane) == len(found) == 2 and plane[0] <= found[0] and plane[1] <= found[1]
    if fits and plane != found and reference.affine is not None and element.affine is not None:
        corner = [(found[1] - plane[1]) // 2, (found[0] - plane[0]) // 2, 0, 1]
        expected = np.column_stack([element.affine[:, :3], element.affine @ corner])
        fits = np.allclose(expected, reference.affine, atol=1e-2)
    if not fits:
        raise ShapeError(
            f"{element.folder}: {element.path}: expected the grid {reference.shape} of {reference.path}, got "
            f"{element.shape}. A larger image is cropped only if it has the same centre, voxels and slices."
        )


def on_grid_of(reference: Element, element: Element) -> np.ndarray:
    """Return an element (slice, y, x) on the grid of a reference, cropped where that is smaller with the same centre.

    Raises
    ------
    ShapeError
        See `check_grid`.
    """
    check_grid(reference, element)
    return center_crop(element.numpy(), reference.shape[1:])
