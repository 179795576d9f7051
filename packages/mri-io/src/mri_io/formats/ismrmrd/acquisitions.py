"""The acquisitions of an ISMRMRD file, read in bulk: first all heads, then the data of those that are asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ismrmrd.hdf5
import numpy as np

from mri_io.errors import FormatError, NonFiniteError, expected_got
from mri_io.formats.hdf5 import open_hdf5

__all__ = ["COUNTERS", "Acquisitions", "Reader", "open_acquisitions", "read_xml"]

COUNTERS = ("slice", "contrast", "phase", "repetition", "set")
"""Counters that make up series and slices; those of lines and partitions are `kspace_encode_step_1` and `_2`."""
BATCH_BYTES = 32 * 2**20
"""How much is read at once."""
_BLOCK = 64
_MOST_PACKED = 1032  # deflate: a match of 258 bytes takes at least two bits
_STANDARD = ismrmrd.hdf5.acquisition_header_dtype
_FIELDS = (
    *("flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample"),
    *("encoding_space_ref", "trajectory_dimensions", "sample_time_us"),
    *("position", "read_dir", "phase_dir", "slice_dir", "idx"),
)
_HEAD = np.dtype([(name, _STANDARD.fields[name][0]) for name in _FIELDS])
_DAMAGED = "The file is truncated or damaged: copy it again from its source."


def read_xml(path: Path, group: str) -> str:
    """Return the XML header of a data set; FormatError when there is none."""
    with open_hdf5(path) as file:
        place = file.get(group)
        found = place.get("xml") if isinstance(place, h5py.Group) else None
        value = np.ravel(found[()]) if isinstance(found, h5py.Dataset) else np.empty(0)
        if not value.size or not isinstance(value[0], bytes | str):
            raise FormatError(expected_got(f"{group}/xml", expected="one XML header", got="none", where=path))
        return value[0].decode("utf-8", errors="replace") if isinstance(value[0], bytes) else str(value[0])


@dataclass(frozen=True)
class Acquisitions:
    """The acquisitions of one data set of a file.

    Attributes
    ----------
    path, group
        The file and the data set's group in it.
    heads
        Their heads in the order of acquisition, a structured array with the field names of ISMRMRD.
    """

    path: Path
    group: str
    heads: np.ndarray

    def counter(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Return an encoding counter of some acquisitions, int64."""
        return self.heads["idx"][name][numbers].astype(np.int64)

    def flagged(self, *flags: int) -> np.ndarray:
        """Return which acquisitions carry any of some flags, ``ismrmrd.ACQ_...``."""
        bits = np.uint64(sum(1 << (flag - 1) for flag in set(flags)))
        return (self.heads["flags"] & bits) != 0

    @contextmanager
    def reading(self) -> Iterator["Reader"]:
        """Open the file for reading data."""
        with open_hdf5(self.path) as file:
            yield Reader(self, file[self.group]["data"])


