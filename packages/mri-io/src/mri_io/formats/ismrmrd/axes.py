"""The leading dimensions of k-space: which set, frame, echo, slice and partition a readout belongs to."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mri_io.formats.ismrmrd.scan import Scan, refuse

__all__ = ["Axes", "leading_axes", "partitions_of"]


@dataclass(frozen=True)
class Axes:
    """Leading dimensions in the order of the store, with the place of each imaging readout.

    Attributes
    ----------
    dims, shape
        Names and lengths.
    flat
        Each readout's position in C order.
    attributes
        What is to be stated of them.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    flat: np.ndarray
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of positions."""
        return int(np.prod(self.shape))

    def groups(self) -> list[np.ndarray]:
        """Return for each position the indices of its readouts, in their order."""
        order = np.argsort(self.flat, kind="stable")
        return np.split(order, np.searchsorted(self.flat[order], np.arange(1, self.count)))


def partitions_of(scan: Scan) -> tuple[np.ndarray, int] | None:
    """Return the partition of each imaging readout and their number, None for 2-D scans."""
    steps, matrix = scan.counter("kspace_encode_step_2"), scan.header.encoded_matrix
    if np.unique(steps).size < 2:
        return None
    places = steps + scan.facts.partition_offset
    count = matrix[2] if matrix is not None and matrix[2] > 1 else 1 + int(places.max())
    low, high = int(places.min()), int(places.max())
    outside = low < 0 or high >= count
    refuse(outside, scan.path, "partitions of k-space", f"0 .. {count - 1}", f"{low} .. {high}")
    return places, count


def leading_axes(scan: Scan, partitions: tuple[np.ndarray, int] | None) -> Axes:
    """Sort the imaging readouts by set, frame, echo, slice and partition.

    A counter that takes one value gives no dimension, but for the slice of 2-D scans. Phases and repetitions are
    frames; where both vary, all phases of one repetition stand before those of the next.
    """
    attributes: dict[str, Any] = {}
    columns: dict[str, tuple[np.ndarray, int]] = {}
    frames: dict[str, int] = {}
    for counter, dim in (("set", "set"), ("repetition", "frame"), ("phase", "frame"), ("contrast", "echo")):
        places, count = _places(scan, counter, attributes)
        if count == 1:
            continue
        if dim != "frame":
            columns[dim] = places, count
            continue
        frames[f"{counter}s"] = count
        before = columns.get("frame", (np.zeros_like(places), 1))
        columns["frame"] = before[0] * count + places, before[1] * count
    if frames:
        attributes["frames"] = {"phases": 1, "repetitions": 1} | frames
    places, count = _places(scan, "slice", attributes)
    if partitions is None or count > 1:
        columns["slice"] = places, count
    if partitions is not None:
        columns["kz"] = partitions
    dims = tuple(name for name in ("set", "frame", "echo", "slice", "kz") if name in columns)
    shape = tuple(columns[name][1] for name in dims)
    flat = np.ravel_multi_index([columns[name][0] for name in dims], shape)
    if empty := _empty(dims, shape, flat):
        attributes["empty_slices"] = empty
    return Axes(dims, shape, flat, attributes)


def _places(scan: Scan, counter: str, attributes: dict[str, Any]) -> tuple[np.ndarray, int]:
    """Return the place of each readout among the values that a counter takes, and their number."""
    values, places = np.unique(scan.counter(counter), return_inverse=True)
    if values.size > 1 and values[-1] != values.size - 1:
        attributes[f"{counter}_numbers"] = values.tolist()
    return places.ravel(), int(values.size)


def _empty(dims: tuple[str, ...], shape: tuple[int, ...], flat: np.ndarray) -> int:
    """Return how many slices of a series have no readouts; partitions may lack them in any sampling pattern."""
    step = shape[-1] if dims[-1] == "kz" else 1
    return int(np.prod(shape)) // step - int(np.unique(flat // step).size)
