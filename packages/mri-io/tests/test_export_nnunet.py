"""The nnU-Net raw data set against the requirements of nnU-Net's documentation and of its check of data sets."""

import json
import re
from collections import Counter

import nibabel
import numpy as np
import pytest

from mri_io import create_cohort, open_cohort
from mri_io.errors import ConfigError, ElementExistsError, ElementNotFoundError
from mri_io.export import export, export_cohort
from mri_io.export import nnunet as module
from mri_io.store import Split

sitk = pytest.importorskip("SimpleITK")

OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-0.9, 1.1, 3.0]), (10, -20, 30)
)
GRID = (3, 8, 6)
LABELS = {3: "peripheral zone", 7: {"name": "lesion", "code": "SCT 1"}, 200: "transition zone"}
IDS = ("sub-1", "sub-2", "sub-3", "sub-4", "sub-5")


def add_volume(cohort, made, subject, *, labels=LABELS, seg=None, grid=GRID, affine=OBLIQUE, rng=None, run=1):
    rng = rng or np.random.default_rng(int(subject[4:]))
    with cohort.create_volume(f"{subject}_acq-x_run-{run}", subject_id=subject) as volume:
        volume.write("image/t2", rng.integers(0, 900, grid).astype(np.int16), provenance=made, affine=affine)
        adc = rng.random(grid).astype(np.float32)
        adc[0, 0, 0] = np.nan
        volume.write("qmap/adc", adc, provenance=made, affine=affine, attributes={"unit": "mm2/s"})
        if labels is not None:
            ids = rng.choice([0, *labels], grid).astype(np.uint8) if seg is None else seg
            volume.write("seg/zones", ids, provenance=made, affine=affine, labels=labels)


@pytest.fixture
def cohort(tmp_path, made):
    cohort = create_cohort(tmp_path / "c", name="my prostates", license="CC0")
    for subject in IDS:
        add_volume(cohort, made, subject, labels=None if subject == "sub-5" else LABELS)
    add_volume(cohort, made, "sub-1", run=2)
    cohort.write_split(Split(name="default", train=("sub-1", "sub-2"), val=("sub-3",), test=("sub-4", "sub-5")))
    return cohort


def check_raw_data_set(folder):
    """Check what nnU-Net's documentation asks of a data set, and what its verify_dataset_integrity looks at."""
    assert re.fullmatch(r"Dataset\d{3}_\w+", folder.name)
    description = json.loads((folder / "dataset.json").read_text())
    assert {"channel_names", "labels", "numTraining", "file_ending"} <= description.keys()
    assert "overwrite_image_reader_writer" not in description
    ending, channels = description["file_ending"], description["channel_names"]
    assert list(channels) == [str(n) for n in range(len(channels))]
    assert description["labels"]["background"] == 0
    assert sorted(description["labels"].values()) == list(range(len(description["labels"])))
    for part in ("Tr", "Ts"):
        images, maps = ([f.name for f in (folder / f"{kind}{part}").glob("*")] for kind in ("images", "labels"))
        assert all(re.fullmatch(r".+_\d{4}\.nii\.gz", name) for name in images)
        cases = Counter(name[: -len(ending) - 5] for name in images)
        assert set(cases.values()) <= {len(channels)}
        assert {name[: -len(ending)] for name in maps} <= cases.keys()
        if part == "Tr":
            assert len(maps) == len(cases) == description["numTraining"]
        for case in cases:
            files = [folder / f"images{part}" / f"{case}_{n:04d}{ending}" for n in range(len(channels))]
            labels = folder / f"labels{part}" / f"{case}{ending}"
            read = [sitk.ReadImage(str(file)) for file in [*files, labels] if file.exists()]
            for image in read:
                assert image.GetSize() == read[0].GetSize()
                for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
                    np.testing.assert_allclose(getattr(image, geometry)(), getattr(read[0], geometry)(), atol=1e-4)
            assert not any(np.isnan(sitk.GetArrayFromImage(image)).any() for image in read[: len(channels)])
            if labels.exists():
                assert set(np.unique(sitk.GetArrayFromImage(read[-1]))) <= set(description["labels"].values())
    return description


