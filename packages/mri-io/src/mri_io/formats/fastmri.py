"""The fastMRI HDF5 layouts (Zbontar et al. 2018, arXiv:1811.08839; prostate: Tibrewala et al. 2024, arXiv:2304.09254).

A file is a volume, sampled along the last axis. Test and challenge files hold undersampled k-space with its mask and no
reconstruction.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import Identity, RawElement, RawVolume, SourceItem, identify
from mri_io.formats.hdf5 import (
    Hdf5Based,
    found_number,
    hdf5_layout,
    open_hdf5,
    rows_at_once,
    stored_array,
    stored_text,
)
from mri_io.formats.kspace.xml_header import (
    aliases_of,
    deidentified_xml,
    header_from_xml,
    patient_of,
    personal_of,
)
from mri_io.formats.names import is_anonymous
from mri_io.formats.vocabulary import known_sequence
from mri_io.schema.attributes import Header

__all__ = ["FastMriFormat"]

_DIMS = ("slice", "coil", "ky", "kx")
_RECONSTRUCTIONS = {"reconstruction_rss": "rss", "reconstruction_esc": "esc"}
_MASK_NUMBERS = ("acceleration", "num_low_frequency")


class FastMriFormat(Hdf5Based):
    """Multi-coil and single-coil files with ``kspace`` and perhaps ``mask`` and reconstructions.

    Axes are kept as they lie: rows are ``ky``, columns ``kx``; the mask samples ``kx``. Files of the prostate set hold
    several averages, which sample different lines: they become frames.
    """

    name = "fastmri"
    summary = "fastMRI HDF5: kspace (slices, coils, rows, columns), mask, reconstruction_rss / _esc"

    def sniff(self, path: Path) -> bool:
        """Whether the file is HDF5 with ``kspace`` that has the layout of no other data set."""
        return hdf5_layout(path) == self.name

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the attributes ``patient_id`` and ``acquisition``."""
        with open_hdf5(item.path) as file:
            patient = stored_text(file.attrs.get("patient_id", ""))
            xml = _header_xml(file)
            acquisition = _acquisition(file, xml) or self.name
        patient = patient_of(xml) or "" if is_anonymous(patient) else patient
        return identify(item.path, item.path.stem, acquisition, patient, aliases=aliases_of(xml))

    def memory(self, item: SourceItem) -> int:
        """Return the most that reading holds: a block as it is read, converted and written, and a chunk unpacked."""
        try:
            with open_hdf5(item.path) as file:
                arrays = [stored_array(file, key) for key in ("kspace", *_RECONSTRUCTIONS) if key in file]
                largest = max(rows_at_once(array) * array.nbytes // max(1, array.shape[0]) for array in arrays)
        except FormatError:  # reading says so
            return super().memory(item)
        return 5 * largest + 2**27

    def read(self, item: SourceItem) -> RawVolume:
        """Read metadata; k-space and reconstructions are read in blocks of slices when they are asked for."""
        path = item.path
        with open_hdf5(path) as file:
            kspace = stored_array(file, "kspace")
            shape, dims = _dimensions(file, kspace)
            elements = [RawElement("kspace", shape, np.dtype(np.complex64), lambda: _kspace(path, shape), dims)]
            if "mask" in file:
                elements.append(_mask(file, shape))
            elif dims[0] == "frame":
                elements.append(_lines_of_averages(kspace))
            elements += [_reconstruction(file, key, path) for key in _RECONSTRUCTIONS if key in file]
            xml = _header_xml(file)
            acquisition = _acquisition(file, xml)
        attributes: dict[str, Any] = {"ismrmrd_xml": deidentified_xml(xml)} if xml else {}
        if acquisition is not None:
            attributes["acquisition"] = acquisition
        return RawVolume(tuple(elements), _header(xml) if xml else Header(), attributes)


def _dimensions(file: h5py.File, kspace: h5py.Dataset) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the shape and dimensions that k-space has in the store; FormatError where they are not known."""
    shape: tuple[int, ...] = kspace.shape
    prostate = len(shape) == 5 and "calibration_data" in file
    if prostate and "coil_sens_maps" in file:
        raise FormatError(
            expected_got(
                "kspace",
                expected="Cartesian k-space",
                got="echo-planar readouts of the fastMRI prostate diffusion scans, sampled on their ramps",
                where=file.filename,
                fix="Put them on a grid with the data set's own tools, or leave the file out.",
            )
        )
    if kspace.dtype.kind != "c" or not (len(shape) in (3, 4) or prostate):
        raise FormatError(
            expected_got(
                "kspace",
                expected="complex, (slices, coils, rows, columns) or (slices, rows, columns), or with "
                "'calibration_data' (averages, slices, coils, rows, columns)",
                got=f"{kspace.dtype} {shape}",
                where=file.filename,
            )
        )
    if prostate:
        return shape, ("frame", *_DIMS)
    return (shape if len(shape) == 4 else (shape[0], 1, *shape[1:])), _DIMS


def _kspace(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    with open_hdf5(path) as file:
        kspace = stored_array(file, "kspace")
        if len(shape) == 5:
            for frame in range(shape[0]):
                for start in range(0, shape[1], step := _slices_at_once(kspace)):
                    yield np.asarray(kspace[frame, start : start + step], dtype=np.complex64)
            return
        for start in range(0, shape[0], step := rows_at_once(kspace)):
            block = np.asarray(kspace[start : start + step], dtype=np.complex64)
            yield block.reshape(len(block), *shape[1:])


def _slices_at_once(kspace: h5py.Dataset) -> int:
    """Return how many slices of one average are read at a time."""
    slice_bytes = max(1, kspace.nbytes // max(1, kspace.shape[0] * kspace.shape[1]))
    return max(1, 2**26 // slice_bytes)


def _mask(file: h5py.File, shape: tuple[int, ...]) -> RawElement:
    """Return the mask of a test file, (kx,) or with dimensions of length one around it, (1, 1, kx, 1); or of points."""
    stored = stored_array(file, "mask")
    sizes = tuple(n for n in stored.shape if n != 1) or (1,)
    if sizes not in (shape[-1:], shape[-2:]):
        expected = f"{shape[-1]} columns" if len(sizes) == 1 else f"{shape[-1]} columns, or {shape[-2:]} points"
        got = stored.size if len(sizes) == 1 else stored.shape
        raise FormatError(expected_got("mask length", expected=expected, got=got, where=file.filename))
    sampled = (np.asarray(stored) != 0).reshape(sizes).astype(np.uint8)
    stated = {name: number for name in _MASK_NUMBERS if (number := found_number(file.attrs, name)) is not None}
    found = {**stated, "acceleration": float(sampled.size / max(int(sampled.sum()), 1))}
    return RawElement.of("mask/acquired", sampled, dims=("ky", "kx")[-len(sizes) :], attributes=found)


def _lines_of_averages(kspace: h5py.Dataset) -> RawElement:
    """Return the lines that each average sampled, where the middle slice is not zero: averages sample other lines."""
    middle = np.asarray(kspace[:, kspace.shape[1] // 2])
    sampled = (middle != 0).any(axis=(1, 2)).astype(np.uint8)
    return RawElement.of("mask/acquired", sampled, dims=("frame", "kx"), attributes={"found": "from zeros in k-space"})


def _reconstruction(file: h5py.File, key: str, path: Path) -> RawElement:
    """Return a reconstruction with the largest value and the norm that the file states."""
    image = stored_array(file, key)
    if image.ndim != 3:
        raise FormatError(expected_got(key, expected="(slices, rows, columns)", got=image.shape, where=path))

    def blocks() -> Iterator[np.ndarray]:
        with open_hdf5(path) as again:
            stored = stored_array(again, key)
            for start in range(0, stored.shape[0], step := rows_at_once(stored)):
                yield np.asarray(stored[start : start + step], dtype=np.float32)

    numbers = {f"volume_{name}": found_number(file.attrs, name) for name in ("max", "norm")}
    stated = {name: number for name, number in numbers.items() if number is not None}
    return RawElement(
        f"recon/{_RECONSTRUCTIONS[key]}",
        image.shape,
        np.dtype(np.float32),
        blocks,
        ("slice", "y", "x"),
        attributes=stated,
    )


def _header(xml: str) -> Header:
    """Return the acquisition parameters: the header's x is the readout, which lies along the rows, y of the store."""
    header = header_from_xml(xml)
    names = ("encoded_matrix", "recon_matrix", "encoded_fov_m", "recon_fov_m")
    sizes = {name: getattr(header, name) for name in names}
    return header.model_copy(update={name: (size[1], size[0], size[2]) for name, size in sizes.items() if size})


def _acquisition(file: h5py.File, xml: str) -> str | None:
    """Return the name of the protocol as far as it is of known words."""
    return known_sequence(stored_text(file.attrs.get("acquisition", "")), personal_of(xml))


def _header_xml(file: h5py.File) -> str:
    header = file.get("ismrmrd_header")
    if header is None:
        return ""
    if not isinstance(header, h5py.Dataset) or header.shape not in ((), (1,)):
        got = "a group" if not isinstance(header, h5py.Dataset) else f"an array {header.shape}"
        raise FormatError(expected_got("ismrmrd_header", expected="one string", got=got, where=file.filename))
    return stored_text(np.ravel(header[()])[0])
