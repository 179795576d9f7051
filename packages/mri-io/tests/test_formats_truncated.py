"""Files of every format that end too early: an error names each, and the others are converted all the same."""

import re

import numpy as np
import pytest
import scipy.io
from PIL import Image

from mri_io import verify
from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import ReadOptions, find_items, get_format
from mri_io.formats.stanford_knees import StanfordKneesFormat
from mri_io.store import open_cohort
from mri_io.testing import truncate
from mri_io.testing.dicom_files import write_enhanced, write_series
from mri_io.testing.hdf5_files import skm_tea_scan, write_cc359, write_skm_tea
from mri_io.testing.image_files import (
    AFFINES,
    box,
    image,
    nibabel_data,
    values,
    write_analyze,
    write_metaimage,
    write_nrrd,
    write_parrec,
)
from mri_io.testing.image_sets import save, write_brats, write_nnunet
from mri_io.testing.ismrmrd_files import acquisitions_of, scan_header, write_scan
from mri_io.testing.raw_files import random_kspace, write_cfl, write_fastmri, write_nifti
from mri_io.testing.twix_files import TwixScan, kspace_readouts, write_twix

CASES = (1, 2, 3, 4)
CUTS = (0.1, 0.5, None)
"""Of the files of the first three cases: what is left of them, None for all but one byte. The fourth is whole."""
KSPACE = random_kspace((3, 4, 32, 24))
KSPACE[..., 16, 12] += 100  # the centre, as readers look for it


def each(write, name):
    """Return a writer of a file for each case."""
    return lambda folder: [write(folder / name.format(case), case) for case in CASES]


def write_ocmr(path, case):
    made = acquisitions_of(KSPACE[:2, None], ("phase", "slice"))
    return write_scan(path, made, scan_header((24, 32, 1), sequence="TrueFisp"))


def write_ahead_images(folder):
    for case in CASES:
        for echo in (1, 2, 3, 4):
            for number, kind in enumerate(("mag", "phase")):
                array = image((9, 8, 7), seed=number)
                array = 2 * np.pi * (array - array.min()) / np.ptp(array) - number * np.pi
                save(folder / f"sub-{case}_acq-mp2rageme_inv-2_echo-{echo}_part-{kind}.nii.gz", array)
    return [folder / f"sub-{case}_acq-mp2rageme_inv-2_echo-3_part-phase.nii.gz" for case in CASES]


def write_dicom(folder):
    array = image((3, 16, 15), np.int16)
    return [write_series(folder / f"s{case}", array, AFFINES["axial"], series=f"s{case}")[1] for case in CASES]


def write_enhanced_files(folder):
    array = image((1, 1, 3, 16, 15), np.int16)
    return [write_enhanced(folder / f"{c}.dcm", array, AFFINES["axial"], series=f"{c}") for c in CASES]


def write_brats_cases(folder):
    names = [f"BraTS20_Training_00{case}" for case in CASES]
    write_brats(folder, names)
    return [folder / name / f"{name}_flair.nii.gz" for name in names]


def write_isles_cases(folder):
    for case in CASES:
        stem = f"sub-strokecase{case:04d}_ses-0001"
        for root, array, kind in (("dwi", image(), "dwi"), ("dwi", image(), "adc"), ("", box(), "msk")):
            place = folder / stem[:18] / "ses-0001" / root if root else folder / "derivatives" / stem[:18] / "ses-0001"
            save(place / f"{stem}_{kind}.nii.gz", array)
    return [folder / f"sub-strokecase{c:04d}/ses-0001/dwi/sub-strokecase{c:04d}_ses-0001_adc.nii.gz" for c in CASES]


