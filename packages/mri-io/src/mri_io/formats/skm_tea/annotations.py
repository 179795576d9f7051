"""The annotations of SKM-TEA: whose a scan is, which part it is in, and how its axes lie."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.types import Part

__all__ = ["PARTS", "Scan", "read_scans"]

PARTS: tuple[Part, ...] = get_args(Part)
_VERSION = re.compile(r"v\d+(\.\d+)*")
# The axis of RAS+ millimetres along which an axis of the array runs, and whether it runs with or against it.
_DIRECTIONS = {"LR": (0, 1), "RL": (0, -1), "PA": (1, 1), "AP": (1, -1), "IS": (2, 1), "SI": (2, -1)}


@dataclass(frozen=True)
class Scan:
    """What the annotations say of one scan.

    Attributes
    ----------
    part
        ``train``, ``val`` or ``test``.
    subject, timepoint
        Whose scan it is, in numbers of the data set, and which of the person's.
    orientation
        From where to where the three axes of the arrays run, e.g. ``("SI", "AP", "LR")``.
    spacing_mm
        Size of a voxel along them.
    """

    part: str
    subject: int
    timepoint: int | None = None
    orientation: tuple[str, str, str] | None = None
    spacing_mm: tuple[float, float, float] | None = None

    def affine(self) -> np.ndarray | None:
        """Return the affine of voxel (x, y, z) of the file to RAS+ mm, its first voxel at 0; None when not stated."""
        if self.orientation is None or self.spacing_mm is None:
            return None
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for column, (name, size) in enumerate(zip(self.orientation, self.spacing_mm, strict=True)):
            axis, sign = _DIRECTIONS[name]
            affine[axis, column] = sign * size
        return affine


def read_scans(root: Path) -> dict[str, Scan]:
    """Return the scans of the newest annotations of a data set by their ids; none without annotations.

    Raises
    ------
    FormatError
        When a file is not what DATASET.md describes, or has a scan that another has too.
    """
    folder = root / "annotations"
    versions = [path for path in folder.glob("v*") if _VERSION.fullmatch(path.name)] if folder.is_dir() else []
    if not versions:
        return {}
    newest = max(versions, key=lambda path: tuple(map(int, path.name[1:].split("."))))
    scans: dict[str, Scan] = {}
    for part in PARTS:
        path = newest / f"{part}.json"
        for name, scan in _scans_of(path, part) if path.is_file() else ():
            if name in scans:
                raise FormatError(
                    expected_got(
                        "scans",
                        expected="every scan in one part",
                        got=f"{name} in {scans[name].part} and {part}",
                        where=path,
                    )
                )
            scans[name] = scan
    return scans


def _scans_of(path: Path, part: str) -> list[tuple[str, Scan]]:
    try:
        rows = json.loads(path.read_bytes())["images"]
        return [(str(row["scan_id"]), _scan(row, part)) for row in rows]
    except (ValueError, KeyError, TypeError, OSError) as error:
        form = '{"images": [{"scan_id": "MTR_005", "subject_id": 99, "orientation": ["SI", "AP", "LR"], ...}]}'
        raise FormatError(expected_got("annotations", expected=form, got=repr(error), where=path)) from None


def _scan(row: Any, part: str) -> Scan:
    orientation, spacing = row.get("orientation"), row.get("voxel_spacing")
    if orientation is not None:
        orientation = tuple(orientation)
        if len({_DIRECTIONS[name][0] for name in orientation}) != 3 or len(orientation) != 3:
            raise ValueError(f"orientation {orientation}")
    if spacing is not None:
        spacing = tuple(float(size) for size in spacing)
        if len(spacing) != 3 or not all(0 < size < 1e3 for size in spacing):
            raise ValueError(f"voxel_spacing {spacing}")
    timepoint = row.get("timepoint")
    return Scan(part, int(row["subject_id"]), None if timepoint is None else int(timepoint), orientation, spacing)
