"""Files under names of other formats: the content counts, and what cannot be read is refused for what it is."""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
from PIL import Image

from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import ReadOptions, find_items, get_format
from mri_io.formats.images.single import open_image
from mri_io.testing.dicom_files import write_series
from mri_io.testing.hdf5_files import write_cc359
from mri_io.testing.image_files import (
    AFFINES,
    image,
    nibabel_data,
    values,
    write_analyze,
    write_metaimage,
    write_nrrd,
    write_parrec,
)
from mri_io.testing.ismrmrd_files import acquisitions_of, scan_header, write_scan
from mri_io.testing.raw_files import random_kspace, write_cfl, write_fastmri
from mri_io.testing.twix_files import TwixScan, kspace_readouts, write_twix

KSPACE = random_kspace((3, 2, 8, 6))
ENDINGS = (
    *(".nii", ".nii.gz", ".hdr", ".img", ".nrrd", ".nhdr", ".mha", ".mhd", ".raw", ".par", ".PAR", ".REC"),
    *(".cfl", ".dcm", ".dat", ".npy", ".mat", ".h5", ".png", ".txt", ""),
)


def nifti(path, kind=nibabel.Nifti1Image):
    nibabel.save(kind(image(dtype=np.int16), AFFINES["oblique"]), path)
    return path


def dicom(path):
    return write_series(path.parent, image((1, 6, 7), np.int16), AFFINES["axial"])[0]


def npy(path):
    np.save(path, KSPACE)
    return path


def mat5(path):
    scipy.io.savemat(path, {"k": KSPACE})
    return path


def mat7(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["k"] = KSPACE.T.view([("real", "<f4"), ("imag", "<f4")])  # as MATLAB has complex numbers
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return path


def ismrmrd(path):
    return write_scan(path, acquisitions_of(KSPACE[0], ()), scan_header((6, 8, 1)))


def png(path):
    Image.fromarray(image((8, 9), np.uint8)).save(path)
    return path


def twix(path):
    sizes = {"sKSpace.lBaseResolution": 3, "sKSpace.lPhaseEncodingLines": 8}
    return write_twix(path, TwixScan(kspace_readouts(KSPACE[0]), sizes))


READ = {
    "NIfTI-1": (".nii", nifti),
    "NIfTI-2": (".nii", lambda path: nifti(path, nibabel.Nifti2Image)),
    "packed NIfTI": (".nii.gz", nifti),
    "NRRD": (".nrrd", lambda path: write_nrrd(path, image(), AFFINES["oblique"])),
    "MetaImage": (".mha", lambda path: write_metaimage(path, image(), AFFINES["oblique"])),
    "DICOM": (".dcm", dicom),
    "twix": (".dat", twix),
    "npy": (".npy", npy),
    "MATLAB 5": (".mat", mat5),
    "MATLAB 7.3": (".mat", mat7),
    "fastMRI": (".h5", lambda path: write_fastmri(path, KSPACE)),
    "CC359": (".h5", lambda path: write_cc359(path, KSPACE)),
    "ISMRMRD": (".h5", ismrmrd),
}
"""Whole in one file: how it is named, and what writes it."""


@dataclass(frozen=True)
class Refused:
    """A content that cannot be read from the file alone: its proper ending, what it is called, and what to do."""

    ending: str
    write: object
    found: str
    fix: str


REFUSED = {
    "header of a NIfTI pair": Refused(
        ".hdr",
        lambda path: nifti(path.with_suffix(".img"), nibabel.Nifti1Pair).with_suffix(".hdr"),
        "the header of a pair",
        "Name the two .hdr and .img",
    ),
    "header of Analyze": Refused(
        ".hdr",
        lambda path: write_analyze(path.with_suffix(""), image()),
        "the header of an Analyze image",
        "name the two .hdr and .img",
    ),
    "header of BART": Refused(
        ".hdr",
        lambda path: write_cfl(path.with_suffix(""), KSPACE).with_suffix(".hdr"),
        "the header of BART data",
        "name the two .hdr and .cfl",
    ),
    "PAR": Refused(
        ".PAR",
        lambda path: write_parrec(path.parent, nibabel_data("DTI.PAR")),
        "the header of a Philips image",
        "name the two .PAR and .REC",
    ),
    "data of BART": Refused(
        ".cfl", lambda path: write_cfl(path.with_suffix(""), KSPACE), "no known format, 2304 bytes", "truncated"
    ),
    "PNG": Refused(".png", png, "PNG", "read from folders of images and masks"),
}


def read(path: Path) -> list[tuple[str, np.ndarray]]:
    """Return the elements of the one volume of a file, or raise as the reader does."""
    (item,) = find_items([path])
    if item.problem:
        raise FormatError(item.problem)
    if item.format == "arrays":
        item = replace(item, choices=ReadOptions(axes=("slice", "coil", "ky", "kx")))
    raw = get_format(item.format).read(item)
    return [(element.path.partition("/")[0], values(element)) for element in raw.elements]


@pytest.mark.parametrize("name", READ)
def test_the_content_counts(tmp_path, name):
    ending, write = READ[name]
    expected = read(write(tmp_path / f"a{ending}"))
    original = next(path for path in tmp_path.iterdir())
    for ending in ENDINGS:
        path = tmp_path / "named" / f"b{ending}"
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(original, path)
        got = read(path)
        assert [kind for kind, _ in got] == [kind for kind, _ in expected], ending
        for (_, mine), (_, theirs) in zip(got, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=ending)
        path.unlink()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_for_what_it_is(tmp_path, name):
    content = REFUSED[name]
    (tmp_path / "made").mkdir()
    original = content.write(tmp_path / "made" / f"a{content.ending}")
    for ending in ENDINGS:
        path = tmp_path / "named" / f"b{ending}"
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(original, path)
        with pytest.raises(FormatError) as caught:
            read(path)
        text = str(caught.value)
        beside = re.search(r"b\.(?:\w+): expected beside b\.\w+, found no file", text)  # named as the half it may be
        assert beside or (str(path) in text and content.found in text and content.fix in text), (ending, text)
        assert not beside or ending.lower() in (content.ending.lower(), ".cfl"), (ending, text)
        path.unlink()


def test_label_maps_under_another_name(tmp_path):
    for name in ("NIfTI-1", "NRRD", "MetaImage"):
        path = READ[name][1](tmp_path / f"a{READ[name][0]}").rename(tmp_path / "a_seg.mgz")
        np.testing.assert_array_equal(np.concatenate(list(open_image(path).blocks())).shape, (5, 6, 7))
    (tmp_path / "b.nii").write_text("notes")
    with pytest.raises(FormatError, match=r"b\.nii: expected a readable NIfTI image, got: text\."):
        open_image(tmp_path / "b.nii")
    (tmp_path / "b.txt").write_text("notes")
    with pytest.raises(FormatError, match=r"b\.txt: content: expected an image file .*, got none of them: text\."):
        open_image(tmp_path / "b.txt")


def test_a_folder_of_wrong_names_is_converted_beside_what_is_refused(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(("NIfTI-1", "packed NIfTI", "NRRD", "MetaImage", "fastMRI")):
        made = READ[name][1](tmp_path / f"a{READ[name][0]}")
        made.rename(folder / f"sub-{number:02d}_t1.nii")
    png(tmp_path / "a.png").rename(folder / "sub-99_t1.nii")
    summary = convert([folder], tmp_path / "c", progress=False)
    assert summary.count("done") == 5
    (failure,) = summary.failures
    assert "sub-99_t1.nii: expected a readable NIfTI image, got: PNG. " in failure.error
