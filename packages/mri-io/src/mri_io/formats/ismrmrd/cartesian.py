"""Cartesian readouts placed on their grid: k-space plane by plane, and the mask of what was acquired."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from mri_io.formats.base import RawElement
from mri_io.formats.ismrmrd.axes import Axes, leading_axes, partitions_of
from mri_io.formats.ismrmrd.scan import Scan, refuse
from mri_io.formats.kspace.prewhitening import whitened
from mri_io.formats.kspace.readout import crop_readout
from mri_io.formats.kspace.sampling import mask_of_pattern

__all__ = ["Grid", "acquired_mask", "make_grid"]


@dataclass(frozen=True)
class Placement:
    """Where the samples of one echo's readouts belong.

    Attributes
    ----------
    first, stop
        The samples that are kept, between those to be discarded.
    start
        Column of the first, after a reversed readout is turned. Of a whole one that is 1 where its length is even: the
        sample that the matrix ends before is that of column 0, since the transform is periodic.
    reverse
        Whether the readout runs backwards.
    """

    first: int
    stop: int
    start: int
    reverse: bool

    @property
    def kept(self) -> int:
        """Number of samples kept."""
        return self.stop - self.first

    def columns(self, width: int) -> tuple[int, int]:
        """Return the first of the acquired columns and one past the last."""
        return (0, width) if self.kept == width else (self.start, self.start + self.kept)

    def placed(self, data: np.ndarray, width: int) -> np.ndarray:
        """Return readouts (..., sample) in the full width, (..., width)."""
        kept = data[..., self.first : self.stop]
        if self.reverse:
            kept = kept[..., ::-1]
        if self.kept == width:
            return np.roll(kept, self.start, axis=-1) if self.start else kept
        full = np.zeros((*data.shape[:-1], width), np.complex64)
        full[..., self.start : self.start + self.kept] = kept
        return full


@dataclass(frozen=True)
class Grid:
    """The layout of Cartesian k-space: (leading dimensions, coil, ky, kx).

    Attributes
    ----------
    scan, axes
        The readouts and the leading dimensions.
    placements
        One for each contrast, in ascending order of these.
    rows
        Row of each imaging readout.
    coils, height, width
        Sizes; `width` with the oversampling of the readout.
    length
        Columns that are stored: less than `width` where oversampling is removed.
    """

    scan: Scan
    axes: Axes
    placements: tuple[Placement, ...]
    rows: np.ndarray
    coils: int
    height: int
    width: int
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of k-space."""
        return (*self.axes.shape, self.coils, self.height, self.length)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions of k-space."""
        return (*self.axes.dims, "coil", "ky", "kx")

    def blocks(self, whitener: np.ndarray | None = None, signs: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield k-space in planes (1, coil, ky, kx), reading only the readouts of each.

        Parameters
        ----------
        whitener
            Matrix (coil, coil) that the coils are mixed with.
        signs
            Factor of each imaging readout.
        """
        scan = self.scan
        echoes = np.unique(scan.counter("contrast"), return_inverse=True)[1].ravel()
        with scan.of.reading() as reader:
            for members in self.axes.groups():
                plane = np.zeros((self.coils, self.height, self.length), np.complex64)
                rows = self.rows[members]
                if members.size:
                    placement = self.placements[echoes[members[0]]]
                    for positions, data in reader.data(scan.imaging[members]):
                        lines = placement.placed(data, self.width)
                        if self.length < self.width:
                            lines = crop_readout(lines, self.length)
                        if signs is not None:
                            lines = lines * signs[members[positions], None, None]
                        _add(plane, rows[positions], lines)
                    counts = np.bincount(rows, minlength=self.height)
                    if counts.max() > 1:
                        plane /= np.maximum(counts, 1).astype(np.float32)[:, None]
                yield plane[None] if whitener is None else whitened(plane[None], whitener)

    def attributes(self) -> dict[str, Any]:
        """Return what is stated of k-space."""
        counts = np.bincount(self.axes.flat * self.height + self.rows)
        found: dict[str, Any] = {"averages": int(counts.max()), "oversampling_removed": self.width / self.length}
        oversampling = oversampling_of(self.scan)
        if self.length == self.width and oversampling > 1:
            found["oversampling"] = oversampling
        partial = [list(placement.columns(self.width)) for placement in self.placements]
        if any(columns != [0, self.width] for columns in partial):
            # Of the readout as acquired, before the oversampling is removed.
            spans = [[*columns, self.width] for columns in partial]
            found["partial_columns"] = spans if len(set(map(tuple, spans))) > 1 else spans[0]
        discarded = sorted({(p.first, int(n) - p.stop) for p, n in zip(self.placements, self._samples(), strict=True)})
        if discarded != [(0, 0)]:
            found["discarded_samples"] = [list(pair) for pair in discarded]
        if any(placement.reverse for placement in self.placements):
            found["reflected_echoes"] = [i for i, placement in enumerate(self.placements) if placement.reverse]
        return found | self.axes.attributes | self.scan.attributes()

    def _samples(self) -> np.ndarray:
        contrasts, first = np.unique(self.scan.counter("contrast"), return_index=True)
        return self.scan.head("number_of_samples")[first[: len(contrasts)]]