def test_a_cohort_becomes_a_data_set(cohort, tmp_path):
    options = {"labels": ["seg/zones"], "channels": ["qmap/adc"], "split": "default"}
    (folder,) = export_cohort(cohort, "image/t2", tmp_path / "raw", "nnunet", progress=False, **options).files
    assert folder == tmp_path / "raw" / "Dataset500_myprostates"
    description = check_raw_data_set(folder)
    assert description["channel_names"] == {"0": "t2", "1": "adc"}
    assert description["labels"] == {"background": 0, "peripheral zone": 1, "lesion": 2, "transition zone": 3}
    assert description["mri"]["label_ids"] == {"1": 3, "2": 7, "3": 200}
    assert description["mri"]["split"] == {"name": "default", "hash": cohort.split().hash}
    assert (description["numTraining"], description["licence"]) == (4, "CC0")
    names = {path.name: sorted(file.name for file in path.iterdir()) for path in folder.iterdir() if path.is_dir()}
    cases = [f"{subject}_acq-x_run-{run}" for subject, run in (("sub-1", 1), ("sub-1", 2), ("sub-2", 1), ("sub-3", 1))]
    assert names["labelsTr"] == [f"{case}.nii.gz" for case in cases]
    assert names["imagesTr"] == [f"{case}_{channel:04d}.nii.gz" for case in cases for channel in (0, 1)]
    assert names["labelsTs"] == ["sub-4_acq-x_run-1.nii.gz"]
    assert len(names["imagesTs"]) == 4
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert fold == {"train": cases[:3], "val": cases[3:]}  # both runs of a subject in one part
    volume = cohort["sub-1_acq-x_run-2"]
    image = nibabel.load(folder / "imagesTr" / "sub-1_acq-x_run-2_0000.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, volume["image/t2"].numpy())
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    adc = np.asarray(nibabel.load(folder / "imagesTr" / "sub-1_acq-x_run-2_0001.nii.gz").dataobj).T
    np.testing.assert_array_equal(adc, np.nan_to_num(volume["qmap/adc"].numpy(), nan=0))
    labels = np.asarray(nibabel.load(folder / "labelsTr" / "sub-1_acq-x_run-2.nii.gz").dataobj).T
    for new, old in ((0, 0), (1, 3), (2, 7), (3, 200)):
        np.testing.assert_array_equal(labels == new, volume["seg/zones"].numpy() == old)


def test_without_a_split_all_are_training_cases(cohort, tmp_path):
    options = {"labels": ["seg/zones"], "dataset": "Dataset123_Zones", "volumes": cohort.volume_ids()[:3]}
    (folder,) = export_cohort(cohort, "image/t2", tmp_path, "nnunet", progress=False, **options).files
    assert check_raw_data_set(folder)["numTraining"] == 3
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.json", "imagesTr", "labelsTr"]


def test_subjects_of_no_part_are_left_out(cohort, tmp_path):
    cohort.write_split(Split(name="few", train=("sub-2",), val=("sub-3",)))
    options = {"labels": ["seg/zones"], "split": "few"}
    (folder,) = export_cohort(cohort, "image/t2", tmp_path, "nnunet", progress=False, **options).files
    assert check_raw_data_set(folder)["numTraining"] == 2
    assert len(list((folder / "imagesTr").iterdir())) == 2


def test_names_that_mean_something_to_nnunet(tmp_path, made):
    cohort = create_cohort(tmp_path / "c")
    labels = {1: "ignore", 2: "background", 4: "node", 9: "node"}
    add_volume(cohort, made, "sub-1", labels=labels)
    (folder,) = export_cohort(cohort, "image/t2", tmp_path, "nnunet", labels=["seg/zones"], progress=False).files
    description = check_raw_data_set(folder)
    assert description["labels"] == {"background": 0, "background 2": 1, "node 4": 2, "node 9": 3, "ignore": 4}
    assert description["mri"]["label_ids"] == {"1": 2, "2": 4, "3": 9, "4": 1}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({1: "a", 2: "a", 3: "a 1"}, {"a 1-1": 1, "a 2": 2, "a 1": 3}),
        (
            {1: "a", 2: "a 1", 3: "a 1", 4: "a", 5: "a 1 2"},
            {"a 1-1": 1, "a 1 2-1": 2, "a 1 3": 3, "a 4": 4, "a 1 2": 5},
        ),
        ({1: "background", 2: "background 1"}, {"background 1-1": 1, "background 1": 2}),
        ({1: "ignore", 2: "ignore"}, {"ignore 1": 1, "ignore 2": 2}),
    ],
)
def test_names_that_are_made_up_are_no_other_structure(tmp_path, made, labels, names):
    cohort = create_cohort(tmp_path / "c")
    add_volume(cohort, made, "sub-1", labels=labels)
    (folder,) = export_cohort(cohort, "image/t2", tmp_path, "nnunet", labels=["seg/zones"], progress=False).files
    description = check_raw_data_set(folder)
    assert description["labels"] == {"background": 0, **names}
    assert description["mri"]["label_ids"] == {str(number): number for number in labels}


