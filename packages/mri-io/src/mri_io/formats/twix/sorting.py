"""Readouts of a Siemens measurement sorted onto the grid of k-space, and read block by block."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import RawElement
from mri_io.formats.kspace.readout import crop_readout
from mri_io.formats.kspace.sampling import mask_of_pattern
from mri_io.formats.twix.measurement import Measurement, ReadoutReader, has_flag
from mri_io.formats.twix.protocol import Protocol

__all__ = ["SortedReadouts", "imaging", "sort_readouts"]

LEFT_OUT = {
    "noise": ("NOISEADJSCAN",),
    "phase correction": ("PHASCOR",),
    "phase stabilisation": ("PHASESTABSCAN", "REFPHASESTABSCAN"),
    "feedback": ("RTFEEDBACK", "HPFEEDBACK"),
    "navigator": ("noname60",),
    "dummy": ("RETRO_DUMMYSCAN",),
}
"""Readouts that are no part of the image, by what the attributes call them; the first that fits counts."""
MOST_TIMES_LARGER = 2
"""Lines may lie outside the grid of the protocol, which rounds; a grid that is this much larger is no rounding."""
SPARSEST = 8
"""The protocol's grid is at most so much larger than what was measured: memory is reserved for all of it."""
_OTHER_COUNTERS = ("Ida", "Idb", "Idc", "Idd", "Ide")


