"""ISLES 2022: BIDS folders, FLAIR on its own grid, masks among the derivatives."""

import nibabel
import numpy as np
import pytest

from mri_io.convert import convert
from mri_io.formats import find_items
from mri_io.testing.image_files import box, volumes
from mri_io.testing.image_sets import save, write_isles


@pytest.mark.parametrize("rawdata", [False, True])
def test_subjects_with_their_lesions(tmp_path, rawdata):
    root = write_isles(tmp_path / "ISLES-2022", rawdata=rawdata)
    assert not convert([root], tmp_path / "c", progress=False).failures
    first, second = volumes(tmp_path / "c")
    assert first.id == "sub-strokecase0001_ses-0001_acq-isles_run-1"
    assert set(second.elements()) == {"image/dwi", "image/adc", "seg/dwi-lesion"}
    assert set(first.elements()) == {*second.elements(), "image/flair"}
    for name, kind in (("image/dwi", "dwi/*_dwi"), ("image/adc", "dwi/*_adc"), ("image/flair", "anat/*_FLAIR")):
        (file,) = root.rglob(f"sub-strokecase0001/ses-0001/{kind}.nii.gz")
        original = nibabel.load(file)
        np.testing.assert_array_equal(np.asarray(first[name][...]), original.get_fdata(dtype=np.float32).T)
        np.testing.assert_array_equal(first[name].affine, original.affine)
    np.testing.assert_array_equal(np.asarray(first["seg/dwi-lesion"][...]), box((4, 4, 3)).T)
    assert [entry["name"] for entry in first["seg/dwi-lesion"].labels.values()] == ["stroke lesion"]
    assert first.header.recon_matrix is None  # of two grids
    assert second.header.recon_matrix == (4, 4, 3)


def test_one_subject_finds_its_mask(tmp_path):
    root = write_isles(tmp_path / "in")
    (item,) = find_items([root / "sub-strokecase0002"])
    assert [part.element for part in item.options["parts"]] == ["image/dwi", "image/adc", "seg/dwi-lesion"]


def test_a_mask_on_another_grid_and_missing_dwi_are_failures(tmp_path):
    root = write_isles(tmp_path / "in")
    save(next((root / "derivatives").rglob("*0001_ses-0001_msk.nii.gz")), box((4, 4, 4)))
    next(root.rglob("*0002_ses-0001_dwi.nii.gz")).unlink()
    texts = "\n".join(failure.error for failure in convert([root], tmp_path / "c", progress=False).failures)
    assert "label grid: expected that of an image of the volume" in texts
    assert "expected a file ..._dwi of this session, found none" in texts
