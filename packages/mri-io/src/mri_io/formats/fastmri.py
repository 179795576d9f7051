"""The fastMRI HDF5 layout (Zbontar et al. 2018, arXiv:1811.08839): a volume per file, sampled along the last axis."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem, identify, plain
from mri_io.formats.hdf5 import is_hdf5, open_hdf5
from mri_io.formats.xml_header import deidentified_xml, header_from_xml, patient_of
from mri_io.schema.attributes import Header

__all__ = ["FastMriFormat"]


_ARRAYS = ("kspace", "mask", "reconstruction_rss", "reconstruction_esc")


class FastMriFormat(Format):
    """Multi-coil and single-coil files with ``kspace`` and perhaps ``mask`` and a reconstruction.

    Axes are kept as they lie: rows are ``ky``, columns ``kx``; the mask samples ``kx``.
    """

    name = "fastmri"
    summary = "fastMRI HDF5: kspace (slices, coils, rows, columns), mask, reconstruction_rss / _esc"

    def sniff(self, path: Path) -> bool:
        """Whether the file is HDF5 with a data set ``kspace`` or a fastMRI header."""
        if not is_hdf5(path):
            return False
        try:
            with h5py.File(path) as file:
                # ISMRMRD files are HDF5 too; so that a truncated or empty file is named, not passed over, any other
                # HDF5 file is taken for this layout and refused by `read`.
                return not any(isinstance(file[key], h5py.Group) and "xml" in file[key] for key in file)
        except (OSError, RuntimeError, KeyError):
            return True

    def find(self, path: Path) -> list[SourceItem]:
        """Return the one volume of a file."""
        return [SourceItem(self.name, path, (path,), path.name)]

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the attributes ``patient_id`` and ``acquisition``."""
        with open_hdf5(item.path) as file:
            patient = _text(file.attrs.get("patient_id", ""))
            acquisition = plain(_text(file.attrs.get("acquisition", ""))) or "fastmri"
            xml = _header_xml(file)
        return identify(item.path, item.path.stem, acquisition, patient or patient_of(xml))

    def read(self, item: SourceItem) -> RawVolume:
        """Read metadata; k-space is read slice by slice when it is asked for."""
        path = item.path
        with open_hdf5(path) as file:
            if "kspace" not in file:
                raise FormatError(
                    expected_got(
                        "data set",
                        expected="'kspace' (fastMRI layout)",
                        got=sorted(file) or "an empty file",
                        where=path,
                        fix="This HDF5 file holds no k-space; leave it out.",
                    )
                )
            for key in _ARRAYS:
                if key in file and not isinstance(file[key], h5py.Dataset):
                    raise FormatError(expected_got(key, expected="an array (HDF5 data set)", got="a group", where=path))
            kspace = file["kspace"]
            shape = kspace.shape
            if kspace.dtype.kind != "c" or len(shape) not in (3, 4):
                raise FormatError(
                    expected_got(
                        "kspace",
                        expected="complex, (slices, coils, rows, columns) or (slices, rows, columns)",
                        got=f"{kspace.dtype} {shape}",
                        where=path,
                    )
                )
            full = shape if len(shape) == 4 else (shape[0], 1, *shape[1:])
            elements = [RawElement("kspace", full, np.dtype(np.complex64), lambda: _slices(path))]
            if "mask" in file:
                mask = np.asarray(file["mask"]).ravel()
                if mask.size != shape[-1]:
                    raise FormatError(
                        expected_got("mask length", expected=f"{shape[-1]} columns", got=mask.size, where=path)
                    )
                sampled = (mask != 0).astype(np.uint8)
                found = {"acceleration": float(mask.size / max(sampled.sum(), 1))}
                elements.append(RawElement.of("mask/acquired", sampled, dims=("kx",), attributes=found))
            for key, name in (("reconstruction_rss", "rss"), ("reconstruction_esc", "esc")):
                if key in file:
                    image = np.asarray(file[key], dtype=np.float32)
                    elements.append(RawElement.of(f"recon/{name}", image, dims=("slice", "y", "x")))
            xml = _header_xml(file)
        return RawVolume(
            elements=tuple(elements),
            header=_header(xml) if xml else Header(),
            attributes={"ismrmrd_xml": deidentified_xml(xml)} if xml else {},
        )


def _slices(path: Path) -> Iterator[np.ndarray]:
    with open_hdf5(path) as file:
        kspace = file["kspace"]
        for index in range(kspace.shape[0]):
            block = np.asarray(kspace[index], dtype=np.complex64)
            yield block[None] if block.ndim == 3 else block[None, None]


def _header(xml: str) -> Header:
    """Return the acquisition parameters: the header's x is the readout, which lies along the rows, y of the store."""
    header = header_from_xml(xml)
    names = ("encoded_matrix", "recon_matrix", "encoded_fov_m", "recon_fov_m")
    sizes = {name: getattr(header, name) for name in names}
    return header.model_copy(update={name: (size[1], size[0], size[2]) for name, size in sizes.items() if size})


def _header_xml(file: h5py.File) -> str:
    header = file.get("ismrmrd_header")
    if header is None:
        return ""
    if not isinstance(header, h5py.Dataset) or header.shape not in ((), (1,)):
        got = "a group" if not isinstance(header, h5py.Dataset) else f"an array {header.shape}"
        raise FormatError(expected_got("ismrmrd_header", expected="one string", got=got, where=file.filename))
    return _text(np.ravel(header[()])[0])


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
