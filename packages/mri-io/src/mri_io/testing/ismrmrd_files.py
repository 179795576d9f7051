"""ISMRMRD files as scanners' converters write them, by the ismrmrd package itself, with a patient planted in them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
from ismrmrd import xsd
from ismrmrd.hdf5 import acquisition_dtype

from mri_io.testing.raw_files import NAME, PATIENT

__all__ = ["acquisition", "acquisitions_of", "append_images", "scan_header", "write_large_scan", "write_scan"]


def _space(matrix: Sequence[int], field_mm: Sequence[float]) -> Any:
    sizes = dict(zip("xyz", map(int, matrix), strict=True))
    lengths = dict(zip("xyz", map(float, field_mm), strict=True))
    return xsd.encodingSpaceType(matrixSize=xsd.matrixSizeType(**sizes), fieldOfView_mm=xsd.fieldOfViewMm(**lengths))


def _limit(maximum: int, centre: int) -> Any:
    return xsd.limitType(minimum=0, maximum=maximum, center=centre)


def scan_header(
    matrix: Sequence[int],
    *,
    recon: Sequence[int] | None = None,
    field_mm: Sequence[float] = (200, 200, 5),
    recon_field_mm: Sequence[float] | None = None,
    limits: dict[str, tuple[int, int]] | None = None,
    trajectory: str = "cartesian",
    calibration: str | None = None,
    encodings: int = 1,
    te_ms: Sequence[float] = (3.0,),
    vendor: str = "SIEMENS",
    field_T: float = 2.89,
    channels: int | None = None,
    sequence: str = "GRE",
    user: dict[str, int] | None = None,
    noise_bandwidth: float | None = None,
) -> str:
    """Return an ISMRMRD header that names a patient wherever the schema has a place for it.

    Parameters
    ----------
    matrix, recon
        Encoded and reconstructed matrix (x, y, z), by default the same.
    field_mm, recon_field_mm
        Their fields of view.
    limits
        Last value and centre of counters, by default those of all lines and partitions.
    """
    ends = {f"kspace_encoding_step_{i}": (matrix[i] - 1, matrix[i] // 2) for i in (1, 2)} | (limits or {})
    parallel = None
    if calibration is not None:
        parallel = xsd.parallelImagingType(
            accelerationFactor=xsd.accelerationFactorType(kspace_encoding_step_1=2, kspace_encoding_step_2=1),
            calibrationMode=xsd.calibrationModeType(calibration),
        )
    encoding = xsd.encodingType(
        encodedSpace=_space(matrix, field_mm),
        reconSpace=_space(recon or matrix, recon_field_mm or field_mm),
        encodingLimits=xsd.encodingLimitsType(**{name: _limit(*end) for name, end in ends.items()}),
        trajectory=xsd.trajectoryType(trajectory),
        parallelImaging=parallel,
    )
    header = xsd.ismrmrdHeader(
        subjectInformation=xsd.subjectInformationType(patientName=NAME, patientID=PATIENT),
        measurementInformation=xsd.measurementInformationType(
            measurementID=f"id {PATIENT}", patientPosition=xsd.patientPositionType("HFS"), protocolName=f"{NAME} knee"
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor=vendor,
            systemFieldStrength_T=field_T,
            relativeReceiverNoiseBandwidth=noise_bandwidth,
            receiverChannels=channels,
            institutionName="Planted Hospital",
        ),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123200000),
        encoding=[encoding] * encodings,
        sequenceParameters=xsd.sequenceParametersType(
            TR=[500.0], TE=list(te_ms), flipAngle_deg=[90.0], sequence_type=sequence
        ),
        userParameters=xsd.userParametersType(
            userParameterLong=[
                xsd.userParameterLongType(name=name, value=value) for name, value in (user or {}).items()
            ],
            userParameterString=[xsd.userParameterStringType(name="note", value=NAME)],
        ),
    )
    return str(xsd.ToXML(header))


def acquisition(
    data: np.ndarray,
    *,
    flags: Sequence[int] = (),
    trajectory: np.ndarray | None = None,
    counters: dict[str, int] | None = None,
    **head: Any,
) -> ismrmrd.Acquisition:
    """Return an acquisition of data (coil, sample), whose centre is in the middle unless `head` says otherwise."""
    made = ismrmrd.Acquisition.from_array(
        data, trajectory, **{"center_sample": data.shape[1] // 2, "sample_time_us": 5.0, **head}
    )
    for name, value in (counters or {}).items():
        setattr(made.idx, name, int(value))
    for flag in flags:
        made.set_flag(flag)
    return made


def acquisitions_of(
    kspace: np.ndarray, dims: Sequence[str], *, sampled: np.ndarray | None = None, seed: int = 0, **head: Any
) -> list[ismrmrd.Acquisition]:
    """Return the readouts of k-space in a random order.

    Parameters
    ----------
    kspace
        (..., coil, line, sample).
    dims
        The counters of the leading dimensions, ``kspace_encode_step_2`` for partitions.
    sampled
        Which lines are acquired, of the shape of the leading dimensions and the lines.
    """
    leading = kspace.shape[:-3]
    found = []
    for position in np.ndindex(*leading, kspace.shape[-2]):
        if sampled is not None and not sampled[position]:
            continue
        data = kspace[(*position[:-1], slice(None), position[-1])]
        counters = dict(zip((*dims, "kspace_encode_step_1"), position, strict=True))
        found.append(acquisition(np.ascontiguousarray(data), counters=counters, **head))
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))]


def write_scan(path: Path, acquisitions: Iterable[ismrmrd.Acquisition], xml: str, *, group: str = "dataset") -> Path:
    """Write a file with the ismrmrd package."""
    dataset = ismrmrd.Dataset(str(path), group, mode="a")
    try:
        dataset.write_xml_header(xml.encode())
        for made in acquisitions:
            dataset.append_acquisition(made)
    finally:
        dataset.close()
    return path


def append_images(
    path: Path, images: Iterable[ismrmrd.Image], *, group: str = "dataset", name: str = "image_0"
) -> Path:
    """Add images to a file."""
    dataset = ismrmrd.Dataset(str(path), group, mode="a")
    try:
        for image in images:
            dataset.append_image(name, image)
    finally:
        dataset.close()
    return path


def write_large_scan(path: Path, matrix: Sequence[int], coils: int, *, echoes: int = 1, seed: int = 0) -> Path:
    """Write a 3-D scan of matrix (x, y, z) in the file's own layout, line by line through all partitions.

    Data of line `y`, partition `z` and echo `e` are one readout of noise times ``1 + y + 1000 * z + 1000000 * e``.
    """
    rng, (nx, ny, nz) = np.random.default_rng(seed), matrix
    readout = rng.standard_normal(2 * coils * nx).astype(np.float32)
    xml = scan_header(matrix, field_mm=(200, 200, 200), te_ms=[3.0 + e for e in range(echoes)])
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=np.array([xml.encode()], dtype=object), dtype=h5py.special_dtype(vlen=bytes))
        count = echoes * ny * nz
        data = group.create_dataset("data", (count,), maxshape=(None,), chunks=(1,), dtype=acquisition_dtype)
        places = [(e, y, z) for e in range(echoes) for y in range(ny) for z in range(nz)]
        for start in range(0, count, nz):
            block = np.zeros(min(nz, count - start), acquisition_dtype)
            for row, (e, y, z) in zip(block, places[start : start + nz], strict=True):
                head = row["head"]
                head["version"], head["number_of_samples"], head["active_channels"] = 1, nx, coils
                head["center_sample"], head["sample_time_us"] = nx // 2, 5.0
                counters = {"kspace_encode_step_1": y, "kspace_encode_step_2": z, "contrast": e}
                for name, value in counters.items():
                    head["idx"][name] = value
                row["data"] = readout * np.float32(1 + y + 1000 * z + 1_000_000 * e)
                row["traj"] = np.zeros(0, np.float32)
            data[start : start + len(block)] = block
    return path
