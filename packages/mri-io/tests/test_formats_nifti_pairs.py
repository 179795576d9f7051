"""Folders of images and of label maps: which names belong together."""

import numpy as np
import pytest

from mri_io.convert import convert
from mri_io.formats import find_items, get_format
from mri_io.store import open_cohort
from mri_io.testing.image_files import AFFINES, box, image, values, volumes, write_metaimage
from mri_io.testing.image_sets import save


@pytest.mark.parametrize(
    ("images", "labels", "image_name", "label_name"),
    [
        ("images", "labels", "case1", "case1"),
        ("Images", "Masks", "case1", "case1_mask"),
        ("img", "seg", "img_001", "seg_001"),
        ("image", "label", "image001", "label001"),
        ("imagesTr", "labelsTr", "case1_0000", "case1"),
        ("volumes", "segmentations", "volume-7", "segmentation-7"),
        ("images", "lesions", "sub-01_T1w", "sub-01_T1w_label-lesion_mask"),
    ],
)
def test_names_that_belong_together(tmp_path, images, labels, image_name, label_name):
    save(tmp_path / "in" / images / f"{image_name}.nii.gz", image())
    save(tmp_path / "in" / labels / f"{label_name}.nii.gz", box())
    (item,) = find_items([tmp_path / "in"])
    assert item.format == "nifti-pairs"
    made, label = get_format(item.format).read(item).elements
    np.testing.assert_array_equal(values(made), image().T)
    np.testing.assert_array_equal(values(label), box().T)
    assert (label.path, label.labels) == ("seg/labels", {1: "label 1"})


def test_channels_without_a_description(tmp_path):
    for channel in range(2):
        save(tmp_path / "imagesTr" / f"c1_{channel:04d}.nii.gz", image(seed=channel))
    save(tmp_path / "labelsTr" / "c1.nii.gz", box())
    (item,) = find_items([tmp_path])
    paths = [element.path for element in get_format(item.format).read(item).elements]
    assert paths == ["image/channel-0", "image/channel-1", "seg/labels"]


def test_names_ending_in_numbers_are_not_channels(tmp_path):
    for name in ("scan_0001", "scan_0002"):
        save(tmp_path / "images" / f"{name}.nii.gz", image())
        save(tmp_path / "labels" / f"{name}.nii.gz", box())
    assert [item.options["case"] for item in find_items([tmp_path])] == ["scan_0001", "scan_0002"]


def test_parts_names_and_what_has_no_partner(tmp_path):
    root = tmp_path / "in"
    for folder, case in (("Tr", "a_t2"), ("Tr", "b_t2"), ("Ts", "c_t2")):
        save(root / f"images{folder}" / f"{case}.nii.gz", image())
    save(root / "labelsTr" / "a_t2.nii.gz", box())
    save(root / "labelsTs" / "c_t2.nii.gz", box())
    (root / "labels.json").write_text('{"labels": {"1": "lesion"}}')
    assert not convert([root], tmp_path / "c", progress=False).failures
    found = volumes(tmp_path / "c")
    assert all("_acq-t2_" in volume.id for volume in found)
    assert sorted(len(volume.elements()) for volume in found) == [1, 2, 2]  # b is not labelled
    split = open_cohort(tmp_path / "c").split("nifti-pairs")
    assert (len(split.train), len(split.test)) == (2, 1)
    named = [volume["seg/labels"].labels for volume in found if "seg/labels" in volume.elements()]
    assert [entry["name"] for labels in named for entry in labels.values()] == ["lesion"] * 2
    save(root / "labelsTr" / "d_t2.nii.gz", box())
    (failure,) = convert([root], tmp_path / "c2", progress=False).failures
    assert "d_t2.nii.gz: expected an image of this name in" in failure.error


def test_other_image_formats(tmp_path):
    for folder, array in (("images", image()), ("masks", box())):
        (tmp_path / folder).mkdir()
        write_metaimage(tmp_path / folder / "a.mha", array, AFFINES["oblique"])
    (item,) = find_items([tmp_path])
    assert item.format == "nifti-pairs"
    np.testing.assert_array_equal(values(get_format(item.format).read(item).elements[1]), box().T)


def test_each_folder_of_label_maps_is_an_element(tmp_path):
    root = tmp_path / "in"
    for case in ("a_t2", "b_t2"):
        save(root / "imagesTr" / f"{case}.nii.gz", image())
    save(root / "labelsTr" / "a_t2.nii.gz", box())
    save(root / "Masks_train" / "a_t2.nii.gz", 2 * box())
    save(root / "Masks_train" / "b_t2.nii.gz", 3 * box())
    (root / "labels.json").write_text('{"labels": {"1": "gland"}, "masks": {"2": "left", "3": "right"}}')
    assert not convert([root], tmp_path / "c", progress=False).failures
    both, one = sorted(volumes(tmp_path / "c"), key=lambda volume: -len(volume.elements()))
    assert set(both.elements()) == {"image/t2", "seg/labels", "seg/masks"}
    assert set(one.elements()) == {"image/t2", "seg/masks"}
    for volume, path, factor, name in ((both, "labels", 1, "gland"), (both, "masks", 2, "left"), (one, "masks", 3, "")):
        np.testing.assert_array_equal(np.asarray(volume[f"seg/{path}"][...]), factor * box().T)
        assert name in volume[f"seg/{path}"].labels[factor]["name"]
    save(root / "Masks_train" / "c_t2.nii.gz", box())
    save(root / "masksTr" / "a_t2.nii.gz", box())
    found = [sorted(item.options["labels"]) for item in find_items([root])]
    assert found == [["Masks_train", "labels", "masksTr"], ["Masks_train"], ["Masks_train"]]
    (problem,) = (item.problem for item in find_items([root]) if item.problem)
    assert "c_t2.nii.gz: expected an image of this name in" in problem


def test_folders_that_share_no_name_are_none(tmp_path):
    save(tmp_path / "images" / "a.nii.gz", image())
    save(tmp_path / "masks" / "b.nii.gz", box())
    assert {item.format for item in find_items([tmp_path])} == {"nifti"}