def imaging(index: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Return which readouts belong to the image, which only to the reference of parallel imaging, and what others are.

    Parameters
    ----------
    index
        Of `mri_io.formats.twix.measurement.index_readouts`.

    Returns
    -------
    tuple
        Two arrays of bool, one value per readout, and counts by the names of `LEFT_OUT`.
    """
    rest, counts = np.ones(len(index), bool), {}
    for name, flags in LEFT_OUT.items():
        found = rest & has_flag(index, *flags)
        rest &= ~found
        if found.any():
            counts[name] = int(found.sum())
    reference = rest & has_flag(index, "PATREFSCAN") & ~has_flag(index, "PATREFANDIMASCAN")
    return rest & ~reference, reference, counts


@dataclass(frozen=True)
class SortedReadouts:
    """Readouts by the place in k-space to which each belongs.

    Attributes
    ----------
    measurement
        Where they are read from.
    readouts
        Rows of the index in the order of `block`.
    block, row
        Of each readout: the block (coil, ky, kx), counted in C order over `leading`, and the line in it.
    start, columns
        Column at which readouts begin, and all columns of the grid before oversampling is removed.
    leading
        Dimensions in front of the coils, by name.
    lines
        Number of lines.
    kept_columns
        Columns after oversampling is removed.
    attributes
        What the store says of them.
    """

    measurement: Measurement
    readouts: np.ndarray
    block: np.ndarray
    row: np.ndarray
    start: int
    columns: int
    leading: dict[str, int]
    lines: int
    kept_columns: int
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def coils(self) -> int:
        """Number of receivers."""
        return int(self.readouts["UsedChannels"][0])

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of all dimensions."""
        return (*self.leading, "coil", "ky", "kx")

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of all dimensions."""
        return (*self.leading.values(), self.coils, self.lines, self.kept_columns)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the blocks (1, coil, ky, kx), in C order of the leading dimensions."""
        total = math.prod(self.leading.values())
        edges = np.searchsorted(self.block, np.arange(total + 1))
        # The store refuses NaN and infinity.
        with ReadoutReader.open(self.measurement) as reader, np.errstate(over="ignore", invalid="ignore"):
            for first, last in pairwise(edges):
                kspace = self._read(reader, slice(first, last))
                kept = kspace if self.kept_columns == self.columns else crop_readout(kspace, self.kept_columns)
                yield kept[None]

    def _read(self, reader: ReadoutReader, part: slice) -> np.ndarray:
        kspace = np.zeros((self.coils, self.lines, self.columns), np.complex64)
        counts = np.bincount(self.row[part], minlength=self.lines)
        readouts = self.readouts[part]
        for readout, row, reflected in zip(readouts, self.row[part], has_flag(readouts, "REFLECT"), strict=True):
            samples = reader.read(readout)
            start, span = self.start, _measured(readout)
            if reflected:
                samples, start = self._turned(samples)
            kspace[:, row, start + span.start : start + span.stop] += samples[:, span]
        kspace /= np.maximum(counts, 1)[:, None].astype(np.float32)
        return kspace

    def _turned(self, samples: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the samples (coil, column) of a reflected readout in the order of the others, and where they begin.

        The centre of an even number is then a sample earlier. Where all columns are filled, the sample that they end
        before is that of the first, since the transform is periodic.
        """
        turned, early = samples[:, ::-1], 1 - samples.shape[-1] % 2
        if samples.shape[-1] == self.columns:
            return np.roll(turned, early, axis=-1), self.start
        return turned, self.start + early

    def mask(self) -> RawElement | None:
        """Return where k-space was measured, None when everywhere."""
        lengths = [*self.leading.values()]
        lines = np.zeros((math.prod(lengths), self.lines), bool)
        lines[self.block, self.row] = True
        pattern = lines.reshape(*lengths, self.lines, 1) & self._measured_columns()
        return mask_of_pattern(pattern, (*self.leading, "ky", "kx"))

    def _measured_columns(self) -> np.ndarray:
        """Return which of the kept columns hold nothing but measured samples."""
        measured = np.zeros(self.columns, bool)
        span = _measured(self.readouts[0])
        measured[self.start + span.start : self.start + span.stop] = True
        samples = int(self.readouts["SamplesInScan"][0])
        if samples < self.columns and samples % 2 == 0 and has_flag(self.readouts, "REFLECT").any():
            measured[self.start] = False  # reflected readouts begin a column later
        if self.kept_columns == self.columns:
            return measured
        # A column of the cut field of view lies between samples of the full one.
        places = (np.arange(self.kept_columns) - self.kept_columns // 2) * self.columns / self.kept_columns
        places += self.columns // 2
        low, high = np.floor(places).astype(int), np.ceil(places).astype(int)
        return np.asarray(measured[low] & measured[np.minimum(high, self.columns - 1)])


def _measured(readout: np.void) -> slice:
    """Return the samples that were measured: the scanner marks some at the ends as not to be used."""
    return slice(int(readout["CutOff"]["Pre"]), int(readout["SamplesInScan"]) - int(readout["CutOff"]["Post"]))


def sort_readouts(
    measurement: Measurement, index: np.ndarray, protocol: Protocol, *, keep_oversampling: bool
) -> SortedReadouts:
    """Find the place of every readout of the image.

    Raises
    ------
    FormatError
        For what does not lie on one Cartesian grid.
    """
    path = measurement.path
    image, reference, left_out = imaging(index)
    readouts = index[image]
    _check_readouts(readouts, path)
    start, columns = _columns(readouts[0], protocol, path)
    leading, positions = _leading(readouts, protocol, path)
    lines = _centred(readouts, "Lin", protocol.lines, path)
    extra = index[reference & (index["SamplesInScan"] == readouts["SamplesInScan"][0])]
    extra = extra[
        (extra["UsedChannels"] == readouts["UsedChannels"][0]) & (extra["CenterCol"] == readouts["CenterCol"][0])
    ]
    block, row, added = _with_reference(readouts, extra, positions, leading, lines)
    readouts = np.concatenate([readouts, extra[added]])
    order = np.argsort(block, kind="stable")
    averages = _averages(readouts, block * lines + row, path)
    kept = columns if keep_oversampling else max(1, round(columns / protocol.oversampling))
    attributes: dict[str, Any] = {"averages": averages, "oversampling_removed": columns / kept}
    if keep_oversampling:
        attributes["oversampling"] = protocol.oversampling
    if reference.any():
        counts = {"added": int(added.sum()), "left out": int(reference.sum() - added.sum())}
        attributes["reference_readouts"] = counts
    if left_out:
        attributes["left_out"] = left_out
    reflected = np.unique(readouts["Counter"]["Eco"][has_flag(readouts, "REFLECT")])
    if reflected.size:
        attributes["reflected_echoes"] = reflected.tolist()
    if "frame" in leading:
        names = {"phases": "Phs", "repetitions": "Rep"}
        attributes["frames"] = {key: len(np.unique(readouts["Counter"][name])) for key, name in names.items()}
    attributes |= _partial(readouts, row, lines, start, columns)
    return SortedReadouts(
        measurement, readouts[order], block[order], row[order], start, columns, leading, lines, kept, attributes
    )


def _check_readouts(readouts: np.ndarray, path: Path) -> None:
    for name, what in (
        ("SamplesInScan", "samples"),
        ("UsedChannels", "coils"),
        ("CenterCol", "centre"),
        ("CutOff", "cut-off"),
    ):
        values = np.unique(readouts[name])
        if len(values) > 1:
            raise _refused(path, f"{what} of the readouts", "the same number in all", values[:5].tolist())
    counters = readouts["Counter"]
    if len(np.unique(counters["Lin"])) < 2:
        raise _refused(path, "lines of k-space", "several", "one (spectroscopy, or an adjustment)")
    reflected = has_flag(readouts, "REFLECT")
    for echo in np.unique(counters["Eco"][reflected]):
        if not reflected[counters["Eco"] == echo].all():
            got = f"lines of both in echo {echo} (echo-planar imaging, which needs phase correction)"
            raise _refused(path, "direction of the readouts", "one for all lines of an echo", got)
    first = readouts[0]
    measured = _measured(first)
    symmetric = int(first["CenterCol"]) == int(first["SamplesInScan"]) // 2 and first["CutOff"] == np.zeros(
        (), first["CutOff"].dtype
    )
    if reflected.any() and not symmetric:
        raise _refused(path, "reflected readouts", "a symmetric echo", f"the centre at sample {first['CenterCol']}")
    if measured.stop <= measured.start:
        raise _refused(path, "cut-off of the readouts", "measured samples between", str(measured))


def _columns(readout: np.void, protocol: Protocol, path: Path) -> tuple[int, int]:
    """Return the column at which readouts begin and the number of columns, the centre of k-space in the middle."""
    samples, centre = int(readout["SamplesInScan"]), int(readout["CenterCol"])
    columns = round(protocol.base_columns * protocol.oversampling) or samples
    start = columns // 2 - centre
    if start < 0 or start + samples > columns or columns > SPARSEST * samples:
        got = f"{samples} samples, the centre at {centre}"
        raise _refused(path, "readouts", f"at most {columns} columns around the centre", got)
    return start, columns


def _leading(readouts: np.ndarray, protocol: Protocol, path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Return the dimensions in front of the coils, and for each the values of the counters in their order."""
    counters = readouts["Counter"]
    values = {
        "set": np.unique(counters["Set"]),
        "frame": np.unique(_frame(counters)),
        "echo": np.unique(counters["Eco"]),
        "slice": _slice_order(readouts, path),
    }
    partitions = protocol.is_3d or len(np.unique(counters["Par"])) > 1
    leading = {
        name: len(found) for name, found in values.items() if len(found) > 1 or (name == "slice" and not partitions)
    }
    if partitions:
        leading["kz"] = _centred(readouts, "Par", protocol.partitions, path)
    return leading, values


def _frame(counters: np.ndarray) -> np.ndarray:
    """Return one number that grows first with the phase of a cycle, then with repetitions."""
    return counters["Rep"].astype(np.int64) << 16 | counters["Phs"]


def _slice_order(readouts: np.ndarray, path: Path) -> np.ndarray:
    """Return the counters of the slices, sorted by their position along the normal."""
    numbers, first = np.unique(readouts["Counter"]["Sli"], return_index=True)
    if len(numbers) == 1:
        return numbers
    place = readouts[first]["SliceData"]
    normals = np.array([_normal(quaternion) for quaternion in place["Quaternion"].astype(np.float64)])
    if not np.allclose(normals, normals[0], atol=1e-3):
        raise _refused(path, "slices", "parallel ones", "several orientations (a localizer)")
    positions = np.stack([place["SlicePos"][axis] for axis in ("Sag", "Cor", "Tra")], axis=-1).astype(np.float64)
    return numbers[np.argsort(positions @ normals[0], kind="stable")]


def _normal(quaternion: np.ndarray) -> np.ndarray:
    """Return the slice's normal, the third column of the rotation that a quaternion (scalar first) stands for."""
    a, b, c, d = quaternion
    return np.array([2 * (b * d + a * c), 2 * (c * d - a * b), 1 - 2 * (b * b + c * c)])


def _centred(readouts: np.ndarray, counter: str, length: int, path: Path) -> int:
    """Return the length of k-space along a counter, the centre being in the middle."""
    numbers = readouts["Counter"][counter].astype(int)
    centres = np.unique(readouts[f"Center{counter}"])
    if len(centres) > 1:
        raise _refused(path, f"centre of k-space ({counter})", "one", centres[:5].tolist())
    before, after = int(centres[0]) - numbers.min(), numbers.max() - int(centres[0])
    needed = int(max(2 * before, 2 * after + 1, 1))
    needed += needed % 2 if needed > 1 else 0
    if needed > MOST_TIMES_LARGER * max(length, 1) + 1 or length > SPARSEST * (needed + 1):
        got = f"{numbers.min()} .. {numbers.max()} around {centres[0]}"
        raise _refused(path, f"counter {counter}", f"{length} values around the centre", got)
    return length if before <= length // 2 and after < length - length // 2 else max(needed, length)


def _with_reference(
    readouts: np.ndarray,
    extra: np.ndarray,
    positions: dict[str, np.ndarray],
    leading: dict[str, int],
    lines: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return blocks and lines of image and reference readouts, and which reference readouts fill what is missing."""
    depth = leading.get("kz", 1)

    def place(part: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counters = part["Counter"]
        block, inside = np.zeros(len(part), np.int64), np.ones(len(part), bool)
        of = {"set": counters["Set"], "frame": _frame(counters), "echo": counters["Eco"], "slice": counters["Sli"]}
        for name, values in positions.items():
            order = np.argsort(values, kind="stable")
            found = np.minimum(np.searchsorted(values[order], of[name]), len(values) - 1)
            inside &= values[order][found] == of[name]
            block = block * len(values) + order[found]
        row = counters["Lin"].astype(np.int64) - part["CenterLin"] + lines // 2
        kz = counters["Par"].astype(np.int64) - part["CenterPar"] + depth // 2
        if "kz" in leading:
            inside &= (kz >= 0) & (kz < depth)
            block = block * depth + kz
        inside &= (row >= 0) & (row < lines)
        return block, row, inside

    block, row, _ = place(readouts)
    of_extra, row_extra, inside = place(extra)
    added = inside & ~np.isin(of_extra * lines + row_extra, block * lines + row)
    return np.concatenate([block, of_extra[added]]), np.concatenate([row, row_extra[added]]), added


def _averages(readouts: np.ndarray, places: np.ndarray, path: Path) -> int:
    """Return how often a line was measured at most; refuse repetitions of a kind that this reader does not know."""
    _, inverse, counts = np.unique(places, return_inverse=True, return_counts=True)
    for name in _OTHER_COUNTERS if counts.max() > 1 else ():
        values = readouts["Counter"][name].astype(np.int64)
        low, high = np.full(len(counts), 1 << 16), np.zeros(len(counts), np.int64)
        np.minimum.at(low, inverse, values)
        np.maximum.at(high, inverse, values)
        if (low != high).any():
            raise _refused(path, f"counter {name}", "one value for a line", f"{low[low != high][0]} and others")
    return int(counts.max())


def _partial(readouts: np.ndarray, row: np.ndarray, lines: int, start: int, columns: int) -> dict[str, Any]:
    """Return the part of k-space that was measured where it reaches one end and not the other."""
    measured = _measured(readouts[0])
    spans = {
        "partial_lines": (int(row.min()), int(row.max()) + 1, lines),
        "partial_columns": (start + measured.start, start + measured.stop, columns),
    }
    return {name: [low, high, length] for name, (low, high, length) in spans.items() if high - low < length}


def _refused(path: Path, what: str, expected: object, got: object) -> FormatError:
    fix = "This reader takes Cartesian imaging; leave the file out."
    return FormatError(expected_got(what, expected=expected, got=got, where=path, fix=fix))