class Reader:
    """Reads data and trajectories of acquisitions from an open file."""

    def __init__(self, acquisitions: Acquisitions, dataset: Any) -> None:
        self._of, self._dataset = acquisitions, dataset

    def data(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield acquisitions in batches.

        Parameters
        ----------
        numbers
            Which, in any order and each once; all with as many channels and samples as the first.

        Yields
        ------
        tuple
            Positions in `numbers` of a batch, and its data (acquisition, channel, sample), complex64.

        Raises
        ------
        NonFiniteError
            When data hold NaN or infinity.
        FormatError
            When the data are not of the size that their heads state, or cannot be read.
        """
        head = self._of.heads[numbers[:1]]
        channels, samples = (int(head[name][0]) for name in ("active_channels", "number_of_samples"))
        for positions, values in self._batches("data", numbers, 2 * channels * samples):
            array = values.view(np.complex64).reshape(-1, channels, samples)
            if not np.isfinite(values).all():
                self._refuse_values(numbers[positions], array)
            yield positions, array

    def trajectories(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield positions and trajectories (acquisition, sample, axis), float32, as `data` does."""
        head = self._of.heads[numbers[:1]]
        samples, axes = (int(head[name][0]) for name in ("number_of_samples", "trajectory_dimensions"))
        for positions, values in self._batches("traj", numbers, samples * axes):
            array = values.reshape(-1, samples, axes)
            if not np.isfinite(array).all():
                what = "trajectories"
                raise NonFiniteError(
                    expected_got(what, expected="finite numbers", got="NaN or infinity", where=self._of.path)
                )
            yield positions, array

    def _batches(self, field: str, numbers: np.ndarray, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = np.argsort(numbers, kind="stable")  # HDF5 reads in ascending order
        step = max(1, BATCH_BYTES // max(1, 4 * length))
        for start in range(0, len(order), step):
            positions = order[start : start + step]
            found = self._read(field, numbers[positions])
            if any(len(values) != length for values in found):
                bad = next(i for i, values in enumerate(found) if len(values) != length)
                what = f"{field} of acquisition {numbers[positions[bad]]}"
                got = f"{len(found[bad])} numbers"
                expected = f"{length} numbers, as its head states"
                raise FormatError(expected_got(what, expected=expected, got=got, where=self._of.path, fix=_DAMAGED))
            yield positions, np.stack(found).astype(np.float32, copy=False)

    def _read(self, field: str, numbers: np.ndarray) -> list[np.ndarray]:
        whole = numbers[-1] - numbers[0] + 1 == len(numbers)
        chosen = slice(int(numbers[0]), int(numbers[-1]) + 1) if whole else numbers
        try:
            return list(np.ravel(self._dataset.fields(field)[(chosen, *(0,) * (self._dataset.ndim - 1))]))
        except (OSError, RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise FormatError(
                f"{self._of.path}: expected readable ISMRMRD acquisitions, got: {error}. {_DAMAGED}"
            ) from error

    def _refuse_values(self, numbers: np.ndarray, array: np.ndarray) -> None:
        index = self._of.heads["idx"][numbers[~np.isfinite(array).all(axis=(1, 2))][0]]
        what = f"readout of slice {index['slice']}, line {index['kspace_encode_step_1']}"
        raise NonFiniteError(expected_got(what, expected="finite numbers", got="NaN or infinity", where=self._of.path))


def open_acquisitions(path: Path, group: str) -> Acquisitions | None:
    """Read all heads of a data set, None when it holds no acquisitions.

    Raises
    ------
    FormatError
        When it is no ISMRMRD data set, or its heads claim more data than the file can hold.
    """
    with open_hdf5(path) as file:
        place = file.get(group)
        dataset = place.get("data") if isinstance(place, h5py.Group) else None
        if dataset is None:
            return None
        _check_layout(dataset, path, group)
        packed = dataset.id.get_create_plist().get_nfilters() > 0
        length = len(dataset) * dataset.id.get_type().get_size()
        _check_size(path, length // (_MOST_PACKED if packed else 1), "number of acquisitions")
        heads = np.empty(len(dataset), _HEAD)
        try:
            start = 0
            for block in _blocks_of_heads(dataset, raw=dataset.chunks is not None and not packed):
                for name in _FIELDS:
                    heads[name][start : start + len(block)] = block[name][: len(heads) - start]
                start += len(block)
        except (OSError, RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise FormatError(f"{path}: expected readable ISMRMRD acquisitions, got: {error}. {_DAMAGED}") from error
    samples = heads["number_of_samples"].astype(np.int64)
    samples *= 8 * heads["active_channels"].astype(np.int64) + 4 * heads["trajectory_dimensions"].astype(np.int64)
    _check_size(path, int(samples.sum()), "heads of the acquisitions")
    return Acquisitions(path, group, heads) if len(heads) else None


def _blocks_of_heads(dataset: Any, *, raw: bool) -> Iterator[np.ndarray]:
    """Yield the heads in order, the last block perhaps with more than there are.

    The HDF5 library reads the data of all acquisitions along with their heads, and keeps them in memory: heads are
    taken from the raw chunks where these are not compressed.
    """
    kind, rest = dataset.id.get_type(), (0,) * (dataset.ndim - 1)
    if not raw:
        for start in range(0, len(dataset), _BLOCK):
            yield dataset[(slice(start, start + _BLOCK), *rest)]["head"]
        return
    offset = kind.get_member_offset(kind.get_member_index(b"head"))
    fields: Any = {
        "names": ["head"],
        "formats": [dataset.dtype["head"]],
        "offsets": [offset],
        "itemsize": kind.get_size(),
    }
    record = np.dtype(fields)
    for start in range(0, len(dataset), dataset.chunks[0]):
        yield np.frombuffer(dataset.id.read_direct_chunk((start, *rest))[1], record)["head"]


def _check_size(path: Path, claimed: int, what: str) -> None:
    """Raise FormatError when a file cannot hold what is claimed in it, before memory is taken for it."""
    size = path.stat().st_size
    if claimed > size:
        expected = f"at least the {claimed} bytes by the {what}"
        raise FormatError(expected_got("size", expected=expected, got=f"{size} bytes", where=path, fix=_DAMAGED))


def _check_layout(dataset: Any, path: Path, group: str) -> None:
    """Raise FormatError unless the data set is a list of heads, trajectories and data."""
    names = dataset.dtype.names if isinstance(dataset, h5py.Dataset) else None
    if names is not None and (dataset.file.filename != str(path) or dataset.is_virtual or dataset.external):
        got = "a reference to another file"
        raise FormatError(expected_got(f"{group}/data", expected="data in the file itself", got=got, where=path))
    expected = "acquisitions: head, traj, data"
    if names is None or not {"head", "traj", "data"} <= set(names):
        got = "a group" if isinstance(dataset, h5py.Group) else f"{dataset.dtype}"
        raise FormatError(expected_got(f"{group}/data", expected=expected, got=got, where=path))
    fields = dataset.dtype["head"].names or ()
    lacking = [name for name in _FIELDS if name not in fields]
    lacking += [name for name in (*COUNTERS, "kspace_encode_step_1") if not lacking and name not in _counters(dataset)]
    if lacking:
        raise FormatError(expected_got(f"head of {group}/data", expected=lacking, got=fields, where=path))
    numbers = [h5py.check_vlen_dtype(dataset.dtype[name]) for name in ("traj", "data")]
    if any(kind != np.float32 for kind in numbers) or dataset.ndim not in (1, 2) or 0 in dataset.shape[1:]:
        got = f"{numbers} {dataset.shape}"
        raise FormatError(expected_got(f"{group}/data", expected="lists of float32", got=got, where=path))


def _counters(dataset: Any) -> tuple[str, ...]:
    return dataset.dtype["head"]["idx"].names or ()
