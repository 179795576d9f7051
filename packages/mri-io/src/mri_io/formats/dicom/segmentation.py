"""DICOM segmentations (SEG), read with highdicom onto the grid of the volume that they were made from."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import RawElement, import_extra, without_texts
from mri_io.formats.dicom.quiet import EXTRA, quietly

__all__ = ["TO_LPS", "grid_of", "read_segmentation", "segmentation_name"]

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MOST_LABELS = 65535


def grid_of(affine: np.ndarray, shape: Sequence[int]) -> Any:
    """Return highdicom's description of the grid of an array (slice, y, x).

    Raises
    ------
    FormatError
        When the axes are not orthogonal, which highdicom does not describe.
    """
    highdicom = import_extra("highdicom", EXTRA)
    try:
        # highdicom's indices are those of the array: slice, row, column.
        return highdicom.VolumeGeometry((TO_LPS @ affine)[:, [2, 1, 0, 3]], tuple(shape), "PATIENT")
    except ValueError as error:
        raise FormatError(expected_got("affine", expected="orthogonal axes", got=str(error))) from None


def segmentation_name(label: str, taken: Sequence[str]) -> str:
    """Return a name for the labels of a segmentation that others do not have.

    Parameters
    ----------
    label
        Content label of the object, a coded string; letters and digits of it are taken.
    taken
        Names that are in use.
    """
    start = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "dicom"
    names = (start, *(f"{start}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


@quietly()
def read_segmentation(
    path: Path, affine: np.ndarray, shape: tuple[int, int, int], personal: Sequence[str], taken: Sequence[str]
) -> list[RawElement]:
    """Return the label maps of a segmentation.

    The ids are the numbers of the segments. Segments that overlap become a label map each.

    Parameters
    ----------
    path
        The SEG object.
    affine, shape
        Grid of the volume: voxel (x, y, slice) to RAS+ mm; slices, rows, columns.
    personal
        Words that no label may contain; labels with them are named by their code.
    taken
        Names of label maps that are in use.

    Raises
    ------
    FormatError
        When the file is damaged, fractional, or not on the grid of the volume.
    """
    highdicom = import_extra("highdicom", EXTRA)
    try:
        segmentation = highdicom.seg.segread(path)
        kind = segmentation.segmentation_type.value
        numbers = [int(number) for number in segmentation.segment_numbers]
    except Exception as error:  # pydicom and highdicom have several
        raise FormatError(f"{path}: expected a readable DICOM SEG, got: {type(error).__name__}: {error}.") from None
    if kind == "FRACTIONAL":
        fix = "Threshold it, and store the result as binary segments."
        raise FormatError(
            expected_got("segmentation type", expected="BINARY or LABELMAP", got=kind, where=path, fix=fix)
        )
    if max(numbers) > _MOST_LABELS:
        raise FormatError(expected_got("segment numbers", expected=f"to {_MOST_LABELS}", got=max(numbers), where=path))
    labels = {number: _label(segmentation.get_segment_description(number), personal) for number in numbers}
    content = str(segmentation.get("ContentLabel", "") or "")
    name = segmentation_name("" if _names(content, personal) else content, taken)
    dtype = np.dtype(np.uint8 if max(numbers) < 256 else np.uint16)
    maps = _label_maps(path, segmentation, numbers, grid_of(affine, shape))
    return [
        RawElement.of(
            f"seg/{name}" if len(maps) == 1 else f"seg/{name}-{ids[0]}",
            array.astype(dtype),
            dims=("slice", "y", "x"),
            affine=affine,
            labels={number: labels[number] for number in ids},
        )
        for ids, array in maps
    ]


def _label_maps(path: Path, segmentation: Any, numbers: list[int], grid: Any) -> list[tuple[list[int], np.ndarray]]:
    """Return (ids, array): one map of all segments, or one of each where they overlap."""
    try:
        volumes = [(numbers, segmentation.get_volume(combine_segments=True))]
    except RuntimeError:  # they overlap, or are no volume, which the next says
        # The attempt leaves highdicom's table of frames locked.
        again = import_extra("highdicom", EXTRA).seg.segread(path)
        volumes = [([number], _segment(path, again, number)) for number in numbers]
    except Exception as error:
        raise _unreadable(path, error) from None
    try:
        return [(ids, volume.match_geometry(grid).array) for ids, volume in volumes]
    except RuntimeError as error:
        fix = "Resample it to the grid of the series that it was made from."
        raise FormatError(
            expected_got("segmentation grid", expected="that of its source series", got=str(error), where=path, fix=fix)
        ) from None


def _segment(path: Path, segmentation: Any, number: int) -> Any:
    try:
        return segmentation.get_volume(combine_segments=True, segment_numbers=[number])
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path}: the segmentation cannot be read as a volume: {type(error).__name__}: {error}.")


def _label(description: Any, personal: Sequence[str]) -> dict[str, str]:
    code = description.segmented_property_type
    name = str(description.segment_label or "")
    if not name or _names(name, personal):
        name = str(code.meaning)
    if _names(name, personal):
        name = f"segment {description.segment_number}"
    return {"name": name, "code": f"{code.scheme_designator} {code.value}"}


def _names(text: str, personal: Sequence[str]) -> bool:
    return without_texts(text, personal, "") != text
