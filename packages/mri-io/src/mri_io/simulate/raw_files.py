"""Write simulated scans as files in the fastMRI layout, with label maps in NIfTI."""

import json
import os
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import nibabel
import numpy as np

from mri_io.errors import ConfigError, expected_got
from mri_io.simulate.fourier import ifft2c
from mri_io.store.commit import storage_errors, write_json_atomic

__all__ = ["SimulatedScan", "check_seed", "write_scans"]


@dataclass(frozen=True)
class SimulatedScan:
    """One simulated subject.

    kspace (slice, coil, ky, kx) complex64; labels (slice, y, x) uint8; affine voxel (x, y, slice) to RAS+ mm.
    """

    kspace: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    te_ms: float
    tr_ms: float
    flip_deg: float
    acquisition: str


def check_seed(seed: int) -> None:
    """Raise ConfigError unless numpy's generators take a seed."""
    if seed < 0:
        raise ConfigError(expected_got("seed", expected="a number from 0", got=seed))


def write_scans(
    out: str | Path,
    make: Callable[[int], SimulatedScan],
    parameters: Mapping[str, Any],
    *,
    subjects: int,
    label_set: str,
    label_names: Mapping[int, str],
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write ``sub-01.h5`` ... and ``labels/sub-01_<label_set>.nii.gz``; return the raw files.

    Files appear whole, by renaming. A subject whose file was made with the same parameters is skipped.
    """
    folder = Path(out)
    with storage_errors(folder):
        (folder / "labels").mkdir(parents=True, exist_ok=True)
    names = {label_set: {str(key): name for key, name in label_names.items()}}
    write_json_atomic(folder / "labels" / "labels.json", names)

    def write(number: int) -> Path:
        stem = f"sub-{number + 1:02d}"
        path, labels = folder / f"{stem}.h5", folder / "labels" / f"{stem}_{label_set}.nii.gz"
        recipe = json.dumps({**parameters, "subject": number}, sort_keys=True)
        if not (labels.is_file() and _made_with(path) == recipe):
            scan = make(number)
            with storage_errors(path):
                _write_labels(labels, scan)
                _write_raw(path, stem, scan, recipe)
        return path

    files = []
    # Interpolation and transforms run without the interpreter's lock. Each subject has a generator of its own.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            for path in pool.map(write, range(subjects)):
                files.append(path)
                if progress is not None:
                    progress(len(files), subjects)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return files


def _made_with(path: Path) -> str | None:
    try:
        with h5py.File(path) as file:
            return str(file.attrs.get("simulation", ""))
    except OSError:
        return None


def _write_labels(path: Path, scan: SimulatedScan) -> None:
    image = nibabel.Nifti1Image(scan.labels.T, scan.affine)
    image.header.set_xyzt_units("mm")
    temporary = path.with_name(f".{uuid.uuid4().hex}.nii.gz")
    try:
        nibabel.save(image, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_raw(path: Path, stem: str, scan: SimulatedScan, recipe: str) -> None:
    rss = np.sqrt(np.sum(np.abs(ifft2c(scan.kspace)) ** 2, axis=1)).astype(np.float32)
    temporary = path.with_name(f".{uuid.uuid4().hex}.h5")
    try:
        with h5py.File(temporary, "w") as file:
            file["kspace"] = scan.kspace
            file["reconstruction_rss"] = rss
            file["ismrmrd_header"] = _header(scan)
            file.attrs["max"] = float(rss.max())
            file.attrs["norm"] = float(np.linalg.norm(rss))
            file.attrs["acquisition"] = scan.acquisition
            file.attrs["patient_id"] = stem
            file.attrs["simulation"] = recipe
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _header(scan: SimulatedScan) -> str:
    """Return the ISMRMRD XML that a scanner's converter would have written: x along the rows, the readout."""
    slices, _, ny, nx = scan.kspace.shape
    steps = np.linalg.norm(scan.affine[:3, :3], axis=0)
    field_of_view = ismrmrd.xsd.fieldOfViewMm(x=float(steps[1] * ny), y=float(steps[0] * nx), z=float(steps[2]))
    space = ismrmrd.xsd.encodingSpaceType(
        matrixSize=ismrmrd.xsd.matrixSizeType(x=ny, y=nx, z=1), fieldOfView_mm=field_of_view
    )
    limits = ismrmrd.xsd.encodingLimitsType(
        kspace_encoding_step_1=ismrmrd.xsd.limitType(minimum=0, maximum=nx - 1, center=nx // 2),
        slice=ismrmrd.xsd.limitType(minimum=0, maximum=slices - 1, center=slices // 2),
    )
    encoding = ismrmrd.xsd.encodingType(
        encodedSpace=space,
        reconSpace=space,
        encodingLimits=limits,
        trajectory=ismrmrd.xsd.trajectoryType("cartesian"),
    )
    header = ismrmrd.xsd.ismrmrdHeader(
        experimentalConditions=ismrmrd.xsd.experimentalConditionsType(H1resonanceFrequency_Hz=127_732_000),
        acquisitionSystemInformation=ismrmrd.xsd.acquisitionSystemInformationType(
            systemVendor="simulated", systemFieldStrength_T=3.0, receiverChannels=scan.kspace.shape[1]
        ),
        encoding=[encoding],
        sequenceParameters=ismrmrd.xsd.sequenceParametersType(
            TR=[scan.tr_ms], TE=[scan.te_ms], flipAngle_deg=[scan.flip_deg], sequence_type=scan.acquisition
        ),
    )
    return str(ismrmrd.xsd.ToXML(header))
