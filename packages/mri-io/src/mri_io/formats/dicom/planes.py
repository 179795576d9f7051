"""Image planes: what the headers of DICOM files say of every two-dimensional image in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mri_io.errors import FormatError, expected_got

__all__ = [
    "Contrast",
    "DamagedHeaderError",
    "Plane",
    "Scan",
    "Vector",
    "check_geometry",
    "image_kind",
    "number",
    "numbers",
    "type_key",
    "vector",
]

_FURTHEST_MM = 1e6
"""A bound for what a damaged header may claim."""

Vector = tuple[float, float, float]


class DamagedHeaderError(FormatError):
    """A header that is damaged, unlike one that is whole and of no image that is read."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """What tells images of one place apart that do not merely follow one another in time.

    `b_value` in s/mm^2, `direction` of the diffusion gradient in the patient's coordinates (LPS), the others in ms and
    degrees.
    """

    echo_time: float | None = None
    b_value: float | None = None
    direction: Vector | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None


@dataclass(frozen=True, slots=True)
class Plane:
    """One image plane.

    Attributes
    ----------
    file, frame
        Where its pixels are; frames are counted from 0.
    tile
        For mosaics: (row, column) of the tile in the frame.
    size
        Rows and columns.
    orientation
        Directions of increasing column and of increasing row, in the patient's coordinates (LPS).
    position
        Centre of the first pixel, mm, LPS.
    spacing
        Between rows and between columns, mm.
    step
        Between slices as the file states it, mm; 0 where it does not.
    kind
        ``magnitude``, ``phase``, ``real`` or ``imag``.
    type
        Image type and what else must be the same in one volume.
    times
        What orders images in time, one entry per criterion of `mri_io.formats.dicom.stacks`, None where not stated.
    scale
        Rescale slope and intercept.
    philips_scale
        Philips' private scale slope, where stated.
    limits
        The smallest and the largest value that the pixels can have, before scaling.
    instance
        SOP instance UID.
    """

    file: Path
    frame: int
    size: tuple[int, int]
    orientation: tuple[float, ...]
    position: Vector
    spacing: tuple[float, float]
    step: float
    kind: str
    type: tuple[str, ...]
    contrast: Contrast
    times: tuple[Any, ...]
    scale: tuple[float, float]
    philips_scale: float | None
    limits: tuple[int, int]
    instance: str
    tile: tuple[int, int] | None = None


@dataclass(frozen=True)
class Scan:
    """What one file holds.

    Attributes
    ----------
    series
        Series instance UID.
    planes
        Its image planes.
    refused
        Why there are none.
    damaged
        Why the file cannot be read. Its series is empty where that did not show.
    segmented
        For a segmentation: the series it was made from, and the instances of it that it names.
    syntax
        UID of the transfer syntax.
    """

    path: Path
    series: str
    planes: tuple[Plane, ...] = ()
    refused: str = ""
    damaged: str = ""
    segmented: tuple[str, frozenset[str]] | None = None
    syntax: str = ""


def vector(values: Any) -> Vector:
    """Return three numbers as plain ones."""
    x, y, z = (float(value) for value in values)
    return x, y, z


def number(dataset: Any, keyword: str | int) -> float | None:
    """Return a single number of a data set, None where it is absent or no number."""
    found = numbers(dataset, keyword)
    return found[0] if found else None


def numbers(dataset: Any, keyword: str | int) -> tuple[float, ...]:
    """Return the numbers of an element, empty where it is absent or holds none."""
    try:
        value = dataset[keyword].value if keyword in dataset else None
        if value is None or value == "":
            return ()
        return tuple(float(v) for v in ([value] if isinstance(value, str | int | float) else value))
    except (TypeError, ValueError, KeyError, NotImplementedError):  # the last for kinds of values that there are not
        return ()


def check_geometry(
    name: str,
    position: Sequence[float],
    orientation: Sequence[float],
    spacing: Sequence[float],
    step: float | None,
    fix: str = "",
) -> None:
    """Check where a plane lies.

    Parameters
    ----------
    name
        What errors call it.
    position, orientation, spacing
        Image position (mm), image orientation and pixel spacing (mm), empty where the file does not state them.
    step
        Between slices, mm; None where the file does not state it.
    fix
        What to do about what is not stated.

    Raises
    ------
    FormatError
        When one of the first three is missing.
    DamagedHeaderError
        When a value is no number or beyond a kilometre, or pixels have no size.
    """
    if len(position) != 3 or len(orientation) != 6 or len(spacing) != 2:
        wanted = "image position, image orientation and pixel spacing"
        raise FormatError(expected_got(name, expected=wanted, got="not all of them", fix=fix))
    worst = next((v for v in (*position, *orientation, *spacing, step or 0.0) if not abs(v) <= _FURTHEST_MM), None)
    if worst is not None:
        raise DamagedHeaderError(expected_got(name, expected=f"numbers up to {_FURTHEST_MM:g} mm", got=worst))
    if min(spacing) <= 0:
        raise DamagedHeaderError(expected_got(name, expected="pixels of some size", got=spacing))


_KINDS = {"P": "phase", "PHASE": "phase", "R": "real", "REAL": "real", "I": "imag", "IMAGINARY": "imag"}
_GE = "magnitude", "phase", "real", "imag"


def image_kind(types: Sequence[str], component: str = "", ge: float | None = None) -> str:
    """Return what the values of an image are: ``magnitude``, ``phase``, ``real`` or ``imag``.

    Parameters
    ----------
    types
        Image type (0008,0008), of which the values behind the second are looked at.
    component
        Complex image component (0008,9208) of enhanced images.
    ge
        GE's raw data type (0043,102F): 0 to 3.
    """
    if component in _KINDS:
        return _KINDS[component]
    if ge is not None and 0 <= ge < len(_GE):
        return _GE[int(ge)]
    for value in types[2:]:
        # Philips writes PHASE MAP and P_FFE, Siemens P and PHASE.
        found = _KINDS.get(value.upper().partition("_")[0].partition(" ")[0])
        if found:
            return found
    return "magnitude"


def type_key(types: Sequence[str]) -> tuple[str, ...]:
    """Return the image type without the values that number echoes, ``ECHO_00`` and ``TE1``."""
    values = (str(value).upper() for value in types)
    return tuple(v for v in values if not v.startswith("ECHO") and not (v[:2] == "TE" and v[2:].isdigit()))
