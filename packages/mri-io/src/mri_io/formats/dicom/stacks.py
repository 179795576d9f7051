"""Stacks: the planes of a series joined into volumes, their slices in order of position, their copies as a series."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.dicom.planes import Contrast, Plane

__all__ = ["Stack", "make_stacks", "stack_affine"]

SAME_PLACE_MM = 0.01
"""Positions are decimal strings; closer ones are one slice."""
UNIFORM = 0.02
"""Relative deviation of slice positions from even spacing that rounding explains."""
SAME_DIRECTION = 1e-3
_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_MOST_NAMED = 3


@dataclass(frozen=True)
class Stack:
    """Planes that are one volume.

    `planes` are in C order of `dims`, all but the last two: any of set, frame, echo, then slice. `counts` are the
    lengths of those. `refused` says why the planes are no volume.
    """

    planes: tuple[Plane, ...]
    dims: tuple[str, ...] = ("slice",)
    counts: tuple[int, ...] = ()
    refused: str = ""

    @property
    def slices(self) -> tuple[Plane, ...]:
        """The planes of the first set, frame and echo."""
        return self.planes[: self.counts[-1]]


def make_stacks(planes: Sequence[Plane]) -> list[Stack]:
    """Join the planes of one series into volumes.

    Images of another type (phase, ...), orientation, matrix or pixel size are volumes of their own. Copies of a slice
    become echoes, frames and sets where every slice has the same.

    What cannot be joined, for want of a slice for example, is a stack that is `refused`.
    """
    stacks = []
    for group in _alike(planes):
        try:
            stacks.extend(_joined(group))
        except FormatError as error:
            stacks.append(Stack(tuple(group), refused=str(error)))
    return stacks


def stack_affine(stack: Stack) -> np.ndarray:
    """Return the affine of voxel (x, y, slice) to RAS+ mm, as nibabel and dcm2niix compute it.

    The column of the slices is the mean step from the first position to the last; where there is one slice, it is the
    normal by the distance of slices, or by 1 mm where the file states none.
    """
    first, last = stack.slices[0], stack.slices[-1]
    along_x, along_y, normal = _axes(first)
    if len(stack.slices) > 1:
        step = (np.array(last.position) - np.array(first.position)) / (len(stack.slices) - 1)
    else:
        step = normal * (first.step or 1.0)
    affine = np.eye(4)
    affine[:3, :3] = _TO_RAS @ np.column_stack([along_x * first.spacing[1], along_y * first.spacing[0], step])
    affine[:3, 3] = _TO_RAS @ np.array(first.position)
    return affine


def _axes(plane: Plane) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unit vectors of increasing column and row, and their cross product."""
    along_x, along_y = (np.array(vector) / np.linalg.norm(vector) for vector in np.reshape(plane.orientation, (2, 3)))
    normal = np.cross(along_x, along_y)
    return along_x, along_y, normal / np.linalg.norm(normal)


