"""Label maps given beside raw data, ``--labels``: elements of the volume of their source, checked against its grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mri_io.errors import ShapeError, expected_got
from mri_io.formats import get_format
from mri_io.formats.base import RawElement, RawVolume, SourceItem
from mri_io.formats.images.single import label_map_item
from mri_io.schema.attributes import Header

__all__ = ["LabelFile", "given_label_element", "given_label_item", "given_label_memory"]

PIXEL_TOLERANCE = 0.02
"""Relative; headers round fields of view to millimetres."""


@dataclass(frozen=True)
class LabelFile:
    """A label map that belongs to a source file, ``<stem>_<name>.nii.gz`` or of another ending of image files."""

    path: Path
    name: str
    labels: Mapping[int, str]


def given_label_item(label: LabelFile) -> SourceItem:
    """Return a label map as an item of its reader; FormatError when it is no image file."""
    return label_map_item(label.path, label.name, label.labels)


def given_label_memory(label: LabelFile) -> int:
    """Return the most bytes that reading a label map holds."""
    item = given_label_item(label)
    return get_format(item.format, isolate=True).memory(item)


def given_label_element(item: SourceItem, raw: RawVolume) -> RawElement:
    """Read a label map, as a source is read: what `Format.is_fragile` says so of in a child process.

    Raises
    ------
    FormatError
        When the file is damaged, holds no label ids, or ids that are not named.
    ShapeError
        When it lies on no grid of the source, or has another pixel size.
    """
    read = get_format(item.format, isolate=True).read(item)
    (element,) = read.elements
    _check_grid(element.shape, item.path, raw)
    _check_pixel(read.header, item.path, raw.header)
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


def _check_pixel(found: Header, path: Path, header: Header) -> None:
    """Raise ShapeError when a label map has another pixel size than the header of the source states.

    Raw data have no affine to compare with; their header states the pixel, (columns, rows).
    """
    expected, got = _pixel_mm(header), _pixel_mm(found)
    if expected is not None and got is not None and not np.allclose(got, expected, rtol=PIXEL_TOLERANCE):
        raise ShapeError(
            expected_got(
                "label pixel size (mm)",
                expected=f"{np.round(expected, 4).tolist()} as of the source",
                got=np.round(got, 4).tolist(),
                where=path,
                fix="Resample the labels to the image's grid, or correct the header.",
            )
        )


def _pixel_mm(header: Header) -> list[float] | None:
    if not header.recon_matrix or not header.recon_fov_m:
        return None
    return [1000 * fov / n for fov, n in zip(header.recon_fov_m, header.recon_matrix, strict=True)][:2]
