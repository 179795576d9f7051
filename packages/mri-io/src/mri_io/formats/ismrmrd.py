"""ISMRMRD HDF5 (Inati et al. 2017, doi:10.1002/mrm.26089): 2-D Cartesian, one or several slices."""

from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np

from mri_io.errors import FormatError, NonFiniteError, expected_got
from mri_io.formats.bart import acquired_mask
from mri_io.formats.base import RawElement, RawVolume, SourceItem, identify, plain
from mri_io.formats.hdf5 import is_hdf5
from mri_io.formats.xml_header import deidentified_xml, header_from_xml

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


class IsmrmrdFormat:
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

    def read(self, item: SourceItem) -> RawVolume:
        """Sort the acquisitions of one data set."""
        path = item.path
        try:
            dataset = ismrmrd.Dataset(str(path), item.options["group"], create_if_needed=False)
            xml = _text(dataset.read_xml_header())
            count = dataset.number_of_acquisitions() if "data" in dataset.list() else 0
            acquisitions = [dataset.read_acquisition(number) for number in range(count)]
            dataset.close()
        except (OSError, RuntimeError, KeyError, LookupError, ValueError) as error:
            raise FormatError(
                f"{path}: expected readable ISMRMRD acquisitions, got: {error}. The file is truncated or damaged."
            ) from error
        header = header_from_xml(xml)
        _refuse(header.trajectory not in (None, "cartesian"), path, "trajectory", "cartesian", header.trajectory)
        used = [a for a in acquisitions if not any(a.is_flag_set(flag) for flag in _SKIPPED)]
        _refuse(not used, path, "acquisitions", "imaging readouts", f"{len(acquisitions)} others")
        kspace, attributes = _sorted(used, header, path)
        elements = [RawElement.of("kspace", kspace, attributes=attributes)]
        mask = acquired_mask(kspace)
        if mask is not None:
            elements.append(mask)
        subject, session = identify(path.stem, _patient(xml))
        return RawVolume(
            subject=subject,
            session=session,
            acquisition=plain(header.sequence or "") or "ismrmrd",
            elements=tuple(elements),
            header=header,
            attributes={"ismrmrd_xml": deidentified_xml(xml)},
        )


def _refuse(wrong: bool, path: Path, what: str, expected: object, got: object) -> None:
    if wrong:
        fix = "This reader takes 2-D Cartesian scans of one contrast, phase, repetition and set."
        raise FormatError(expected_got(what, expected=expected, got=got, where=path, fix=fix))


def _sorted(used: list[Any], header: Any, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return k-space (slice, coil, ky, kx) and attributes of readouts."""
    for counter in ("kspace_encode_step_2", "contrast", "phase", "repetition", "set", "segment"):
        values = sorted({int(getattr(a.idx, counter)) for a in used})
        if counter != "segment":
            _refuse(len(values) > 1, path, f"counter {counter}", "one value", values)
    lengths = sorted({a.data.shape for a in used})
    _refuse(len(lengths) > 1, path, "readouts", "one shape (coils, samples)", lengths)
    coils, samples = lengths[0]
    _refuse(
        any(a.center_sample not in (0, samples // 2) for a in used), path, "echo", "symmetric", "an asymmetric echo"
    )
    encoded = header.encoded_matrix or (samples, 1 + max(a.idx.kspace_encode_step_1 for a in used), 1)
    rows = int(max(encoded[1], 1 + max(a.idx.kspace_encode_step_1 for a in used)))
    slices = 1 + max(int(a.idx.slice) for a in used)
    kspace = np.zeros((slices, coils, rows, samples), np.complex64)
    counts = np.zeros((slices, rows), np.int64)
    for a in used:
        if not np.isfinite(a.data).all():
            what = f"readout of slice {a.idx.slice}, line {a.idx.kspace_encode_step_1}"
            raise NonFiniteError(expected_got(what, expected="finite numbers", got="NaN or infinity", where=path))
        line = a.data[:, ::-1] if a.is_flag_set(ismrmrd.ACQ_IS_REVERSE) else a.data
        kspace[a.idx.slice, :, a.idx.kspace_encode_step_1] += line
        counts[a.idx.slice, a.idx.kspace_encode_step_1] += 1
    kspace /= np.maximum(counts, 1)[:, None, :, None]
    recon = header.recon_matrix[0] if header.recon_matrix else samples
    attributes: dict[str, Any] = {"averages": int(counts.max()), "oversampling_removed": 1.0}
    if recon < samples and header.recon_matrix and _oversampled(header, samples):
        kspace = _crop_readout(kspace, recon)
        attributes["oversampling_removed"] = samples / recon
    return kspace, attributes


def _oversampled(header: Any, samples: int) -> bool:
    """Whether the encoded field of view along the readout exceeds the reconstructed one."""
    if not (header.encoded_fov_m and header.recon_fov_m):
        return False
    return bool(header.encoded_fov_m[0] > 1.01 * header.recon_fov_m[0])


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


def _patient(xml: str) -> str | None:
    try:
        subject = ismrmrd.xsd.CreateFromDocument(xml).subjectInformation
    except Exception:  # the parser raises whatever its XML library does
        return None
    return getattr(subject, "patientID", None) or getattr(subject, "patientName", None)