def _add(plane: np.ndarray, rows: np.ndarray, lines: np.ndarray) -> None:
    """Add lines (line, coil, kx) to the rows of a plane; a row may occur several times."""
    if np.unique(rows).size == rows.size:
        plane[:, rows] += lines.transpose(1, 0, 2)
        return
    for row, line in zip(rows, lines, strict=True):
        plane[:, row] += line


def oversampling_of(scan: Scan) -> float:
    """Return the factor by which the encoded field of view exceeds the reconstructed one along the readout."""
    encoded, recon = scan.header.encoded_fov_m, scan.header.recon_fov_m
    if not encoded or not recon or recon[0] <= 0 or encoded[0] <= 1.01 * recon[0]:
        return 1.0
    return encoded[0] / recon[0]


def make_grid(scan: Scan, *, keep_oversampling: bool = False) -> Grid:
    """Decide the layout of k-space from heads alone.

    Raises
    ------
    FormatError
        When the readouts are not those of a Cartesian scan, or lie outside the matrix that the header states.
    """
    axes = leading_axes(scan, partitions_of(scan))
    placements, width = _placements(scan)
    rows = scan.counter("kspace_encode_step_1") + scan.facts.line_offset
    matrix = scan.header.encoded_matrix
    height = matrix[1] if matrix else 1 + int(rows.max())
    low, high = int(rows.min()), int(rows.max())
    outside = low < 0 or high >= height
    refuse(outside, scan.path, "lines of k-space", f"rows 0 .. {height - 1}", f"rows {low} .. {high}")
    length = width if keep_oversampling else max(1, round(width / oversampling_of(scan)))
    return Grid(scan, axes, placements, rows, int(scan.head("active_channels")[0]), height, width, length)


