"""Radial, spiral and other readouts: k-space as shots, with their trajectory."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import RawElement
from mri_io.formats.ismrmrd.axes import Axes, leading_axes, partitions_of
from mri_io.formats.ismrmrd.scan import Scan, refuse
from mri_io.formats.kspace.prewhitening import whitened

__all__ = ["Shots", "make_shots"]

NORMALISED = 0.5
"""Largest coordinate of trajectories in cycles per pixel."""


@dataclass(frozen=True)
class Shots:
    """The layout of k-space that lies on no grid: (leading dimensions, coil, shot, sample).

    Attributes
    ----------
    scan, axes
        The readouts and the leading dimensions.
    members
        Indices of the imaging readouts of each position, in the order of the shots.
    first, stop
        The samples between those to be discarded.
    coils, directions
        Number of coils, and of the trajectory's axes.
    """

    scan: Scan
    axes: Axes
    members: tuple[np.ndarray, ...]
    first: int
    stop: int
    coils: int
    directions: int

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions of k-space."""
        return (*self.axes.dims, "coil", "shot", "sample")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of k-space."""
        return (*self.axes.shape, self.coils, len(self.members[0]), self.stop - self.first)

    def blocks(self, whitener: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield k-space in blocks (1, coil, shot, sample)."""
        with self.scan.of.reading() as reader:
            for members in self.members:
                block = np.empty(self.shape[-3:], np.complex64)
                for positions, data in reader.data(self.scan.imaging[members]):
                    block[:, positions] = data[..., self.first : self.stop].transpose(1, 0, 2)
                yield block[None] if whitener is None else whitened(block[None], whitener)

    def _paths(self, position: int) -> np.ndarray:
        """Return the trajectories (shot, sample, axis) of one position."""
        numbers = self.scan.imaging[self.members[position]]
        path = np.empty((*self.shape[-2:], self.directions), np.float32)
        with self.scan.of.reading() as reader:
            for positions, values in reader.trajectories(numbers):
                path[positions] = values[:, self.first : self.stop]
        return path

    def trajectory(self) -> RawElement:
        """Return the trajectory, with the leading dimensions along which it differs."""
        hashes, largest = [], 0.0
        for position in range(self.axes.count):
            path = self._paths(position)
            hashes.append(hashlib.sha256(path.tobytes()).digest())
            largest = max(largest, float(np.abs(path).max()))
        same = np.unique(np.array(hashes, dtype="S32"), return_inverse=True)[1].reshape(self.axes.shape)
        wanted: np.ndarray = np.arange(self.axes.count).reshape(self.axes.shape)
        dims: list[str] = []
        for name in self.axes.dims:
            axis = len(dims)
            if np.array_equal(same, np.broadcast_to(same.take([0], axis=axis), same.shape)):
                same, wanted = np.asarray(same.take(0, axis=axis)), np.asarray(wanted.take(0, axis=axis))
            else:
                dims.append(name)

        def blocks() -> Iterator[np.ndarray]:
            for position in np.ravel(wanted):
                path = self._paths(int(position))
                yield path[None] if dims else path

        return RawElement(
            "trajectory",
            (*np.shape(wanted), *self.shape[-2:], self.directions),
            np.dtype(np.float32),
            blocks,
            dims=(*dims, "shot", "sample", "axis"),
            attributes={"unit": self._unit(largest)},
        )

    def _unit(self, largest: float) -> str:
        """Return the unit of the coordinates, which the format leaves open, by their size."""
        if largest <= 1.01 * NORMALISED:
            return "1/pixel"
        matrix = self.scan.header.encoded_matrix
        return "1/fov" if matrix is not None and largest <= 1.01 * max(matrix) / 2 else "unknown"

    def attributes(self) -> dict[str, Any]:
        """Return what is stated of k-space."""
        found: dict[str, Any] = {"trajectory": str(self.scan.header.trajectory)}
        after = int(self.scan.head("number_of_samples")[0]) - self.stop
        if self.first or after:
            found["discarded_samples"] = [[self.first, after]]
        return found | self.axes.attributes | self.scan.attributes()


def make_shots(scan: Scan) -> Shots:
    """Decide the layout of k-space on no grid from heads alone.

    Shots of one position are ordered by their lines' counter, then as they were acquired; averages are shots of their
    own, as they may run through other places. Partitions are a dimension where the trajectory has two axes.

    Raises
    ------
    FormatError
        When the readouts have no trajectory, or their number differs between slices or frames.
    """
    path = scan.path
    directions = np.unique(scan.head("trajectory_dimensions"))
    fix = f"A scan with the trajectory {scan.header.trajectory!r} cannot be placed without it."
    got = directions.tolist()
    refuse(len(directions) > 1 or directions[0] not in (2, 3), path, "trajectory", "2 or 3 axes", f"{got} axes", fix)
    for name in ("number_of_samples", "discard_pre", "discard_post"):
        values = np.unique(scan.head(name)).tolist()
        refuse(len(values) > 1, path, f"{name} of the readouts", "one value", values)
    partitions = partitions_of(scan) if directions[0] == 2 else None
    axes = leading_axes(scan, partitions)
    both = {"slice", "kz"} <= set(axes.dims)
    refuse(both, path, "dimensions", "slices or partitions of a scan on no grid", "both")
    lines = np.lexsort((scan.counter("kspace_encode_step_1"), scan.counter("kspace_encode_step_2")))
    rank = np.empty_like(lines)
    rank[lines] = np.arange(len(lines))
    members = tuple(group[np.argsort(rank[group], kind="stable")] for group in axes.groups())
    counts = sorted({len(group) for group in members})
    if len(counts) > 1:
        what = "shots of a slice, partition or frame"
        raise FormatError(expected_got(what, expected="the same number in each", got=counts, where=path))
    first = int(scan.head("discard_pre")[0])
    stop = int(scan.head("number_of_samples")[0]) - int(scan.head("discard_post")[0])
    refuse(stop <= first, path, "readouts", "samples that are not discarded", "none")
    coils = int(scan.head("active_channels")[0])
    return Shots(scan, axes, members, first, stop, coils, int(directions[0]))
