"""Prostate158: contrasts on their own grids, readers, empty maps, the parts of the lists."""

import numpy as np

from mri_io.convert import convert
from mri_io.formats import find_items
from mri_io.store import open_cohort
from mri_io.testing.image_files import AFFINES, box, volumes
from mri_io.testing.image_sets import COARSE, save, write_prostate158


def test_studies_with_their_readers_and_parts(tmp_path):
    root = write_prostate158(tmp_path / "in")
    items = find_items([root])
    assert [item.options["case"] for item in items] == ["020", "021", "022", "001"]
    assert not convert([root], tmp_path / "c", progress=False).failures
    found = volumes(tmp_path / "c")
    assert len(found) == 4
    common = {
        "image/t2",
        "image/adc",
        "image/dwi",
        "seg/t2-anatomy-reader1",
        "seg/t2-tumor-reader1",
        "seg/adc-tumor-reader1",
    }
    assert sum(set(volume.elements()) == common for volume in found) == 3
    (test,) = [volume for volume in found if set(volume.elements()) == common | {"seg/t2-anatomy-reader2"}]
    for name, affine, array in (
        ("seg/t2-anatomy-reader1", AFFINES["oblique"], box(ids=(1, 2))),
        ("seg/adc-tumor-reader1", COARSE, box((4, 4, 3))),
    ):
        np.testing.assert_array_equal(np.asarray(test[name][...]), array.T)
        np.testing.assert_allclose(test[name].affine, affine, atol=1e-6)
    zones = [entry["name"] for entry in test["seg/t2-anatomy-reader1"].labels.values()]
    assert zones == ["transition zone (central gland)", "peripheral zone"]
    split = open_cohort(tmp_path / "c").split("prostate158")
    assert (len(split.train), len(split.val), len(split.test)) == (2, 1, 1)
    assert test.subject_id in split.test


def test_studies_without_a_tumour_get_empty_maps_on_each_grid(tmp_path):
    root = write_prostate158(tmp_path / "in")
    convert([root], tmp_path / "c", progress=False)
    (volume,) = [v for v in volumes(tmp_path / "c") if not np.asarray(v["seg/t2-tumor-reader1"][...]).any()]
    for contrast in ("t2", "adc"):
        seg, image = volume[f"seg/{contrast}-tumor-reader1"], volume[f"image/{contrast}"]
        assert seg.shape == image.shape
        np.testing.assert_array_equal(seg.affine, image.affine)


def test_an_empty_map_that_is_none_and_a_missing_image_are_failures(tmp_path):
    root = write_prostate158(tmp_path / "in")
    save(root / "train" / "021" / "empty.nii.gz", box())
    (root / "train" / "022" / "t2.nii.gz").unlink()
    texts = [failure.error for failure in convert([root], tmp_path / "c", progress=False).failures]
    assert any("empty.nii.gz: empty label map: expected zeros, got labels" in text for text in texts)
    assert any("expected t2.nii.gz, found no file" in text for text in texts)
    assert len(volumes(tmp_path / "c")) == 2


def test_lists_may_be_absent_but_not_damaged(tmp_path):
    root = write_prostate158(tmp_path / "in")
    (root / "valid.csv").write_text("name\n22\n")
    (failure,) = convert([root], tmp_path / "c", progress=False).failures
    assert "valid.csv: list of studies: expected a column ID of numbers, got name" in failure.error
    for file in root.glob("*.csv"):
        file.unlink()
    assert not convert([root], tmp_path / "c", progress=False, replace=True).failures
    split = open_cohort(tmp_path / "c").split("prostate158")
    assert (len(split.train), len(split.val), len(split.test)) == (3, 0, 1)


def test_a_part_alone(tmp_path):
    root = write_prostate158(tmp_path / "in")
    assert [item.options["case"] for item in find_items([root / "test"])] == ["001"]
