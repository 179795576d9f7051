"""Splits that data sets bring with them: written when all volumes are in, by subject, and never over another."""

import numpy as np
import pytest

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.formats.nifti import NiftiFormat
from mri_io.store import Split
from mri_io.testing.raw_files import write_nifti

PLACES = {"train": ("sub-01", "sub-02"), "val": ("sub-03",), "test": ("sub-04",)}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """NIfTI images in a folder for each part, which the reader takes for a split of the data set."""
    for part, subjects in PLACES.items():
        (tmp_path / "data" / part).mkdir(parents=True)
        for subject in subjects:
            write_nifti(tmp_path / "data" / part / f"{subject}_T1w.nii.gz", np.ones((4, 4, 4), np.int16))
    monkeypatch.setattr(NiftiFormat, "split_of", lambda self, item: {"published": item.path.parent.name})
    return tmp_path / "data"


def test_the_split_of_a_data_set_arrives(tmp_path, data):
    summary = convert([data], tmp_path / "c", progress=False)
    assert (summary.ok, summary.notes) == (True, [])
    split = open_cohort(tmp_path / "c").split("published")
    assert {part: split.subjects(part) for part in PLACES} == PLACES
    path = tmp_path / "c" / "splits" / "published.json"
    before = path.stat().st_mtime_ns
    assert convert([data], tmp_path / "c", progress=False).notes == []
    assert path.stat().st_mtime_ns == before


def test_formats_without_one_write_none(tmp_path):
    file = write_nifti(tmp_path / "sub-01_T1w.nii.gz", np.ones((4, 4, 4), np.int16))
    assert convert([file], tmp_path / "c", progress=False).ok
    assert list((tmp_path / "c" / "splits").glob("*.json")) == []


def test_it_waits_for_volumes_that_failed(tmp_path, data):
    bad = data / "train" / "sub-02_T1w.nii.gz"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    summary = convert([data], tmp_path / "c", progress=False)
    assert len(summary.failures) == 1
    assert summary.notes == ["split 'published' is not written before the 1 of its volumes that failed are in"]
    assert list((tmp_path / "c" / "splits").glob("*.json")) == []
    bad.write_bytes(whole)
    assert convert([data], tmp_path / "c", progress=False).ok
    assert open_cohort(tmp_path / "c").split("published").train == PLACES["train"]


def test_another_split_of_the_name_stays(tmp_path, data):
    convert([data / "train"], tmp_path / "c", progress=False)
    cohort = open_cohort(tmp_path / "c")
    assert cohort.split("published").train == PLACES["train"]
    summary = convert([data / "test"], tmp_path / "c", progress=False)
    assert summary.ok
    assert "split 'published' of the cohort (2 train, 0 val, 0 test) has other subjects" in summary.notes[0]
    assert cohort.split("published") == Split(name="published", train=PLACES["train"])
    (cohort.path / "splits" / "published.json").unlink()
    assert convert([data], cohort.path, progress=False).notes == []
    assert cohort.split("published").test == PLACES["test"]


def test_a_subject_in_two_parts_is_an_error_of_the_split_not_of_the_volumes(tmp_path, data):
    write_nifti(data / "test" / "sub-01_T2w.nii.gz", np.ones((4, 4, 4), np.int16))
    summary = convert([data], tmp_path / "c", progress=False)
    (failure,) = summary.failures
    message = "split 'published' of the data set: expected every subject in one part, got sub-01 in train and test."
    assert message in failure.error
    cohort = open_cohort(tmp_path / "c")
    assert len(cohort) == 5
    assert [row["item"] for row in cohort.failures()] == ["splits/published"]
    assert list((cohort.path / "splits").glob("*.json")) == []
    (data / "test" / "sub-01_T2w.nii.gz").unlink()
    assert convert([data], cohort.path, progress=False).ok
    assert cohort.failures() == []


def test_parts_have_our_names(tmp_path, data, monkeypatch):
    monkeypatch.setattr(NiftiFormat, "split_of", lambda self, item: {"published": "dev"})
    (failure,) = convert([data], tmp_path / "c", progress=False).failures
    assert "sub-04_T1w.nii.gz: part: expected train, val, test, got 'dev'" in failure.error
