"""Raw files written as their makers do, with h5py, numpy, nibabel and ismrmrd directly, a patient planted in them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import nibabel
import numpy as np
from PIL import Image

__all__ = [
    "NAME",
    "PATIENT",
    "random_kspace",
    "write_cfl",
    "write_fastmri",
    "write_ismrmrd",
    "write_nifti",
    "write_png_pairs",
    "xml_header",
]

PATIENT = "ZZPATIENT-4711"
NAME = "Doe^Plantedname"

XML = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <subjectInformation><patientName>{name}</patientName><patientID>{patient}</patientID>
    <patientBirthdate>1950-02-03</patientBirthdate></subjectInformation>
  <studyInformation><studyDate>2011-11-11</studyDate><studyDescription>of {name}</studyDescription></studyInformation>
  <measurementInformation><measurementID>id {patient}</measurementID><patientPosition>HFS</patientPosition>
    <protocolName>{name} knee</protocolName></measurementInformation>
  <acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor>
    <systemFieldStrength_T>2.8936</systemFieldStrength_T><institutionName>Planted Hospital</institutionName>
  </acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>123200000</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace><matrixSize><x>{nx}</x><y>{ny}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{fov}</x><y>220</y><z>7.5</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>{rx}</x><y>{ny}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>220</x><y>220</y><z>5</z></fieldOfView_mm></reconSpace>
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum>
      <center>{centre}</center></kspace_encoding_step_1></encodingLimits>
    <trajectory>{trajectory}</trajectory>
  </encoding>
  <sequenceParameters><TR>500</TR><TE>10</TE><TE>20</TE><flipAngle_deg>90</flipAngle_deg>
    <sequence_type>AXT2</sequence_type></sequenceParameters>
  <userParameters><userParameterString><name>note</name><value>{name}</value></userParameterString></userParameters>
</ismrmrdHeader>
"""


def xml_header(
    nx: int, ny: int, *, rx: int | None = None, last: int | None = None, centre: int | None = None, **more: Any
) -> str:
    """Return an ISMRMRD header of an `nx` by `ny` scan that names a patient everywhere a scanner may.

    `rx` is the reconstructed matrix along the readout, `last` and `centre` the limits of the phase-encoding lines.
    """
    rx = nx if rx is None else rx
    values: dict[str, Any] = {"last": ny - 1 if last is None else last, "centre": ny // 2 if centre is None else centre}
    values |= {"name": NAME, "patient": PATIENT, "fov": 220 * nx / rx, "trajectory": "cartesian", **more}
    return XML.format(nx=nx, ny=ny, rx=rx, **values)


def random_kspace(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return complex64 white noise."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def write_fastmri(
    path: Path,
    kspace: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    rss: np.ndarray | None = None,
    patient: str = "",
    acquisition: str = "AXT2",
    xml: str | None = None,
) -> Path:
    """Write a file as the fastMRI data set has them."""
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file["ismrmrd_header"] = xml or xml_header(kspace.shape[-2], kspace.shape[-1])
        if mask is not None:
            file["mask"] = mask
        if rss is not None:
            file["reconstruction_rss"] = rss
        file.attrs.update({"acquisition": acquisition, "patient_id": patient, "max": 1.0, "norm": 2.0})
    return path


def write_cfl(stem: Path, array: np.ndarray) -> Path:
    """Write a BART pair, by the format's definition; return the cfl file."""
    dims = [*array.shape, *[1] * (16 - array.ndim)]
    stem.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + " \n")
    np.asarray(array, "<c8").ravel(order="F").tofile(stem.with_suffix(".cfl"))
    return stem.with_suffix(".cfl")


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an (x, y, z) array, by default with voxels of 2 x 2 x 3 mm, with a name in the free text."""
    image = nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    image.header["descrip"] = NAME.encode()
    nibabel.save(image, path)
    return path


def write_png_pairs(
    folder: Path,
    patients: Sequence[str] = ("SC-PLANTED-1", "SC-PLANTED-2"),
    *,
    frames: int = 3,
    size: tuple[int, int] = (10, 12),
    seed: int = 0,
) -> Path:
    """Write a folder in the layout of the cardiac cine data; masks are a rectangle, 0 and 255."""
    rng = np.random.default_rng(seed)
    for patient in patients:
        for number in range(frames):
            mask = np.zeros(size, np.uint8)
            mask[2:6, 3 : 5 + number] = 255
            for kind, plane in (("Images", rng.integers(0, 256, size).astype(np.uint8)), ("Labels", mask)):
                file = folder / kind / "Part1" / f"{patient}-IM-0001-{number:04d}.dcm.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(plane).save(file)
    return folder


def write_ismrmrd(
    path: Path,
    readouts: Iterable[tuple[np.ndarray, Mapping[str, int], Sequence[int]]],
    xml: str,
    *,
    group: str = "dataset",
) -> Path:
    """Write acquisitions; `readouts` are (data (coil, sample), {counter: value}, flags)."""
    dataset = ismrmrd.Dataset(str(path), group, mode="a")
    try:
        dataset.write_xml_header(xml.encode())
        for data, counters, flags in readouts:
            acquisition = ismrmrd.Acquisition.from_array(data)
            acquisition.center_sample = data.shape[1] // 2
            for name, value in counters.items():
                setattr(acquisition.idx, name, value)
            for flag in flags:
                acquisition.set_flag(flag)
            dataset.append_acquisition(acquisition)
    finally:
        dataset.close()
    return path