def write_prostates(folder):
    rows = []
    for case in CASES:
        for name, array in (("t2", image()), ("adc", image()), ("dwi", image()), ("t2_anatomy_reader1", box())):
            save(folder / "train" / f"{case:03d}" / f"{name}.nii.gz", array)
        rows.append(f"{case},train/{case:03d}/t2.nii.gz,,")
    header = "ID,t2,t2_tumor_reader1,adc_tumor_reader1"
    for name, lines in (("train", rows), ("valid", []), ("test", [])):
        (folder / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    return [folder / "train" / f"{case:03d}" / "adc.nii.gz" for case in CASES]


def write_nnunet_cases(folder):
    write_nnunet(folder, [f"p_00{case}" for case in CASES], ())
    return [folder / "labelsTr" / f"p_00{case}.nii.gz" for case in CASES]


def write_pairs(folder):
    for kind, array in (("images", image()), ("labels", box())):
        for case in CASES:
            save(folder / kind / f"case{case}.nii.gz", array)
    return [folder / "images" / f"case{case}.nii.gz" for case in CASES]


def write_pngs(folder):
    for kind, array in (("Images", image((20, 22), np.uint8)), ("Labels", 255 * (image((20, 22), np.uint8) > 50))):
        for case in CASES:
            file = folder / kind / f"SC-{case}-IM-0001.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(file)
    return [folder / "Images" / f"SC-{case}-IM-0001.png" for case in CASES]


def write_philips(folder):
    headers = []
    for case in CASES:
        (folder / f"p{case}").mkdir()
        patient = {"05aug14test": f"patient-{case}"}
        headers.append(write_parrec(folder / f"p{case}", nibabel_data("DTI.PAR"), replacements=patient))
    return [header.with_suffix(".REC") for header in headers]


def write_knees(folder):
    scan, names = skm_tea_scan((6, 24, 16), (18, 8)), [f"MTR_00{case}" for case in CASES]
    write_skm_tea(folder, dict.fromkeys(names, scan))
    return [folder / "files_recon_calib-24" / f"{name}.h5" for name in names]


def npy(path, case):
    np.save(path, KSPACE)
    return path


def mat(path, case):
    scipy.io.savemat(path, {"k": KSPACE})
    return path


def write_ahead(folder):
    for case in CASES:
        for echo in (1, 2, 3, 4):
            path = folder / f"mp2rageme_00{case}_inv2_te{echo}.h5"
            write_scan(path, acquisitions_of(KSPACE, ("kspace_encode_step_2",)), scan_header((24, 32, 3)))
    return [folder / f"mp2rageme_00{case}_inv2_te3.h5" for case in CASES]


def write_siemens(path, case):
    sizes = {"sKSpace.lBaseResolution": 12, "sKSpace.lPhaseEncodingLines": 32}
    return write_twix(path, TwixScan(kspace_readouts(KSPACE[0]), sizes), vd=False)  # VD ends with bytes of no meaning


WRITERS = {
    "fastmri": each(lambda path, _: write_fastmri(path, KSPACE), "sub-{}.h5"),
    "cc359": each(lambda path, _: write_cc359(path, KSPACE), "sub-{}.h5"),
    "skm-tea": write_knees,
    "ismrmrd": each(
        lambda path, _: write_scan(path, acquisitions_of(KSPACE, ("slice",)), scan_header((24, 32, 1))), "sub-{}.h5"
    ),
    "ocmr": each(write_ocmr, "fs_000{}_3T.h5"),
    "ahead": write_ahead,
    "ahead, images": write_ahead_images,
    "bart": each(lambda path, _: write_cfl(path, KSPACE.T), "sub-{}"),
    "twix": each(write_siemens, "sub-{}.dat"),
    "npy": each(npy, "sub-{}.npy"),
    "mat": each(mat, "sub-{}.mat"),
    "dicom": write_dicom,
    "enhanced dicom": write_enhanced_files,
    "nnunet": write_nnunet_cases,
    "prostate158": write_prostates,
    "brats": write_brats_cases,
    "isles": write_isles_cases,
    "nifti-pairs": write_pairs,
    "nifti": each(lambda path, _: write_nifti(path, image()), "sub-{}.nii"),
    "packed nifti": each(lambda path, _: write_nifti(path, image()), "sub-{}.nii.gz"),
    "analyze": each(lambda path, _: write_analyze(path, image()).with_suffix(".img"), "sub-{}"),
    "nrrd": each(lambda path, _: write_nrrd(path, image(), encoding="gzip"), "sub-{}.nrrd"),
    "metaimage": each(lambda path, _: write_metaimage(path, image()), "sub-{}.mha"),
    "parrec": write_philips,
    "png-pairs": write_pngs,
}


def cut(files):
    """Cut all files but the last, and return them."""
    for file, left in zip(files, CUTS, strict=False):
        truncate(file, -1 if left is None else int(left * file.stat().st_size))
    return files[: len(CUTS)]


@pytest.mark.parametrize("name", WRITERS)
def test_each_is_a_failure_of_its_own(tmp_path, name):
    (tmp_path / "in").mkdir()
    bad = cut(WRITERS[name](tmp_path / "in"))
    options = ReadOptions(axes=("slice", "coil", "ky", "kx")) if name in ("npy", "mat") else ReadOptions()
    summary = convert([tmp_path / "in"], tmp_path / "c", progress=False, options=options)
    texts = [failure.error for failure in summary.failures]
    for file in bad:
        assert any(str(file) in text or str(file.with_suffix("")) in text for text in texts), (file.name, texts)
    assert not [text for text in texts if re.match(r"\w*(Error|Exception)\b", text)]  # those of others
    cohort = open_cohort(tmp_path / "c")
    assert len(cohort.volume_ids()) == 1, cohort.volume_ids()
    report = verify(cohort)
    assert report.ok
    assert not report.orphans


def read(file):
    (item,) = find_items([file])
    return get_format(item.format).read(item)


def test_stanford_knees(tmp_path, monkeypatch):
    matrix = (10, 8, 6)
    monkeypatch.setattr(StanfordKneesFormat, "matrix", matrix)  # here, not in the process that reads HDF5 files
    header = scan_header(matrix, vendor="GE MEDICAL SYSTEMS", channels=8)
    made = acquisitions_of(random_kspace((6, 8, 8, 10)), ("kspace_encode_step_2",))
    files = [write_scan(tmp_path / f"{case}.h5", made, header) for case in CASES]
    for file in cut(files):
        with pytest.raises(FormatError, match=re.escape(str(file))):
            read(file)
    (item,) = find_items([files[-1]])
    assert item.format == "stanford-knees"
    assert values(get_format(item.format).read(item).elements[0]).size
