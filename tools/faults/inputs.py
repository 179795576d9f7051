"""One small valid input of every binary format that is read, to be damaged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import scipy.io

from mri_io.formats import ReadOptions
from mri_io.testing import dicom_files, hdf5_files, image_files, ismrmrd_files, raw_files, twix_files

_TEXT = {".txt", ".json", ".xml", ".csv"}
_ARRAY = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
_AFFINE = np.diag([1.5, 2.0, 3.0, 1.0])


@dataclass(frozen=True)
class Input:
    """How to write it into a folder, and what conversion must be told."""

    write: Callable[[Path], object]
    options: ReadOptions = field(default_factory=ReadOptions)

    def is_binary(self, path: Path) -> bool:
        """Whether a file of it is to be damaged."""
        return path.suffix not in _TEXT


def _ismrmrd(folder: Path) -> None:
    kspace = raw_files.random_kspace((2, 2, 8, 16))
    noise = ismrmrd_files.acquisition(raw_files.random_kspace((2, 32)), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    lines = ismrmrd_files.acquisitions_of(kspace, ["slice"])
    ismrmrd_files.write_scan(folder / "a.h5", [noise, *lines], ismrmrd_files.scan_header((16, 8, 1)))


def _ismrmrd_images(folder: Path) -> None:
    planes = raw_files.random_kspace((2, 4, 8))
    images = [ismrmrd.Image.from_array(np.abs(plane), transpose=False) for plane in planes]
    for number, made in enumerate(images):
        made.slice, made.field_of_view, made.position = number, (40.0, 20.0, 5.0), (0.0, 0.0, 6.0 * number)
        made.read_dir, made.phase_dir, made.slice_dir = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    ismrmrd_files.write_scan(folder / "a.h5", [], ismrmrd_files.scan_header((8, 4, 1)))
    ismrmrd_files.append_images(folder / "a.h5", images)


def _ismrmrd_radial(folder: Path) -> None:
    angle = np.arange(6)[:, None] * np.pi / 6
    radius = np.linspace(-0.5, 0.5, 16, endpoint=False)
    shots = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).astype(np.float32)
    data = raw_files.random_kspace((6, 2, 16))
    lines = [
        ismrmrd_files.acquisition(d, trajectory=t, counters={"kspace_encode_step_1": n})
        for n, (d, t) in enumerate(zip(data, shots, strict=True))
    ]
    header = ismrmrd_files.scan_header((16, 16, 1), trajectory="radial", limits={"kspace_encoding_step_1": (5, 0)})
    ismrmrd_files.write_scan(folder / "a.h5", lines, header)


def _skm_tea(folder: Path) -> None:
    hdf5_files.write_skm_tea(folder, {"MTR_001": hdf5_files.skm_tea_scan((3, 12, 8), (10, 6), 2)})


def _mat73(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        data = raw_files.random_kspace((6, 8, 2))
        pair = np.empty(data.shape, [("real", "<f4"), ("imag", "<f4")])
        pair["real"], pair["imag"] = data.real, data.imag
        file["kspace"] = pair
        file["kspace"].attrs["MATLAB_class"] = np.bytes_("single")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def _twix(folder: Path, vd: bool) -> None:
    sizes = {"sKSpace.lBaseResolution": 16, "sKSpace.lPhaseEncodingLines": 8, "sKSpace.lPartitions": 1}
    scan = twix_files.TwixScan(twix_files.kspace_readouts(raw_files.random_kspace((2, 8, 32))), sizes)
    twix_files.write_twix(folder / "meas.dat", scan, vd=vd)


def _parrec(folder: Path) -> None:
    image_files.write_parrec(folder, image_files.nibabel_data("phantom_EPI_asc_CLEAR_2_1.PAR"))


def _series(folder: Path, **options: Any) -> None:
    array = np.arange(3 * 64 * 64, dtype=np.int16).reshape(3, 64, 64) % 999
    dicom_files.write_series(folder, array, _AFFINE, **options)


def _segmented(folder: Path) -> None:
    _series(folder)
    labels = np.zeros((3, 64, 64), np.uint8)
    labels[1, 20:40, 10:30] = 1
    dicom_files.write_seg(folder / "seg.dcm", labels, sorted(folder.glob("IM*.dcm")), {1: "lesion"})


_AXES = ReadOptions(axes=("coil", "ky", "kx"))

INPUTS: dict[str, Input] = {
    "fastMRI HDF5": Input(lambda f: raw_files.write_fastmri(f / "file1.h5", raw_files.random_kspace((2, 2, 8, 6)))),
    "Calgary-Campinas HDF5": Input(
        lambda f: hdf5_files.write_cc359(f / "a.h5", hdf5_files.coil_images((3, 12, 10), 2))
    ),
    "SKM-TEA HDF5 and NIfTI": Input(_skm_tea),
    "ISMRMRD HDF5": Input(_ismrmrd),
    "ISMRMRD HDF5, radial": Input(_ismrmrd_radial),
    "ISMRMRD HDF5, images": Input(_ismrmrd_images),
    "twix VD": Input(lambda f: _twix(f, True)),
    "twix VB": Input(lambda f: _twix(f, False)),
    "BART": Input(lambda f: raw_files.write_cfl(f / "a", raw_files.random_kspace((8, 6, 1, 2)))),
    "NumPy": Input(lambda f: np.save(f / "a.npy", raw_files.random_kspace((2, 8, 6))), _AXES),
    "MATLAB 5": Input(lambda f: scipy.io.savemat(f / "a.mat", {"kspace": raw_files.random_kspace((2, 8, 6))}), _AXES),
    "MATLAB 7.3": Input(lambda f: _mat73(f / "a.mat"), _AXES),
    "NIfTI": Input(lambda f: raw_files.write_nifti(f / "a.nii", _ARRAY)),
    "NIfTI compressed": Input(lambda f: raw_files.write_nifti(f / "a.nii.gz", _ARRAY)),
    "Analyze": Input(lambda f: image_files.write_analyze(f / "a", _ARRAY)),
    "NRRD": Input(lambda f: image_files.write_nrrd(f / "a.nrrd", _ARRAY, _AFFINE)),
    "MetaImage": Input(lambda f: image_files.write_metaimage(f / "a.mha", _ARRAY, _AFFINE, compress=True)),
    "PAR/REC": Input(_parrec),
    "PNG": Input(lambda f: raw_files.write_png_pairs(f)),
    "DICOM": Input(_series),
    "DICOM, RLE": Input(lambda f: _series(f, compress="1.2.840.10008.1.2.5")),
    "DICOM, JPEG 2000": Input(lambda f: _series(f, compress="1.2.840.10008.1.2.4.90")),
    "DICOM, JPEG-LS": Input(lambda f: _series(f, compress="1.2.840.10008.1.2.4.80")),
    "DICOM with SEG": Input(_segmented),
    "DICOM, enhanced": Input(
        lambda f: dicom_files.write_enhanced(f / "a.dcm", _ARRAY.transpose(2, 1, 0)[None, None].copy(), _AFFINE)
    ),
}
