"""What has been damaged or removed is made again from its source."""

import re

import numpy as np
import pytest

from mri_io import open_cohort, verify
from mri_io.convert import convert
from mri_io.schema import Provenance
from mri_io.store import remove
from mri_io.store.roots import write_root
from mri_io.testing.damage import flip_bit
from mri_io.testing.raw_files import write_nifti

ONES = np.ones((6, 5, 4), np.uint8)


@pytest.fixture
def source(tmp_path):
    """Return a folder with images of two subjects, the first with a label map beside it."""
    for folder in ("raw", "masks"):
        (tmp_path / folder).mkdir()
    for subject in ("sub-01", "sub-02"):
        write_nifti(tmp_path / "raw" / f"{subject}_T1w.nii.gz", np.arange(120, dtype=np.int16).reshape(6, 5, 4))
    write_nifti(tmp_path / "masks" / "sub-01_T1w_mask.nii.gz", ONES)
    return tmp_path / "raw"


@pytest.fixture
def run(tmp_path, source):
    """Return a function that converts into a cohort, and has done so once."""

    def convert_all(**options):
        return convert([source], tmp_path / "c", labels=tmp_path / "masks", progress=False, **options)

    assert convert_all().ok
    (volume, _) = open_cohort(tmp_path / "c").volumes()
    volume.write("recon/x", np.ones((4, 5, 6), np.float32), provenance=Provenance.of("mri-io", "test"))
    return convert_all


def commits(cohort):
    return {path: element.commit for path, element in cohort.volumes()[0].elements().items()}


@pytest.mark.parametrize("path", ["image/t1w", "seg/mask"])
def test_a_removed_element_is_made_again_and_others_stay(tmp_path, run, path):
    cohort = open_cohort(tmp_path / "c")
    before, data = commits(cohort), cohort.volumes()[0][path].numpy()
    cohort.volumes()[0].remove(path)
    summary = run()
    assert (summary.count("done"), summary.count("skipped"), summary.failures) == (1, 1, [])
    assert f"made again in sub-01_acq-t1w_run-1: {path}" in str(summary)
    after = commits(cohort)
    assert {name for name in before if after[name] != before[name]} == {path}
    np.testing.assert_array_equal(cohort.volumes()[0][path].numpy(), data)
    assert verify(cohort).ok
    assert run().count("skipped") == 2


@pytest.mark.parametrize("lost", ["chunk", "metadata", "file"])
def test_replace_mends_damaged_elements_of_an_unchanged_source(tmp_path, run, lost):
    cohort = open_cohort(tmp_path / "c")
    before, volume = commits(cohort), cohort.volumes()[0]
    data = volume["image/t1w"].numpy()
    chunk = next(file for file in (volume.path / "image/t1w/data/c").rglob("*") if file.is_file())
    metadata = volume.path / "image/t1w/zarr.json"
    if lost == "chunk":
        flip_bit(chunk, 100)
    elif lost == "metadata":
        metadata.write_text(metadata.read_text()[:-50])
    else:
        chunk.unlink()
    (problem, *_) = verify(cohort).problems
    assert "mri-cli remove COHORT VOLUME ELEMENT" in problem.message
    assert run().count("skipped") == 2
    assert not verify(cohort).ok
    summary = run(replace=True)
    assert (summary.count("done"), summary.count("skipped"), summary.failures) == (1, 1, [])
    assert verify(cohort).ok
    after = commits(cohort)
    assert {name for name in before if after[name] != before[name]} == {"image/t1w"}
    np.testing.assert_array_equal(cohort.volumes()[0]["image/t1w"].numpy(), data)


def test_replace_looks_at_the_source_for_what_an_earlier_release_made(tmp_path, run):
    cohort = open_cohort(tmp_path / "c")
    volume = cohort.volumes()[0]
    volume.remove("image/t1w")
    del volume.attributes["converter"]["elements"]
    write_root(volume.path, volume.attributes, tmp_path)
    assert run().count("skipped") == 2
    assert run(replace=True).results[0]["elements"] == ["image/t1w"]
    assert verify(cohort).ok


def test_replace_leaves_damage_to_results(tmp_path, run):
    volume = open_cohort(tmp_path / "c").volumes()[0]
    flip_bit(next(file for file in (volume.path / "recon/x/data/c").rglob("*") if file.is_file()), 100)
    assert run(replace=True).count("skipped") == 2
    assert [problem.element for problem in verify(volume).problems] == ["recon/x"]


def test_replace_makes_a_volume_anew_whose_groups_are_damaged(tmp_path, run):
    cohort = open_cohort(tmp_path / "c")
    (cohort.volumes()[0].path / "image/zarr.json").write_text("{")
    assert run(replace=True).count("done") == 1
    assert verify(cohort).ok


