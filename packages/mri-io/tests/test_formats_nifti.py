"""NIfTI: arrays transposed, affines unchanged to the last bit, compared with what nibabel reads."""

import gzip

import nibabel
import numpy as np
import pytest

from mri_io.errors import FormatError, NonFiniteError
from mri_io.export import export
from mri_io.formats import find_items, get_format
from mri_io.schema import Provenance
from mri_io.store import create_cohort
from mri_io.testing.raw_files import NAME, write_nifti


def rotation(a, b, c):
    ca, sa, cb, sb, cc, sc = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(c), np.sin(c)
    return (
        np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
        @ np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
        @ np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    )


def affine(matrix, offset):
    full = np.eye(4)
    full[:3, :3], full[:3, 3] = matrix, offset
    return full.astype(np.float32).astype(np.float64)  # NIfTI holds float32


AFFINES = {
    "axial": affine(np.diag([1.5, 1.5, 4]), (-90, -126, -72)),
    "flipped": affine(np.diag([-1.5, 1.5, 4]), (90, -126, -72)),
    "sagittal": affine(np.array([[0, 0, 4], [1, 0, 0], [0, -1, 0]]), (1, 2, 3)),
    "oblique": affine(rotation(0.3, -0.2, 0.7) @ np.diag([0.8, 1.1, 5]), (12.5, -30.25, 7)),
    "oblique and flipped": affine(rotation(2.1, 0.4, -1.2) @ np.diag([0.8, -1.1, 5]), (-1, 0.5, 100)),
    "sheared": affine(np.array([[1, 0.2, 0], [0, 1, 0.1], [0, 0, 2]]), (0, 0, 0)),
}


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip_through_the_store(tmp_path, name, suffix):
    array = np.random.default_rng(0).normal(size=(7, 6, 5)).astype(np.float32)
    path = write_nifti(tmp_path / f"sub-01_T1w{suffix}", array, AFFINES[name])
    (item,) = find_items([path])
    (element,) = get_format("nifti").read(item).elements
    stored = next(element.blocks())
    assert element.path == "image/t1w"
    np.testing.assert_array_equal(stored, array.transpose(2, 1, 0))
    np.testing.assert_array_equal(element.affine, nibabel.load(path).affine)
    with create_cohort(tmp_path / "c").create_volume("sub-01_acq-a_run-1", subject_id="sub-01") as volume:
        made = Provenance.of("mri-io", "test")
        volume.write(element.path, stored, provenance=made, dims=element.dims, affine=element.affine)
    (file,) = export(volume[element.path], tmp_path / "out", "nifti")
    image, original = nibabel.load(file), nibabel.load(path)
    np.testing.assert_array_equal(image.affine, original.affine)
    np.testing.assert_array_equal(image.get_fdata(), original.get_fdata())
    assert nibabel.aff2axcodes(image.affine) == nibabel.aff2axcodes(original.affine)
    assert image.header.get_zooms() == pytest.approx(original.header.get_zooms(), rel=1e-5)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("uint8", "int16"), ("int16", "int16"), ("int32", "int16"), ("float64", "float32")]
)
def test_dtypes(tmp_path, dtype, expected):
    (element,) = (
        get_format("nifti")
        .read(find_items([write_nifti(tmp_path / "a.nii.gz", np.ones((4, 3, 2), dtype))])[0])
        .elements
    )
    assert element.dtype == expected


def test_large_integers_and_scaled_ones_become_float(tmp_path):
    big = np.full((2, 2, 2), 40000, np.int32)
    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "b.nii")
    for path in (write_nifti(tmp_path / "a.nii", big), tmp_path / "b.nii"):
        (element,) = get_format("nifti").read(find_items([path])[0]).elements
        assert element.dtype == np.float32
        np.testing.assert_array_equal(next(element.blocks()).T, nibabel.load(path).get_fdata())


@pytest.mark.parametrize(
    ("name", "subject", "contrast"),
    [
        ("sub-07_ses-2_T2w.nii.gz", "sub-07", "t2w"),
        ("sub-07/anat/flair.nii", "sub-07", "flair"),
        (f"{NAME}_t1_crop.nii.gz", None, "t1"),
        (f"{NAME}.nii", None, "image"),
    ],
)
def test_identity_takes_no_names_of_persons(tmp_path, name, subject, contrast):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (item,) = find_items([write_nifti(path, np.ones((3, 3, 3), np.float32))])
    identity = get_format("nifti").identify(item)
    assert identity.acquisition == contrast
    assert subject in (None, identity.subject)
    assert "Doe" not in identity.subject + str(get_format("nifti").read(item))


def test_files_of_one_name_in_two_folders_are_two_subjects(tmp_path):
    found = set()
    for folder in ("001", "002"):
        (tmp_path / folder).mkdir()
        path = write_nifti(tmp_path / folder / "t2.nii.gz", np.ones((3, 3, 3), np.float32))
        found.add(get_format("nifti").identify(find_items([path])[0]).subject)
    assert len(found) == 2


def test_bad_files_are_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(30, 30, 30)))
    path.write_bytes(path.read_bytes()[:5000])
    time = write_nifti(tmp_path / "b.nii", np.zeros((3, 3, 3, 2), np.float32))
    nan = np.ones((3, 3, 3), np.float32)
    nan[1, 1, 1] = np.nan
    text = tmp_path / "d.nii.gz"
    text.write_bytes(gzip.compress(b"no image"))
    cases = [
        (path, FormatError, r"a\.nii\.gz: expected a readable NIfTI image.*truncated"),
        (time, FormatError, r"b\.nii: dimensions: expected \(x, y, z\), got \(3, 3, 3, 2\)"),
        (write_nifti(tmp_path / "c.nii", nan), NonFiniteError, r"c\.nii: values: expected finite, got 1 NaN"),
        (text, FormatError, r"d\.nii\.gz: expected a readable NIfTI image"),
    ]
    for file, error, message in cases:
        with pytest.raises(error, match=message):
            get_format("nifti").read(find_items([file])[0])
