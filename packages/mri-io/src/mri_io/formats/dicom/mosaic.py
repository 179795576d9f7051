"""Siemens mosaics: the slices of a volume as tiles of one image, described by the maker's private (CSA) header."""

import warnings
from dataclasses import replace
from math import ceil, sqrt
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.dicom.planes import Plane, vector

__all__ = ["CSA", "is_mosaic", "mosaic_planes"]

CSA: list[Any] = [0x00290010, 0x00290011, 0x00290012, *(0x00290010 + 256 * block for block in (0x10, 0x11, 0x12))]
"""Private creators and image headers of the blocks in which Siemens writes the CSA header."""


def is_mosaic(dataset: Any) -> bool:
    """Whether the image type says so."""
    return "MOSAIC" in (dataset.get("ImageType") or ())


def mosaic_planes(plane: Plane, dataset: Any) -> tuple[Plane, ...]:
    """Return the slices of a mosaic.

    The position in the header is that which the first pixel of the whole mosaic would have if its centre were that of
    a slice; see nibabel's page on mosaics (https://nipy.org/nibabel/dicom/dicom_mosaic.html). The order of the tiles
    is that of the slice normal in the CSA header, which may be opposite to the cross product of the directions.

    Raises
    ------
    FormatError
        When there is no CSA header, or it does not fit the image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls the package experimental when it is imported
        from nibabel.nicom import csareader
    csa = _csa(dataset, csareader)
    count, normal = int(csareader.get_n_mosaic(csa) or 0), csareader.get_slice_normal(csa)
    grid = ceil(sqrt(count))
    rows, columns = plane.size
    if count < 1 or normal is None or rows % grid or columns % grid:
        got = f"{count} slices in {rows} x {columns} pixels"
        raise FormatError(expected_got("mosaic", expected="tiles and their normal in the CSA header", got=got))
    size = (rows // grid, columns // grid)
    along_x, along_y = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    cross = np.cross(along_x, along_y)
    step = np.sign(cross @ np.asarray(normal, float)) * cross * (plane.step or 1.0)
    shift = (columns - size[1]) / 2 * plane.spacing[1] * along_x + (rows - size[0]) / 2 * plane.spacing[0] * along_y
    first = np.array(plane.position) + shift
    contrast = plane.contrast
    if contrast.b_value is None:
        b_value, direction = csareader.get_scalar(csa, "B_value"), _vector(csa, csareader)
        contrast = replace(contrast, b_value=None if b_value is None else float(b_value), direction=direction)
    return tuple(
        replace(
            plane,
            size=size,
            position=vector(first + index * step),
            tile=divmod(index, grid),
            contrast=contrast,
        )
        for index in range(count)
    )


def _csa(dataset: Any, csareader: Any) -> Any:
    try:
        found = csareader.get_csa_header(dataset)
    except Exception as error:  # of its own kinds, and struct's
        raise FormatError(f"mosaic: the CSA header is damaged ({type(error).__name__}).") from None
    if found is None:
        fix = "Removing private elements made the geometry unknown; export the series anew."
        raise FormatError(expected_got("mosaic", expected="the CSA header", got="none", fix=fix))
    return found


def _vector(csa: Any, csareader: Any) -> Any:
    try:
        found = csareader.get_vector(csa, "DiffusionGradientDirection", 3)
    except ValueError:
        return None
    return None if found is None or not np.any(found) else vector(found)