def test_damaged_metadata_of_a_volume_are_a_failure_of_it_alone(tmp_path, run, source):
    cohort = open_cohort(tmp_path / "c")
    damaged = cohort.volumes()[0].path / "zarr.json"
    damaged.write_text(damaged.read_text()[:-50])
    write_nifti(source / "sub-03_T1w.nii.gz", np.ones((4, 4, 4), np.int16))
    summary = run()
    assert (summary.count("done"), summary.count("skipped")) == (1, 1)
    (failure,) = summary.failures
    remedy = f"mri-cli remove {cohort.path} sub-01_acq-t1w_run-1"
    assert re.search(rf"sub-01_acq-t1w_run-1, which may .* damaged: .* {re.escape(remedy)}$", failure.error)
    (row,) = cohort.failures()
    assert row["item"] == "sub-01_T1w.nii.gz"
    (problem,) = [problem for problem in verify(cohort).problems if not problem.element]
    assert "(mri-cli remove COHORT VOLUME)" in problem.message
    assert "ELEMENT" not in problem.message
    cohort.remove_volume("sub-01_acq-t1w_run-1")
    assert run().ok
    assert "sub-01_acq-t1w_run-1" in cohort
    assert cohort.failures() == []
    assert verify(cohort).ok


def test_without_the_labels_of_then_it_is_said_once_what_differs(tmp_path, source):
    for subject in ("sub-02", "sub-03"):
        write_nifti(source / f"{subject}_T1w.nii.gz", np.ones((6, 5, 4), np.int16))
        write_nifti(tmp_path / "masks" / f"{subject}_T1w_mask.nii.gz", ONES)
    assert convert([source], tmp_path / "c", labels=tmp_path / "masks", progress=False).ok
    summary = convert([source], tmp_path / "c", progress=False)
    assert len(summary.failures) == 3
    line = "  failed: 3 alike (sub-01_T1w.nii.gz, sub-02_T1w.nii.gz, sub-03_T1w.nii.gz): "
    (shown,) = [found for found in str(summary).splitlines() if "failed:" in found]
    assert shown.startswith(line)
    assert "sub-01_acq-t1w_run-1 was converted with other options (--labels mask then, none now), and" in shown
    assert "would discard seg/mask. To do so: --replace" in shown


def test_changed_content_is_named(tmp_path, run, source):
    write_nifti(source / "sub-01_T1w.nii.gz", np.ones((6, 5, 4), np.int16))
    (failure,) = run().failures
    assert "sub-01_acq-t1w_run-1 was converted from other content of its files, and" in failure.error
    assert "would discard recon/x." in failure.error


def test_labels_that_fit_no_source_are_named(tmp_path, run):
    assert run().notes == ["labels: 1 of 2 sources"]
    write_nifti(tmp_path / "masks" / "sub-99_T1w_mask.nii.gz", ONES)
    assert run().notes == ["labels: 1 of 2 sources; fits none: sub-99_T1w_mask.nii.gz"]
    write_nifti(tmp_path / "masks" / "sub-02_T1w_mask.nii.gz", ONES)
    assert run().notes == ["labels: 2 of 2 sources; fits none: sub-99_T1w_mask.nii.gz"]
    (tmp_path / "masks" / "sub-99_T1w_mask.nii.gz").unlink()
    assert run().notes == []


def test_sidecars_that_were_read_are_not_passed_over(tmp_path, source):
    (source / "sub-01_T1w.json").write_text('{"EchoTime": 0.03}')
    (source / "notes.json").write_text("{}")
    summary = convert([source], tmp_path / "c", progress=False)
    assert open_cohort(tmp_path / "c").volumes()[0].header.te_s == (0.03,)
    assert summary.notes == ["passed over, of no known format: 1 file (notes.json)"]


def test_a_cohort_among_the_sources_is_left_out(tmp_path, source):
    assert convert([source], source / "cohort", progress=False).ok
    summary = convert([source], source / "cohort", progress=False)
    assert (summary.count("skipped"), summary.failures) == (2, [])
    assert summary.notes == [f"left out, a cohort: {source / 'cohort'}"]


def test_cohorts_in_object_stores_are_mended_alike(source, tmp_path, bucket):
    url = f"{bucket}/c"
    assert convert([source], url, labels=tmp_path / "masks", progress=False).ok
    cohort = open_cohort(url)
    remove(cohort, "sub-01_acq-t1w_run-1", "seg/mask")
    summary = convert([source], url, labels=tmp_path / "masks", progress=False)
    assert summary.results[0]["elements"] == ["seg/mask"]
    (cohort.volumes_path / "sub-01_acq-t1w_run-1.zarr" / "image/t1w/zarr.json").write(b"{")
    assert not verify(cohort).ok
    summary = convert([source], url, labels=tmp_path / "masks", replace=True, progress=False)
    assert summary.results[0]["elements"] == ["image/t1w"]
    assert verify(cohort).ok
    (cohort.volumes_path / "sub-01_acq-t1w_run-1.zarr" / "zarr.json").write(b"{")
    (failure,) = convert([source], url, labels=tmp_path / "masks", progress=False).failures
    assert failure.error.endswith(f"mri-cli remove {url} sub-01_acq-t1w_run-1")
    remove(cohort, "sub-01_acq-t1w_run-1")
    assert convert([source], url, labels=tmp_path / "masks", progress=False).ok
    assert verify(cohort).ok
