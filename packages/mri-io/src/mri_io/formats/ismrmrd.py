"""ISMRMRD HDF5 (Inati et al. 2017, doi:10.1002/mrm.26089): 2-D Cartesian, one or several slices."""

from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np

from mri_io.errors import FormatError, NonFiniteError, expected_got
from mri_io.formats.bart import acquired_mask
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem, identify, plain
from mri_io.formats.hdf5 import is_hdf5, open_hdf5
from mri_io.formats.xml_header import deidentified_xml, header_from_xml, line_offset, patient_of
from mri_io.schema.attributes import Header

__all__ = ["IsmrmrdFormat"]

# Readouts that are no part of the image.
_SKIPPED = (
    ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
    ismrmrd.ACQ_IS_NAVIGATION_DATA,
    ismrmrd.ACQ_IS_PHASECORR_DATA,
    ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
    ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,
)


class IsmrmrdFormat(Format):
    """Cartesian readouts sorted into (slice, coil, ky, kx); rows are phase encoding, columns readout.

    Noise and other auxiliary readouts are left out, averages are averaged, oversampling of the readout is removed and
    stated in the attributes ``oversampling_removed``. Anything else is refused by name.
    """

    name = "ismrmrd"
    summary = "ISMRMRD HDF5: 2-D Cartesian acquisitions, multi-slice, averages"

    def sniff(self, path: Path) -> bool:
        """Whether the file is HDF5 with a group that holds ``xml`` and ``data``."""
        if not is_hdf5(path):
            return False
        try:
            with h5py.File(path) as file:
                return any(isinstance(file[key], h5py.Group) and "xml" in file[key] for key in file)
        except (OSError, RuntimeError, KeyError):
            return False

    def find(self, path: Path) -> list[SourceItem]:
        """Return one volume per data set group of the file."""
        with h5py.File(path) as file:
            groups = [key for key in file if isinstance(file[key], h5py.Group) and "xml" in file[key]]
        return [
            SourceItem(self.name, path, (path,), path.name if len(groups) == 1 else f"{path.name}:{g}", {"group": g})
            for g in groups
        ]

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the header's subject and sequence."""
        with open_hdf5(item.path) as file:
            xml = _text(np.ravel(file[item.options["group"]]["xml"][()])[0])
        acquisition = plain(header_from_xml(xml).sequence or "") or "ismrmrd"
        return identify(item.path, item.path.stem, acquisition, patient_of(xml))

    def read(self, item: SourceItem) -> RawVolume:
        """Sort the acquisitions of one data set."""
        path = item.path
        xml, acquisitions = _acquisitions(path, item.options["group"])
        header = header_from_xml(xml)
        _refuse(header.trajectory not in (None, "cartesian"), path, "trajectory", "cartesian", header.trajectory)
        used = [a for a in acquisitions if not any(a.is_flag_set(flag) for flag in _SKIPPED)]
        _refuse(not used, path, "acquisitions", "imaging readouts", f"{len(acquisitions)} others")
        kspace, attributes = _sorted(used, header, line_offset(xml), path)
        elements = [RawElement.of("kspace", kspace, attributes=attributes)]
        mask = acquired_mask(kspace)
        if mask is not None:
            elements.append(mask)
        return RawVolume(elements=tuple(elements), header=header, attributes={"ismrmrd_xml": deidentified_xml(xml)})


def _acquisitions(path: Path, group: str) -> tuple[str, list[Any]]:
    """Return the XML header and all acquisitions of a data set."""
    try:
        dataset = ismrmrd.Dataset(str(path), group, mode="r")
        try:
            xml = _text(dataset.read_xml_header())
            count = dataset.number_of_acquisitions() if "data" in dataset.list() else 0
            return xml, [dataset.read_acquisition(number) for number in range(count)]
        finally:
            dataset.close()
    except (OSError, RuntimeError, KeyError, LookupError, ValueError) as error:
        raise FormatError(
            f"{path}: expected readable ISMRMRD acquisitions, got: {error}. The file is truncated or damaged."
        ) from error


def _refuse(wrong: bool, path: Path, what: str, expected: object, got: object) -> None:
    if wrong:
        fix = "This reader takes 2-D Cartesian scans of one contrast, phase, repetition and set."
        raise FormatError(expected_got(what, expected=expected, got=got, where=path, fix=fix))


def _sorted(used: list[Any], header: Header, offset: int, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return k-space (slice, coil, ky, kx) and attributes of readouts."""
    for counter in ("kspace_encode_step_2", "contrast", "phase", "repetition", "set"):
        values = sorted({int(getattr(a.idx, counter)) for a in used})
        _refuse(len(values) > 1, path, f"counter {counter}", "one value", values)
    reverse = any(a.is_flag_set(ismrmrd.ACQ_IS_REVERSE) for a in used)
    _refuse(reverse, path, "readouts", "one direction", "reversed ones (echo-planar imaging)")
    lengths = sorted({a.data.shape for a in used})
    _refuse(len(lengths) > 1, path, "readouts", "one shape (coils, samples)", lengths)
    coils, samples = lengths[0]
    _refuse(
        any(a.center_sample not in (0, samples // 2) for a in used), path, "echo", "symmetric", "an asymmetric echo"
    )
    lines = [int(a.idx.kspace_encode_step_1) + offset for a in used]
    rows = header.encoded_matrix[1] if header.encoded_matrix else 1 + max(lines)
    outside = min(lines) < 0 or max(lines) >= rows
    _refuse(outside, path, "lines of k-space", f"rows 0 .. {rows - 1}", f"rows {min(lines)} .. {max(lines)}")
    slices = 1 + max(int(a.idx.slice) for a in used)
    kspace = np.zeros((slices, coils, rows, samples), np.complex64)
    counts = np.zeros((slices, rows), np.int64)
    for a, row in zip(used, lines, strict=True):
        if not np.isfinite(a.data).all():
            what = f"readout of slice {a.idx.slice}, line {a.idx.kspace_encode_step_1}"
            raise NonFiniteError(expected_got(what, expected="finite numbers", got="NaN or infinity", where=path))
        kspace[a.idx.slice, :, row] += a.data
        counts[a.idx.slice, row] += 1
    kspace /= np.maximum(counts, 1)[:, None, :, None]
    attributes = {"averages": int(counts.max()), "oversampling_removed": 1.0}
    if header.encoded_fov_m and header.recon_fov_m and header.encoded_fov_m[0] > 1.01 * header.recon_fov_m[0]:
        length = round(samples * header.recon_fov_m[0] / header.encoded_fov_m[0])
        kspace = _crop_readout(kspace, length)
        attributes["oversampling_removed"] = samples / length
    return kspace, attributes


def _crop_readout(kspace: np.ndarray, length: int) -> np.ndarray:
    """Cut the field of view along the readout to its centre."""
    axis, samples = -1, kspace.shape[-1]
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=axis), axis=axis, norm="ortho"), axes=axis)
    start = samples // 2 - length // 2
    cropped = image[..., start : start + length]
    back = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(cropped, axes=axis), axis=axis, norm="ortho"), axes=axis)
    return np.asarray(back, np.complex64)


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