def _alike(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Group planes by type, matrix, and within the precision of headers, orientation and pixel size."""
    groups: list[list[Plane]] = []
    for plane in planes:
        for group in groups:
            other = group[0]
            if (
                (plane.type, plane.size) == (other.type, other.size)
                and _close(plane.orientation, other.orientation, SAME_DIRECTION)
                and _close(plane.spacing, other.spacing, SAME_DIRECTION * max(other.spacing))
            ):
                group.append(plane)
                break
        else:
            groups.append([plane])
    return groups


def _close(values: Sequence[float], others: Sequence[float], tolerance: float) -> bool:
    # numpy would take most of the time that it takes to find thousands of planes.
    return all(abs(value - other) <= tolerance for value, other in zip(values, others, strict=True))


def _joined(planes: Sequence[Plane]) -> list[Stack]:
    """Return the stacks of planes that are alike; FormatError where they are none."""
    directions = np.reshape(planes[0].orientation, (2, 3))
    lengths = np.linalg.norm(directions, axis=1)
    if not np.allclose(lengths, 1, atol=0.01) or abs(directions[0] @ directions[1]) > 0.01 or 0 in planes[0].size:
        got = np.round(directions, 4).tolist()
        raise FormatError(expected_got("image orientation", expected="two orthogonal unit vectors", got=got))
    places = _places(planes)
    copies = [len(place) for place in places]
    if len(set(copies)) > 1:
        _unequal(places)
    _check_spacing([place[0] for place in places])
    if copies[0] == 1:
        return [Stack(tuple(place[0] for place in places), counts=(len(places),))]
    by_echo = _by(places, lambda plane: plane.contrast.echo_time)
    if by_echo is None:
        return [_series([places])]
    if len({len(echo[0]) for echo in by_echo}) > 1:  # each echo has its own number of frames
        return [_series([echo]) for echo in by_echo]
    return [_series(by_echo)]


_Places = list[list[Plane]]


def _places(planes: Sequence[Plane]) -> _Places:
    """Return the planes of each slice, in order of their positions along the normal."""
    normal = _axes(planes[0])[2]
    distances = np.array([normal @ np.array(plane.position) for plane in planes])
    tolerance = min(SAME_PLACE_MM, 0.1 * min(planes[0].spacing))
    order = np.argsort(distances, kind="stable")
    new = np.flatnonzero(np.diff(distances[order]) > tolerance) + 1
    return [[planes[index] for index in place] for place in np.split(order, new)]


def _unequal(places: _Places) -> None:
    """Say which slices lack or have more images than others do."""
    counts = [len(place) for place in places]
    usual = max(set(counts), key=counts.count)
    if usual == 1:
        odd = next(place for place in places if len(place) > 1)
        raise _duplicate(odd)
    odd = next(place for place in places if len(place) != usual)
    got = f"{len(odd)} at {_place(odd[0])} ({odd[0].file.name})"
    fix = "Images are missing or there twice: export the series anew."
    raise FormatError(expected_got("images of each slice", expected=f"{usual} as of the others", got=got, fix=fix))


def _duplicate(place: Sequence[Plane]) -> FormatError:
    files = " and ".join(plane.file.name for plane in place[:2])
    got = f"{len(place)} at {_place(place[0])} ({files})"
    fix = "Remove copies, or one of two scans that were exported as one series."
    return FormatError(expected_got("images of one slice that nothing tells apart", expected=1, got=got, fix=fix))


def _place(plane: Plane) -> str:
    return f"position {tuple(round(v, 2) for v in plane.position)} mm"


def _check_spacing(slices: Sequence[Plane]) -> None:
    """Raise FormatError where slices are missing, or do not lie on a line at equal distances."""
    if len(slices) < 3:
        return
    positions = np.array([plane.position for plane in slices])
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual = float(np.median(steps))
    missing = [(pair, round(step / usual) - 1) for pair, step in zip(pairwise(slices), steps, strict=True)]
    gaps = [(pair, count) for pair, count in missing if count > 0]
    whole = all(abs(step / usual - round(step / usual)) < 5 * UNIFORM for step in steps)
    if gaps and whole:
        between = "; ".join(
            f"{count} between {first.file.name} and {last.file.name}" for (first, last), count in gaps[:_MOST_NAMED]
        )
        got = f"{len(slices)} slices, {sum(count for _, count in gaps)} missing: {between}"
        fix = "Slices are missing: export the series anew."
        wanted = f"slices every {usual:.3g} mm"
        raise FormatError(expected_got("slice positions", expected=wanted, got=got, fix=fix))
    even = positions[0] + np.linspace(0, 1, len(slices))[:, None] * (positions[-1] - positions[0])
    worst = float(np.abs(positions - even).max())
    if worst > max(SAME_PLACE_MM, UNIFORM * usual):
        got = f"distances of {steps.min():.3g} to {steps.max():.3g} mm, {worst:.3g} mm off the line at most"
        fix = "Localizers and several slabs in one series are no volume; leave them out."
        raise FormatError(expected_got("slice positions", expected="on a line, evenly spaced", got=got, fix=fix))


def _by(places: _Places, key: Callable[[Plane], Any]) -> list[_Places] | None:
    """Divide the copies of every slice by a value, in its order; None where slices differ in their values."""
    values = [sorted((key(plane) is not None, key(plane)) for plane in place) for place in places]
    if any(other != values[0] for other in values):
        return None
    return [
        [[plane for plane in place if key(plane) == value] for place in places] for _, value in dict.fromkeys(values[0])
    ]


def _contrast_key(plane: Plane) -> Any:
    contrast: Contrast = plane.contrast
    direction = contrast.direction or (0.0, 0.0, 0.0)
    values = (contrast.b_value, contrast.inversion_time, contrast.flip_angle)
    return (*((-1.0 if value is None else value) for value in values), *direction)


def _series(echoes: Sequence[_Places]) -> Stack:
    """Return the series of echoes, each given as the copies of every slice.

    The copies of one echo are sets where values tell them apart, each with the same number of frames. Where the sets
    occur unequally often, as images without diffusion weighting do, every copy is a set, in order of time.
    """
    ordered = [_sets(places) for places in echoes]  # (echo)(set)(frame)(slice)
    n_set, n_frame, n_echo = len(ordered[0]), len(ordered[0][0]), len(ordered)
    if any(len(sets) != n_set or any(len(frames) != n_frame for frames in sets) for sets in ordered):
        raise FormatError(expected_got("series", expected="the same images of every echo", got="others"))
    planes = [plane for s in range(n_set) for f in range(n_frame) for echo in ordered for plane in echo[s][f]]
    counts = {"set": n_set, "frame": n_frame, "echo": n_echo}
    dims = tuple(name for name, count in counts.items() if count > 1)
    n_slice = len(echoes[0])
    return Stack(tuple(planes), (*dims, "slice"), (*(counts[name] for name in dims), n_slice))


def _sets(places: _Places) -> list[list[list[Plane]]]:
    """Divide the copies of one echo into sets and frames: (set)(frame)(slice)."""
    sets = _by(places, _contrast_key) or [places]
    if len({len(one[0]) for one in sets}) == 1:
        return [_frames(one) for one in sets]
    # Unequally many of each: one after the other in time.
    members = _frames(places)
    if any(len({_contrast_key(plane) for plane in member}) > 1 for member in members):
        got = "slices that were acquired in different orders"
        raise FormatError(expected_got("series", expected="the same contrast of all slices at a time", got=got))
    return [[member] for member in members]


def _frames(places: _Places) -> list[list[Plane]]:
    """Order the copies of every slice in time by the first criterion that tells all of them apart: (frame)(slice)."""
    count = len(places[0])
    if count == 1:
        return [[place[0] for place in places]]
    for criterion in range(min(len(plane.times) for place in places for plane in place)):
        values = [[plane.times[criterion] for plane in place] for place in places]
        if all(None not in row and len(set(row)) == count for row in values):
            inorder = [sorted(place, key=lambda plane: plane.times[criterion]) for place in places]
            return [[place[frame] for place in inorder] for frame in range(count)]
    raise _duplicate(next(place for place in places))


def group_by(items: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Return items by a value, in the order in which the values first occur."""
    found: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return dict(found)
