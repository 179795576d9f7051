"""Label maps given beside raw data, ``--labels``: elements of the volume of their source, checked against its grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mri_io.errors import ShapeError, expected_got
from mri_io.formats.base import RawElement, RawVolume
from mri_io.formats.images.files import label_element, label_memory
from mri_io.formats.images.single import open_image

__all__ = ["LabelFile", "given_label_element", "given_label_memory"]

PIXEL_TOLERANCE = 0.02
"""Relative; headers round fields of view to millimetres."""


@dataclass(frozen=True)
class LabelFile:
    """A label map that belongs to a source file, ``<stem>_<name>.nii.gz`` or of another ending of image files."""

    path: Path
    name: str
    labels: Mapping[int, str]


def given_label_memory(label: LabelFile) -> int:
    """Return the most bytes that reading a label map holds."""
    return label_memory(open_image(label.path))


def given_label_element(label: LabelFile, raw: RawVolume) -> RawElement:
    """Read a label map.

    Raises
    ------
    FormatError
        When the file is damaged, holds no label ids, or ids that are not named.
    ShapeError
        When it lies on no grid of the source, or has another pixel size.
    """
    image = open_image(label.path)
    element = label_element(image, f"seg/{label.name}", label.labels)
    _check_grid(element.shape, label.path, raw)
    if image.voxel_mm is not None:
        _check_pixel(image.voxel_mm, label.path, raw)
    return element


def _grid(element: RawElement) -> tuple[int, ...]:
    """Return (slices, rows, columns) of an image or of k-space."""
    sizes = dict(zip(element.dims or (), element.shape, strict=False))
    slices = [sizes[name] for name in ("slice", "kz", "z") if name in sizes] or [element.shape[0]]
    return (int(np.prod(slices)), *element.shape[-2:])


def _check_grid(shape: tuple[int, ...], path: Path, raw: RawVolume) -> None:
    """Raise ShapeError when a label map is on no image's grid, nor on that of fully sampled k-space."""
    kinds = ("image", "recon", "kspace")
    sources = [element for element in raw.elements if element.path.partition("/")[0] in kinds]
    grids = {element.path: _grid(element) for element in sources}
    if grids and shape not in grids.values() and shape not in [element.shape for element in sources]:
        text = ", ".join(f"{name} {grid}" for name, grid in grids.items())
        raise ShapeError(
            expected_got(
                "label grid",
                expected=f"that of the source ({text})",
                got=shape,
                where=path,
                fix="Resample the labels to the image's grid.",
            )
        )


def _check_pixel(voxel_mm: Sequence[float], path: Path, raw: RawVolume) -> None:
    """Raise ShapeError when a label map has another pixel size than the header states.

    Raw data have no affine to compare with; their header states the pixel, (columns, rows).
    """
    header = raw.header
    if not header.recon_matrix or not header.recon_fov_m:
        return
    expected = [1000 * fov / n for fov, n in zip(header.recon_fov_m, header.recon_matrix, strict=True)][:2]
    got = np.asarray(voxel_mm[:2])
    if not np.allclose(got, expected, rtol=PIXEL_TOLERANCE):
        raise ShapeError(
            expected_got(
                "label pixel size (mm)",
                expected=f"{np.round(expected, 4).tolist()} as of the source",
                got=np.round(got, 4).tolist(),
                where=path,
                fix="Resample the labels to the image's grid, or correct the header.",
            )
        )