REFUSED = {
    "no labels": ({}, ConfigError, r"--label: expected one label map, e\.g\. seg/tissue, got none"),
    "two labels": ({"labels": ["seg/a", "seg/b"]}, ConfigError, r"expected one label map.*got seg/a, seg/b"),
    "no label map": ({"labels": ["image/t2"]}, ConfigError, r"expected a label map seg/<name>, got image/t2"),
    "name": ({"dataset": "Prostate"}, ConfigError, r"dataset: expected DatasetNNN_Name"),
    "no channel": ({"channels": ["image/dwi"]}, ElementNotFoundError, r"there is no element 'image/dwi'"),
    "unlabelled": ({}, ElementNotFoundError, r"sub-5_acq-x_run-1\.zarr: a training case has no seg/zones"),
    "no such split": ({"split": "x"}, ElementNotFoundError, r"there is no split 'x'"),
    "option": (
        {"source": "x"},
        ConfigError,
        r"options of nnunet: expected channels, dataset, labels, part, split, got so",
    ),
    "levels": ({"levels": 0}, ConfigError, r"levels: Input should be greater than or equal to 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_before_anything_is_written(cohort, tmp_path, case):
    options, error, message = REFUSED[case]
    given = {"labels": [] if case == "no labels" else ["seg/zones"], **options}
    with pytest.raises(error, match=message):
        export_cohort(cohort, "image/t2", tmp_path / "out", "nnunet", progress=False, **given)
    assert not (tmp_path / "out").exists()


def test_volumes_that_do_not_fit_each_other_are_refused(tmp_path, made):
    shear = OBLIQUE @ np.array([[1, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    cases = {
        "name of label 3: expected 'peripheral zone', as in other volumes, got 'x'": {"labels": {3: "x"}},
        "axes: expected at right angles, got sheared": {"affine": shear},
    }
    for number, (message, options) in enumerate(cases.items()):
        cohort = create_cohort(tmp_path / f"c{number}")
        add_volume(cohort, made, "sub-1")
        add_volume(cohort, made, "sub-2", **options)
        with pytest.raises(ConfigError, match=message):
            export_cohort(cohort, "image/t2", tmp_path / "out", "nnunet", labels=["seg/zones"], progress=False)
    volume = cohort.volumes()[0]
    volume.write("image/dwi", np.ones((3, 4, 3), np.float32), provenance=made, affine=OBLIQUE)
    volume.write("image/moved", np.ones(GRID, np.float32), provenance=made, affine=OBLIQUE + np.eye(4, k=3))
    for path, message in (("image/dwi", r"got \(3, 4, 3\) of image/dwi"), ("image/moved", "with another affine")):
        options = {"labels": ["seg/zones"], "channels": [path], "volumes": [volume.id], "progress": False}
        with pytest.raises(ConfigError, match=rf"grid: expected .*{message}.*mri-cli resample COHORT {path} --to"):
            export_cohort(cohort, "image/t2", tmp_path / "out", "nnunet", **options)
    assert not (tmp_path / "out").exists()


def test_it_appears_whole_and_replaces_whole(cohort, tmp_path, monkeypatch):
    options = {"labels": ["seg/zones"], "volumes": cohort.volume_ids()[:2], "progress": False}
    (folder,) = export_cohort(cohort, "image/t2", tmp_path / "out", "nnunet", **options).files
    (folder / "imagesTr" / "old.nii.gz").touch()
    with pytest.raises(ElementExistsError, match=r"Dataset500_myprostates: exists already\. To over"):
        export_cohort(cohort, "image/t2", tmp_path / "out", "nnunet", **options)
    written = []

    def stop(file, *arguments):
        written.append(file)
        if len(written) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_nifti", stop)
        with pytest.raises(KeyboardInterrupt):
            export_cohort(cohort, "image/t2", tmp_path / "out", "nnunet", replace=True, **options)
    assert list((tmp_path / "out").iterdir()) == [folder]
    assert (folder / "imagesTr" / "old.nii.gz").exists()
    export_cohort(cohort, "image/t2", tmp_path / "out", "nnunet", replace=True, **options)
    assert list((tmp_path / "out").iterdir()) == [folder]
    assert not (folder / "imagesTr" / "old.nii.gz").exists()
    check_raw_data_set(folder)


def test_an_element_alone_is_no_data_set(cohort, tmp_path):
    with pytest.raises(ConfigError, match="nnunet writes a cohort as one data set, not an element: use export_cohort"):
        export(cohort.volumes()[0]["image/t2"], tmp_path, "nnunet", labels=("seg/zones",))
    assert open_cohort(cohort.path).volume_ids() == cohort.volume_ids()
