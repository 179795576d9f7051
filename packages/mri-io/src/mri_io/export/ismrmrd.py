"""ISMRMRD HDF5: k-space as acquisitions with encoding counters (Inati et al. 2017, doi:10.1002/mrm.26089)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
from ismrmrd.hdf5 import acquisition_dtype

from mri_io.errors import ConfigError, expected_got
from mri_io.export.base import ElementExporter, ExportItem
from mri_io.export.hdf5 import hdf5_file
from mri_io.export.ismrmrd_header import header_xml, slice_geometry
from mri_io.schema.attributes import Header
from mri_io.store.element import Element

__all__ = ["IsmrmrdExporter"]

MOST = 65535
"""Largest counter, number of samples and of coils."""
CHUNK = 64
NOISE_SAMPLES = 32768
_HEAP = 4096
_COUNTERS = {"set": "set", "echo": "contrast", "slice": "slice", "kz": "kspace_encode_step_2"}


class IsmrmrdExporter(ElementExporter):
    """K-space, with its noise and trajectory; only lines that were acquired, where the store knows them.

    Frames are repetitions, or phases where the volume's source counted them as such. Samples of a readout that were not
    acquired are marked to be discarded.
    """

    name = "ismrmrd"
    summary = "ISMRMRD HDF5 of k-space, Cartesian or with its trajectory, and of noise"
    parts = ("complex",)

    def names(self, item: ExportItem) -> list[str]:
        """Return the name of the file."""
        if item.element.type != "kspace":
            expected, got = "kspace", item.element.path
            raise ConfigError(
                expected_got("element for ismrmrd", expected=expected, got=got, where=item.element.folder)
            )
        _Layout(item)  # raises what cannot be written
        return [f"{self.stem(item)}.h5"]

    def memory(self, item: ExportItem) -> int:
        """Return what the readouts of one place take, or a block of noise: read, chosen, and as acquisitions."""
        noise = _noise(item)
        samples = 0 if noise is None else noise.shape[0] * min(noise.shape[1], NOISE_SAMPLES)
        return 5 * 8 * max(math.prod(item.element.shape[-3:]), samples)

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the file, a block of k-space at a time."""
        layout = _Layout(item)
        with hdf5_file(targets[0], layout.size() + _noise_size(item)) as file:
            group = file.create_group("dataset")
            text = group.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))
            text[0] = layout.xml()
            data = group.create_dataset("data", (0,), maxshape=(None,), chunks=(CHUNK,), dtype=acquisition_dtype)
            for block in _noise_acquisitions(item):
                _append(data, block)
            for block in layout.acquisitions():
                _append(data, block)


def _append(data: Any, block: np.ndarray) -> None:
    start = len(data)
    block["head"]["scan_counter"] = np.arange(start, start + len(block))
    data.resize(start + len(block), axis=0)
    data[start:] = block


def _block(readouts: np.ndarray, paths: np.ndarray | None = None) -> np.ndarray:
    """Return acquisitions of readouts (n, coil, sample), perhaps with paths (n, sample, axis)."""
    count, coils, samples = readouts.shape
    block = np.zeros(count, acquisition_dtype)
    head = block["head"]
    head["version"], head["number_of_samples"], head["center_sample"] = 1, samples, samples // 2
    head["available_channels"] = head["active_channels"] = coils
    head["trajectory_dimensions"] = 0 if paths is None else paths.shape[-1]
    for number in range(count):
        block["data"][number] = np.ascontiguousarray(readouts[number], np.complex64).view(np.float32).ravel()
        block["traj"][number] = np.empty(0, np.float32) if paths is None else paths[number].ravel()
    return block


