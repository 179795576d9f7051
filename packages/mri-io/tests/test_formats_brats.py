"""BraTS: both ways of naming, label ids, patients and scans."""

import nibabel
import numpy as np

from mri_io.convert import convert
from mri_io.formats import find_items, get_format
from mri_io.testing.image_files import box, image, values, volumes
from mri_io.testing.image_sets import save, write_brats

CORE, OEDEMA, ENHANCING = "necrotic and non-enhancing tumour core", "oedema", "enhancing tumour"


def test_both_ways_of_naming(tmp_path):
    root = write_brats(tmp_path / "in")
    new, old = find_items([root])
    for item, suffixes, last in (
        (old, ("_t1", "_t1ce", "_t2", "_flair"), 4),
        (new, ("-t1n", "-t1c", "-t2w", "-t2f"), 3),
    ):
        case = item.options["case"]
        elements = {element.path: element for element in get_format("brats").read(item).elements}
        assert list(elements) == ["image/t1", "image/t1ce", "image/t2", "image/flair", "seg/tumour"]
        for path, suffix in zip(elements, suffixes, strict=False):
            original = nibabel.load(root / case / f"{case}{suffix}.nii.gz").get_fdata()
            np.testing.assert_array_equal(values(elements[path]), original.T)
        labels = elements["seg/tumour"].labels
        assert (labels[1], labels[2], labels[last]) == (CORE, OEDEMA, ENHANCING)
    assert not convert([root], tmp_path / "c", progress=False).failures
    assert len(volumes(tmp_path / "c")) == 2
    for file in (tmp_path / "c").rglob("*.json*"):
        assert "Training_001" not in file.read_text()


def test_scans_of_a_patient_are_sessions(tmp_path):
    root = write_brats(tmp_path / "in", ("BraTS-GLI-00002-000", "BraTS-GLI-00002-001", "BraTS-GLI-00003-000"))
    identities = [get_format("brats").identify(item) for item in find_items([root])]
    assert [identity.session for identity in identities] == ["000", "001", "000"]
    assert identities[0].subject == identities[1].subject != identities[2].subject


def test_ids_of_childrens_tumours_are_not_named(tmp_path):
    root = write_brats(tmp_path / "in", ("BraTS-PED-00002-000",))
    (item,) = find_items([root])
    assert get_format("brats").read(item).elements[-1].labels == {1: "label 1", 2: "label 2", 3: "label 3"}


def test_unknown_ids_missing_files_and_other_grids_are_failures(tmp_path):
    root = write_brats(tmp_path / "in", tuple(f"BraTS20_Training_00{n}" for n in (1, 2, 3)))
    save(root / "BraTS20_Training_001" / "BraTS20_Training_001_seg.nii.gz", box(ids=(1, 3)))
    (root / "BraTS20_Training_002" / "BraTS20_Training_002_t2.nii.gz").unlink()
    save(root / "BraTS20_Training_003" / "BraTS20_Training_003_seg.nii.gz", box(), np.eye(4))
    texts = "\n".join(failure.error for failure in convert([root], tmp_path / "c", progress=False).failures)
    assert "001_seg.nii.gz: label ids: expected 0 and 1, 2, 4, got 3." in texts
    assert "002: expected t1, t1ce, t2 and flair of the case, found no t2." in texts
    assert "label affine: expected" in texts
    assert not volumes(tmp_path / "c")


def test_cases_without_labels_and_folders_of_others(tmp_path):
    root = write_brats(tmp_path / "in", ("BraTS2021_00001",))
    (root / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz").unlink()
    (item,) = find_items([root])
    assert len(get_format("brats").read(item).elements) == 4
    for name in ("t1", "t2"):
        save(tmp_path / "sub-01" / f"sub-01_{name}.nii.gz", image())
    assert {item.format for item in find_items([tmp_path / "sub-01"])} == {"nifti"}