def _placements(scan: Scan) -> tuple[tuple[Placement, ...], int]:
    """Return where the samples of each contrast belong, and the width of k-space."""
    reverse = (scan.head("flags") & np.uint64(1 << (ismrmrd.ACQ_IS_REVERSE - 1))) != 0
    epi = scan.header.trajectory == "epi" or (reverse.any() and "phase correction" in scan.left_out)
    refuse(epi, scan.path, "readouts", "one direction", "echo-planar imaging, which needs its phase correction")
    contrasts = scan.counter("contrast")
    names = ("active_channels", "number_of_samples", "discard_pre", "discard_post", "center_sample")
    layouts = np.stack([scan.head(name) for name in names] + [reverse.astype(np.int64)], axis=1)
    found = []
    for contrast in np.unique(contrasts):
        different = np.unique(layouts[contrasts == contrast], axis=0)
        turned = len(np.unique(different[:, -1])) > 1
        refuse(turned, scan.path, "readouts", "one direction", "reversed ones (echo-planar imaging)")
        got = [dict(zip(names, row[:-1].tolist(), strict=True)) for row in different[:3]]
        refuse(len(different) > 1, scan.path, "readouts", "one shape (coils, samples) and centre", got)
        found.append(different[0])
    encoded = scan.header.encoded_matrix[0] if scan.header.encoded_matrix else None
    centres = [_centre(layout, encoded) for layout in found]
    kept = [int(layout[1] - layout[2] - layout[3]) for layout in found]
    refuse(min(kept) < 1, scan.path, "readouts", "samples that are not discarded", "none")
    # A whole readout whose centre is off by one sample is none of an asymmetric echo: there is no room to shift it.
    slack = [int(n == (encoded or n)) for n in kept]
    if all(abs(centre - n // 2) <= more for centre, n, more in zip(centres, kept, slack, strict=True)):
        refuse(len(set(kept)) > 1, scan.path, "readouts", "one shape (coils, samples)", kept)
        # Samples that are discarded are missing from the matrix, unless it counts without them.
        width = max(encoded or 0, kept[0]) if any(layout[2] or layout[3] for layout in found) else kept[0]
        # Those of reversed ones of even length are turned to either side of the middle, as they say.
        centres = [
            min(max(c, (n - 1) // 2), n // 2) if layout[-1] else n // 2
            for layout, c, n in zip(found, centres, kept, strict=True)
        ]
    else:
        width = encoded or 2 * max(max(c, n - c) for c, n in zip(centres, kept, strict=True))
    found_places = zip(found, centres, kept, strict=True)
    return tuple(_placement(layout, centre, n, int(width), scan.path) for layout, centre, n in found_places), int(width)


def _placement(layout: np.ndarray, centre: int, kept: int, width: int, path: Path) -> Placement:
    """Return where `kept` samples lie of which the one at `centre`, as acquired, is that of k-space's centre."""
    first, reverse = int(layout[2]), bool(layout[-1])
    if reverse:
        centre = kept - 1 - centre
    start = width // 2 - centre
    if reverse and start + kept == width + 1 and kept < width:
        # Of an echo that is not whole the first sample acquired lies where the matrix has ended.
        first, kept = first + 1, kept - 1
    inside = start >= 0 and (start + kept <= width or (reverse and start == 1))
    expected = f"samples around their centre within {width} columns"
    refuse(not inside, path, "echo", expected, f"columns {start} .. {start + kept - 1}")
    return Placement(first, first + kept, start, reverse)


def _centre(layout: np.ndarray, encoded: int | None) -> int:
    """Return the centre of k-space among the samples that are kept; where it is not stated it is their middle."""
    samples, before, after, centre = (int(n) for n in layout[1:5])
    if centre == 0:
        centre = samples // 2 if samples == encoded else before + (samples - before - after) // 2
    return centre - before


def acquired_mask(grid: Grid) -> RawElement | None:
    """Return the mask of the positions that were acquired, None when all were.

    It is found from the counters, and has the dimensions along which it differs: lines (ky) where readouts are whole,
    behind those of the series; points (ky, kx) where readouts are not whole, or slices or partitions differ.
    """
    axes = grid.axes
    lines = np.zeros((axes.count, grid.height), bool)
    lines[axes.flat, grid.rows] = True
    lines = lines.reshape(*axes.shape, grid.height)
    columns = _acquired_columns(grid)
    dims: list[str] = []
    for name in axes.dims:  # before the columns make it large
        axis = len(dims)
        first = lines.take([0], axis=axis)
        if np.array_equal(lines, np.broadcast_to(first, lines.shape)) and not (name == "echo" and len(columns) > 1):
            lines = first.squeeze(axis)
        else:
            dims.append(name)
    shape = [len(columns) if name == "echo" else 1 for name in dims]
    pattern = np.asarray(lines)[..., None] & columns.reshape(*shape, 1, columns.shape[1])
    return mask_of_pattern(pattern, (*dims, "ky", "kx"))


def _acquired_columns(grid: Grid) -> np.ndarray:
    """Return which stored columns were acquired, (echo, kx); one row where all echoes are alike."""
    spans = [placement.columns(grid.width) for placement in grid.placements]
    columns = np.zeros((len(spans) if len(set(spans)) > 1 else 1, grid.length), bool)
    scale, centre = grid.length / grid.width, grid.length // 2
    for row, (first, stop) in zip(columns, spans, strict=False):
        # The columns of the smaller field of view lie further apart: those wholly within what was acquired count.
        low = int(np.ceil(centre + (first - grid.width // 2) * scale))
        high = int(np.floor(centre + (stop - 1 - grid.width // 2) * scale)) + 1
        row[max(0, low) : grid.length if stop == grid.width else high] = True
    return columns
