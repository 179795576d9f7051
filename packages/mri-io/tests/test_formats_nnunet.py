"""nnU-Net and Decathlon data sets: channels, members of 4-D files, names of labels, parts."""

import json

import nibabel
import numpy as np
import pytest

from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.store import open_cohort
from mri_io.testing.image_files import AFFINES, box, image, values, volumes, write_metaimage, write_nrrd
from mri_io.testing.image_sets import save, write_decathlon, write_nnunet


def names(element):
    return {int(key): entry["name"] for key, entry in element.labels.items()}


def test_channels_become_images_of_one_volume(tmp_path):
    root = write_nnunet(tmp_path / "Dataset001_Prostate")
    items = find_items([root])
    assert [item.options["case"] for item in items] == ["p_001", "p_002", "p_003"]
    assert not convert([root], tmp_path / "c", progress=False).failures
    found = volumes(tmp_path / "c")
    assert sorted(tuple(volume.elements()) for volume in found) == [
        ("image/adc", "image/t2"),
        ("image/adc", "image/t2", "seg/labels"),
        ("image/adc", "image/t2", "seg/labels"),
    ]
    item = items[1]
    elements = {element.path: element for element in get_format("nnunet").read(item).elements}
    for path, file in (("image/t2", "p_002_0000"), ("image/adc", "p_002_0001")):
        original = nibabel.load(root / "imagesTr" / f"{file}.nii.gz")
        np.testing.assert_array_equal(values(elements[path]), original.get_fdata(dtype=np.float32).T)
        np.testing.assert_array_equal(elements[path].affine, original.affine)
    assert elements["seg/labels"].labels == {1: "PZ", 2: "TZ"}
    split = open_cohort(tmp_path / "c").split("nnunet")
    assert (len(split.train), len(split.val), len(split.test)) == (2, 0, 1)
    for file in (tmp_path / "c").rglob("*.json*"):
        assert "p_00" not in file.read_text()


def test_modalities_of_the_decathlon_are_members_of_a_file(tmp_path):
    root = write_decathlon(tmp_path / "Task01_BrainTumour")
    items = find_items([root])
    assert [item.options["case"] for item in items] == ["BRATS_001", "BRATS_002", "BRATS_003"]  # none of macOS's files
    elements = {element.path: element for element in get_format("nnunet").read(items[1]).elements}
    assert list(elements) == ["image/flair", "image/t1w", "image/t1gd", "image/t2w", "seg/labels"]
    full = nibabel.load(root / "imagesTr" / "BRATS_002.nii.gz").get_fdata(dtype=np.float32)
    for number, path in enumerate(list(elements)[:4]):
        assert elements[path].dims == ("slice", "y", "x")
        np.testing.assert_array_equal(values(elements[path]), full[..., number].T)
    assert elements["seg/labels"].labels == {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}
    assert not convert([root], tmp_path / "c", progress=False).failures


def test_one_modality_is_one_image(tmp_path):
    item = find_items([write_decathlon(tmp_path / "Task04", ["MRI"])])[0]
    assert [element.path for element in get_format("nnunet").read(item).elements] == ["image/mri", "seg/labels"]


def test_regions_are_stated(tmp_path):
    stated = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    root = write_nnunet(tmp_path / "a", labels=stated)
    assert not convert([root], tmp_path / "c", progress=False).failures
    seg = next(volume["seg/labels"] for volume in volumes(tmp_path / "c") if "seg/labels" in volume.elements())
    assert names(seg) == {1: "label 1", 2: "label 2", 3: "ignore"}
    assert seg.attributes["regions"] == {"whole": [1, 2], "core": [2]}


@pytest.mark.parametrize(("ending", "write"), [(".nrrd", write_nrrd), (".mha", write_metaimage)])
def test_other_image_formats(tmp_path, ending, write):
    root = tmp_path / "a"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    write(root / "imagesTr" / f"c_0000{ending}", image(), AFFINES["oblique"])
    write(root / "labelsTr" / f"c{ending}", box(), AFFINES["oblique"])
    stated = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ending}
    (root / "dataset.json").write_text(json.dumps(stated))
    assert not convert([root], tmp_path / "c", progress=False).failures
    (volume,) = volumes(tmp_path / "c")
    assert names(volume["seg/labels"]) == {1: "lesion"}
    np.testing.assert_array_equal(np.asarray(volume["seg/labels"][...]), box().T)


def test_what_is_wrong_with_a_case_is_its_failure_alone(tmp_path):
    root = write_nnunet(tmp_path / "a", cases=("p_1", "p_2", "p_3", "p_4", "p_5"))
    (root / "imagesTr" / "p_1_0001.nii.gz").unlink()
    (root / "labelsTr" / "p_2.nii.gz").unlink()
    save(root / "labelsTr" / "p_3.nii.gz", box(ids=(1, 7)))
    save(root / "labelsTr" / "p_4.nii.gz", box((7, 6, 4)))
    summary = convert([root], tmp_path / "c", progress=False)
    assert len(volumes(tmp_path / "c")) == 2
    text = "\n".join(failure.error for failure in summary.failures)
    for message in (
        r"imagesTr: channels of p_1: expected also p_1_0001, got p_1_0000.nii.gz",
        r"p_2.nii.gz: expected seg/labels of this case, found no file",
        r"p_3.nii.gz: label ids: expected 0 and 1, 2, got 7. Name every id of 'labels' in dataset.json",
        r"label grid: expected that of an image of the volume",
    ):
        assert message in text
    assert any("split 'nnunet' is not written" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "dataset.json: content: expected channel_names"),
        ('{"labels": {}}', "content: expected channel_names .* got KeyError: 'modality'"),
        ('{"modality": {"0": "T2"}, "labels": {"x": "y"}}', "content: expected channel_names"),
        ('{"modality": {"0": "T2"}, "labels": {}, "file_ending": ".png"}', "file_ending: expected .nii.gz.* got .png"),
        ("[]", "content: expected channel_names"),
    ],
)
def test_bad_descriptions_are_refused(tmp_path, content, message):
    root = write_nnunet(tmp_path / "a")
    (root / "dataset.json").write_text(content)
    (failure,) = convert([root], tmp_path / "c", progress=False).failures
    with pytest.raises(FormatError, match=message):
        raise FormatError(failure.error)