def _size(count: int, readout: int, path: int = 0) -> int:
    """Return how many bytes acquisitions take in the file at most; readout and path are the bytes of one.

    These lie in heaps of at least 4096 bytes, as many as fit into one; larger ones have heaps of their own.
    """
    objects = (max(n + 128, _HEAP // max(1, (_HEAP - 32) // (n + 24)) + 1) for n in (readout, path) if n)
    return (count + CHUNK) * (acquisition_dtype.itemsize + 32 + sum(objects))


def _noise(item: ExportItem) -> Element | None:
    """Return the noise, unless k-space was whitened and no longer has it."""
    if "noise" not in item.volume or item.element.attributes.get("prewhitened"):
        return None
    return item.volume["noise"]


def _noise_size(item: ExportItem) -> int:
    noise = _noise(item)
    if noise is None:
        return 0
    coils, samples = noise.shape
    return _size(math.ceil(samples / NOISE_SAMPLES), 8 * coils * min(samples, NOISE_SAMPLES))


def _noise_acquisitions(item: ExportItem) -> Iterator[np.ndarray]:
    noise = _noise(item)
    if noise is None:
        return
    for start in range(0, noise.shape[1], NOISE_SAMPLES):
        block = _block(noise[:, start : start + NOISE_SAMPLES][None])
        block["head"]["flags"] = 1 << (ismrmrd.ACQ_IS_NOISE_MEASUREMENT - 1)
        block["head"]["sample_time_us"] = 1e6 * float(noise.attributes.get("dwell_time_s") or 0.0)
        yield block


@dataclass(frozen=True)
class _Layout:
    """How the readouts of k-space lie, and which of them were acquired."""

    item: ExportItem

    def __post_init__(self) -> None:
        """Raise ConfigError where the format cannot hold it."""
        large = [name for name, size in self.sizes.items() if size > MOST]
        if large:
            expected = f"lengths up to {MOST}, which is all that ISMRMRD counts"
            raise ConfigError(expected_got("k-space", expected=expected, got=self.sizes, where=self.element.folder))
        if not self.on_grid and "trajectory" not in self.item.volume:
            raise ConfigError(
                expected_got("trajectory", expected="with k-space on no grid", got="none", where=self.element.folder)
            )
        _ = self.sampled  # raises

    @property
    def element(self) -> Element:
        return self.item.element

    @cached_property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.element.dims, self.element.shape, strict=True))

    @property
    def on_grid(self) -> bool:
        return "ky" in self.sizes

    @property
    def leading(self) -> tuple[str, ...]:
        return self.element.dims[:-3]

    @cached_property
    def mask(self) -> Element | None:
        return self.item.volume["mask/acquired"] if self.on_grid and "mask/acquired" in self.item.volume else None

    @cached_property
    def turned(self) -> bool:
        """Whether readouts lie along ky, as in fastMRI."""
        source = self.item.volume.source
        if self.on_grid and source is not None and source.format == "fastmri":
            return True
        if self.mask is None or "ky" in self.mask.dims or "kx" not in self.mask.dims:
            return False
        columns = np.flatnonzero(self.mask.numpy().reshape(-1, self.sizes["kx"]).any(axis=0))
        return bool(columns.size) and columns[-1] - columns[0] + 1 > columns.size  # one piece is a partial readout

    @cached_property
    def sampled(self) -> tuple[np.ndarray, tuple[int, int]]:
        """Which lines (leading..., line) were acquired, and the span of their samples."""
        lines, span = self._sampled()
        count = self.element.shape[-1] if self.turned else self.element.shape[-2]
        return np.broadcast_to(lines, (*self.element.shape[:-3], count)), span

    def _sampled(self) -> tuple[np.ndarray, tuple[int, int]]:
        line, sample = ("kx", "ky") if self.turned else ("ky", "kx")
        if self.mask is None:
            return np.ones(1, bool), (0, self.sizes[sample] if self.on_grid else self.element.shape[-1])
        pattern, dims = self.mask.numpy().astype(bool), self.mask.dims
        wanted = (*self.leading, line, sample)
        order = [dims.index(name) for name in wanted if name in dims]
        pattern = pattern.transpose(order).reshape([self.sizes[name] if name in dims else 1 for name in wanted])
        lines: np.ndarray = np.asarray(pattern.any(axis=-1))
        samples = np.arange(pattern.shape[-1])
        span = np.flatnonzero(pattern.reshape(-1, samples.size).any(axis=0))
        if samples.size == 1 or not span.size:
            return lines, (0, self.sizes[sample])
        first, stop = int(span[0]), int(span[-1]) + 1
        # A gap would come back as acquired zeros: a head says where its samples begin and end, no more.
        if not np.array_equal(pattern, lines[..., None] & (samples >= first) & (samples < stop)):
            got = f"points ({', '.join(dims)})"
            fix = "Both directions of the plane are phase-encoded: export bart."
            where = self.mask.folder
            raise ConfigError(expected_got("mask", expected="whole readouts", got=got, where=where, fix=fix))
        return lines, (first, stop)

    def size(self) -> int:
        """Return how many bytes the acquisitions take in the file at most."""
        coils, samples = self.element.shape[-3], self.element.shape[-2 if self.turned else -1]
        axes = 0 if self.on_grid else self.item.volume["trajectory"].shape[-1]
        return _size(int(self.sampled[0].sum()), 8 * coils * samples, 4 * axes * samples)

    def xml(self) -> bytes:
        """Return the file's header."""
        header, volume = self.item.volume.header, self.item.volume
        x, y = (self.sizes["kx"], self.sizes["ky"]) if self.on_grid else self._matrix(header)
        if self.turned:
            x, y, header = y, x, _turned(header)
        counts = {counter: size for counter, size in self._counts().items() if not counter.startswith("kspace")}
        if not self.on_grid:
            header = header.model_copy(update={"trajectory": header.trajectory or "other"})
        return header_xml(
            str(volume.attributes.get("ismrmrd_xml") or ""),
            header,
            {"x": x, "y": y, "z": self.sizes.get("kz", 1)},
            counts,
            float(self.element.attributes.get("oversampling_removed", 1.0)),
        )

    def _matrix(self, header: Header) -> tuple[int, int]:
        matrix = header.encoded_matrix or (self.sizes["sample"], self.sizes["shot"], 1)
        return matrix[0], matrix[1]

    def _counts(self) -> dict[str, int]:
        """Return how many values each counter takes."""
        found = {_COUNTERS[name]: self.sizes[name] for name in self.leading if name in _COUNTERS}
        if "frame" in self.sizes:
            names, counts = self._frames()
            found |= dict(zip(names, counts, strict=True))
        return found

    def _frames(self) -> tuple[list[str], list[int]]:
        """Return the counters that frames are made of, and their lengths."""
        attributes, count = self.element.attributes, self.sizes["frame"]
        stated = attributes.get("frames")
        if isinstance(stated, dict) and stated.get("phases", 0) * stated.get("repetitions", 0) == count:
            counts = {"repetition": int(stated["repetitions"]), "phase": int(stated["phases"])}
            return list(counts), list(counts.values())
        return ["repetition"], [count]

    def acquisitions(self) -> Iterator[np.ndarray]:
        """Yield the acquisitions, those of one chunk of k-space at a time."""
        shape = self.element.shape[:-3]
        lines, (first, stop) = self.sampled
        last = max((index for index in np.ndindex(shape) if lines[index].any()), default=None)
        geometry = self._geometry()
        for index in np.ndindex(shape):
            chosen = np.flatnonzero(lines[index])
            if not chosen.size:
                continue
            plane = self.element[index]
            readouts = plane.transpose(2, 0, 1) if self.turned else plane.transpose(1, 0, 2)
            block = _block(readouts[chosen], None if self.on_grid else self._paths(index))
            head = block["head"]
            head["discard_pre"], head["discard_post"] = first, readouts.shape[-1] - stop
            head["sample_time_us"] = self._dwell_us()
            head["idx"]["kspace_encode_step_1"] = chosen
            for name, value in self._counters(index).items():
                head["idx"][name] = value
            place = dict(zip(self.leading, index, strict=True)).get("slice", 0)
            for name, values in geometry.items():
                head[name] = values[place]
            flags = head["flags"]
            flags[0] |= np.uint64(1 << (ismrmrd.ACQ_FIRST_IN_SLICE - 1))
            flags[-1] |= np.uint64(1 << (ismrmrd.ACQ_LAST_IN_SLICE - 1))
            if index == last:
                flags[-1] |= np.uint64(1 << (ismrmrd.ACQ_LAST_IN_MEASUREMENT - 1))
            yield block

    def _counters(self, index: tuple[int, ...]) -> dict[str, int]:
        places = dict(zip(self.leading, index, strict=True))
        found = {_COUNTERS[name]: place for name, place in places.items() if name in _COUNTERS}
        if "frame" in places:
            names, counts = self._frames()
            found |= dict(zip(names, map(int, np.unravel_index(places["frame"], counts)), strict=True))
        return found

    def _paths(self, index: tuple[int, ...]) -> np.ndarray:
        """Return the trajectory (shot, sample, axis) of one place."""
        path = self.item.volume["trajectory"]
        places = dict(zip(self.leading, index, strict=True))
        return path[tuple(places[name] for name in path.dims[:-3])]

    def _dwell_us(self) -> float:
        noise: Mapping[str, Any] = self.item.volume["noise"].attributes if "noise" in self.item.volume else {}
        return 1e6 * float(noise.get("readout_dwell_time_s") or 0.0)

    def _geometry(self) -> dict[str, np.ndarray]:
        """Return position and directions of each slice, nothing where they are not known."""
        affine, matrix = self.item.volume.attributes.get("recon_affine"), self.item.volume.header.recon_matrix
        if affine is None or matrix is None or self.turned:
            return {}
        depth = matrix[2] if "kz" in self.sizes else 1
        return slice_geometry(np.asarray(affine, float), (matrix[0], matrix[1], depth), self.sizes.get("slice", 1))


def _turned(header: Header) -> Header:
    """Return the header with columns and rows exchanged."""
    names = ("encoded_matrix", "recon_matrix", "encoded_fov_m", "recon_fov_m")
    sizes = {name: getattr(header, name) for name in names}
    return header.model_copy(update={name: (size[1], size[0], size[2]) for name, size in sizes.items() if size})
