"""Which volume each source becomes: run numbers, files of one name, pseudonyms, redaction, search, hashes."""

import re
from concurrent.futures import CancelledError
from threading import Event, Thread

import numpy as np
import pytest

from mri_io import open_cohort
from mri_io.convert import convert, running
from mri_io.formats import find_items, find_sources, get_format
from mri_io.formats.base import file_sha256, identify, without_texts
from mri_io.formats.nifti import NiftiFormat
from mri_io.store import Cohort
from mri_io.testing.dicom_files import write_series
from mri_io.testing.raw_files import random_kspace, write_fastmri, write_ismrmrd, write_nifti, xml_header

SHAPE = (2, 3, 12, 8)


def image(path, value=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(path, np.full((4, 4, 4), value, np.int16))


def found(cohort):
    """Return the grey value of each volume by its id."""
    return {
        volume.id: int(next(iter(volume.elements().values())).numpy().max()) for volume in open_cohort(cohort).volumes()
    }


def subjects(cohort):
    """Return the subject of each grey value."""
    return {value: volume_id.partition("_")[0] for volume_id, value in found(cohort).items()}


def meanwhile(monkeypatch, owner, name, other, *, before):
    """Let another conversion run once, before or after a function is called for the first time."""
    real, calls = getattr(owner, name), []

    def call(*args, **options):
        calls.append(name)
        if before and len(calls) == 1:
            other()
        result = real(*args, **options)
        if not before and len(calls) == 1:
            other()
        return result

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("moment", ["planned", "begun"])
def test_a_number_that_another_process_took_meanwhile_is_left_to_it(tmp_path, monkeypatch, moment, replace):
    one, two = image(tmp_path / "sub-01_acq-a_T1w.nii.gz", 1), image(tmp_path / "sub-01_acq-b_T1w.nii.gz", 2)
    three, cohort = image(tmp_path / "sub-01_acq-c_T1w.nii.gz", 3), tmp_path / "c"

    def other():
        assert convert([one], cohort, progress=False).count("done") == 1

    if moment == "planned":
        meanwhile(monkeypatch, running, "plan_conversion", other, before=False)
    else:
        meanwhile(monkeypatch, running._Convert, "_make", other, before=True)
    summary = convert([two, three], cohort, replace=replace, progress=False)
    assert (summary.count("done"), summary.failures) == (2, [])
    start = "sub-01_acq-t1w_run-"
    assert found(cohort) == {f"{start}1": 1, f"{start}2": 2, f"{start}3": 3}
    again = convert([one, two, three], cohort, progress=False)
    assert [result["volume"] for result in again.results] == [f"{start}{n}" for n in (1, 2, 3)]
    assert again.count("skipped") == 3


def test_a_file_that_another_process_converted_meanwhile_under_another_number(tmp_path, monkeypatch):
    one, two = image(tmp_path / "sub-01_acq-a_T1w.nii.gz", 1), image(tmp_path / "sub-01_acq-b_T1w.nii.gz", 2)
    cohort = tmp_path / "c"
    meanwhile(monkeypatch, running, "plan_conversion", lambda: convert([two], cohort, progress=False), before=False)
    summary = convert([two, one], cohort, progress=False)
    assert (summary.count("skipped"), summary.count("done"), summary.failures) == (1, 1, [])
    assert found(cohort) == {"sub-01_acq-t1w_run-1": 2, "sub-01_acq-t1w_run-2": 1}


def test_a_file_that_another_process_converted_meanwhile_under_another_pseudonym(tmp_path, monkeypatch):
    one, two = image(tmp_path / "p1" / "anat" / "t1.nii.gz", 1), image(tmp_path / "p2" / "anat" / "t1.nii.gz", 2)
    cohort = tmp_path / "c"
    meanwhile(monkeypatch, running, "plan_conversion", lambda: convert([one], cohort, progress=False), before=False)
    assert convert([one, two], cohort, progress=False).count("skipped") == 1
    assert sorted(found(cohort).values()) == [1, 2]
    assert convert([one, two], cohort, progress=False).count("skipped") == 2


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_file_that_two_processes_convert_at_once_is_one_volume(tmp_path, monkeypatch, request, kind):
    one, two = image(tmp_path / "sub-01_acq-a_T1w.nii.gz", 1), image(tmp_path / "sub-01_acq-b_T1w.nii.gz", 2)
    cohort = tmp_path / "c" if kind == "folder" else f"{request.getfixturevalue('bucket')}/c"
    asked, real, summaries = [], Cohort.exclusive, []
    monkeypatch.setattr(Cohort, "exclusive", lambda self, work: asked.append(work) or real(self, work))
    other = Thread(target=lambda: summaries.append(convert([two], cohort, progress=False)))

    def begin():
        """Let the other, which plans the number 1 for the file that has the number 2 here, come as far as it can."""
        other.start()
        while other.is_alive() and len(asked) < 2:
            other.join(0.01)
        other.join(2)

    meanwhile(monkeypatch, running._Convert, "_make", begin, before=True)
    summary = convert([two, one], cohort, progress=False)
    other.join()
    assert asked[0] == asked[1]
    assert (summary.count("done"), summaries[0].count("skipped")) == (2, 1)
    assert found(cohort) == {"sub-01_acq-t1w_run-1": 1, "sub-01_acq-t1w_run-2": 2}


def test_numbers_that_are_always_taken_end_in_an_error(tmp_path, monkeypatch):
    source, cohort = image(tmp_path / "sub-01_acq-b_T1w.nii.gz"), tmp_path / "c"
    convert([image(tmp_path / "sub-01_acq-a_T1w.nii.gz")], cohort, progress=False)
    monkeypatch.setattr(running.CohortNumbers, "give", lambda *_: "sub-01_acq-t1w_run-1")
    (failure,) = convert([source], cohort, replace=True, progress=False).failures
    assert re.search(r"acq-b_T1w\.nii\.gz: other processes took 20 run numbers of sub-01_acq-t1w_run-N", failure.error)


def test_the_cohort_is_listed_once(tmp_path, monkeypatch):
    sources, cohort = [image(tmp_path / f"sub-{n}.nii.gz") for n in range(5)], tmp_path / "c"
    convert(sources[:3], cohort, progress=False)
    calls, real = [], Cohort.volume_ids
    monkeypatch.setattr(Cohort, "volume_ids", lambda self, starts=None: calls.append(starts) or real(self, starts))
    convert(sources, cohort, progress=False)
    assert calls.count(None) == 1
    assert len(calls) == 3  # those that are new are looked for once more, by their names


def test_folders_of_patients_with_files_of_one_name(tmp_path):
    for value, patient in enumerate(("p1", "p2", "p3"), start=1):
        image(tmp_path / "raw" / patient / "anat" / "t1.nii.gz", value)
    folders = [tmp_path / "raw" / patient for patient in ("p1", "p2", "p3")]
    expected = None
    for name, sources in {"whole": [tmp_path / "raw"], "each": folders, "reversed": folders[::-1]}.items():
        assert convert(sources, tmp_path / name, progress=False).count("done") == 3
        expected = expected or subjects(tmp_path / name)
        assert subjects(tmp_path / name) == expected
        assert len(set(expected.values())) == 3
    # Each is known again when it is given alone.
    for folder in folders:
        assert convert([folder], tmp_path / "whole", progress=False).count("skipped") == 1


def test_a_pseudonym_that_a_cohort_has_stays_when_others_come(tmp_path):
    first, cohort = image(tmp_path / "raw/p1/anat/t1.nii.gz", 1), tmp_path / "c"
    convert([first], cohort, progress=False)
    before = subjects(cohort)
    assert before == {1: identify(first, "t1", "t1").subject}
    image(tmp_path / "raw/p2/anat/t1.nii.gz", 2)
    (failure,) = convert([tmp_path / "raw/p2"], cohort, progress=False).failures
    assert "was converted from another file of this name, in another folder" in failure.error
    for _ in range(2):
        assert convert([tmp_path / "raw"], cohort, progress=False).ok
    after = subjects(cohort)
    assert len(set(after.values())) == len(after) == 2
    assert after[1] == before[1]


def test_files_of_one_name_in_the_bids_form_fail_alone(tmp_path):
    image(tmp_path / "raw/x/sub-01_T1w.nii.gz", 1)
    image(tmp_path / "raw/y/sub-01_T1w.nii.gz", 2)
    image(tmp_path / "raw/y/sub-02_T1w.nii.gz", 3)
    summary = convert([tmp_path / "raw"], tmp_path / "c", progress=False)
    assert found(tmp_path / "c") == {"sub-02_acq-t1w_run-1": 3}
    for failure, (own, other) in zip(summary.failures, ("xy", "yx"), strict=True):
        message = rf"raw/{own}/sub-01_T1w\.nii\.gz: would be the same scan, .*run-N, as .*/{other}/sub-01_T1w\.nii\.gz"
        assert re.search(message, failure.error)
    # The one that is there is known, and is not to blame.
    convert([tmp_path / "raw/x"], tmp_path / "c", progress=False)
    summary = convert([tmp_path / "raw"], tmp_path / "c", progress=False)
    assert summary.count("skipped") == 2
    assert [failure.label for failure in summary.failures] == ["y/sub-01_T1w.nii.gz"]
    assert [row["item"] for row in open_cohort(tmp_path / "c").failures()] == ["y/sub-01_T1w.nii.gz"]


def test_derivatives_of_a_bids_data_set_are_left_out_unless_given(tmp_path):
    place = "sub-01/anat/sub-01_T1w.nii.gz"
    image(tmp_path / "bids" / place, 1)
    derived = image(tmp_path / "bids/derivatives/smooth" / place, 2)
    summary = convert([tmp_path / "bids"], tmp_path / "c", progress=False)
    assert found(tmp_path / "c") == {"sub-01_acq-t1w_run-1": 1}
    assert summary.notes == [f"left out, to be converted by itself: {tmp_path / 'bids/derivatives'}"]
    summary = convert([tmp_path / "bids/derivatives"], tmp_path / "d", progress=False)
    assert (found(tmp_path / "d"), summary.notes) == ({"sub-01_acq-t1w_run-1": 2}, [])
    both = find_sources([tmp_path / "bids", tmp_path / "bids/derivatives"])
    assert (len(both.items), both.left_out) == (2, [])
    # In other folders it is a name like any.
    image(tmp_path / "other/derivatives/x.nii.gz")
    assert derived.is_file()
    assert len(find_items([tmp_path / "other"])) == 1


def test_links_to_folders_above_are_not_followed_again(tmp_path):
    image(tmp_path / "a/sub-01.nii.gz")
    (tmp_path / "a/README.txt").write_text("not a scan")
    (tmp_path / "a/l").symlink_to("..")
    (tmp_path / "a/m").symlink_to(tmp_path / "a", target_is_directory=True)
    sources = find_sources([tmp_path / "a"])
    # Through the link to the folder above nothing new is found but that folder itself.
    assert [item.path.resolve() for item in sources.items] == [tmp_path / "a/sub-01.nii.gz"]
    assert sources.passed_over == [tmp_path / "a/README.txt"]


def test_an_error_in_joining_files_is_a_problem_of_those(tmp_path, monkeypatch):
    for n in range(2):
        image(tmp_path / f"raw/sub-0{n}_T1w.nii.gz")
    write_fastmri(tmp_path / "raw/sub-03.h5", random_kspace(SHAPE))

    def fail(self, items):
        raise ZeroDivisionError("in the reader")

    with monkeypatch.context() as patch:
        patch.setattr(NiftiFormat, "gather", fail)
        summary = convert([tmp_path / "raw"], tmp_path / "c", progress=False)
    assert summary.count("done") == 1
    assert [failure.label for failure in summary.failures] == ["sub-00_T1w.nii.gz", "sub-01_T1w.nii.gz"]
    for failure in summary.failures:
        assert re.search(rf"raw/{failure.label}: could not be joined .* nifti: ZeroDivisionError", failure.error)
    assert convert([tmp_path / "raw"], tmp_path / "c", progress=False).ok
    assert open_cohort(tmp_path / "c").failures() == []


def test_a_mended_file_that_named_nobody_clears_its_row(tmp_path):
    path = tmp_path / "Doe_Plantedname.h5"
    header = xml_header(8, 12, name="Doe^Plantedname", patient="4711")
    write_fastmri(path, random_kspace((8, 4, 64, 64)), xml=header)
    path.write_bytes(path.read_bytes()[:-100_000])
    convert([path], tmp_path / "c", progress=False)
    cohort = open_cohort(tmp_path / "c")
    assert [row["item"] for row in cohort.failures()] == [path.name]
    # Now it says whose it is, and still fails: the row has no name any more.
    write_fastmri(path, random_kspace(SHAPE), xml=header, mask=np.ones(3))
    convert([path], tmp_path / "c", progress=False)
    (row,) = cohort.failures()
    assert re.fullmatch(r"sub-\w{12}_sub-\w{12}\.h5", row["item"])
    write_fastmri(path, random_kspace(SHAPE), xml=header)
    assert convert([path], tmp_path / "c", progress=False).ok
    assert cohort.failures() == []


def test_a_mended_slice_clears_its_row(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 99, (5, 6, 7)).astype(np.uint16)
    files = write_series(tmp_path / "raw/one", pixels, np.diag([2.0, 2, 3, 1]))
    whole = files[3].read_bytes()
    files[3].write_bytes(whole[:400])
    assert convert([tmp_path / "raw"], tmp_path / "c", progress=False).failures
    cohort = open_cohort(tmp_path / "c")
    assert f"one/{files[3].name}" in [row["item"] for row in cohort.failures()]
    files[3].write_bytes(whole)
    assert convert([tmp_path / "raw"], tmp_path / "c", progress=False).ok
    assert cohort.failures() == []


def test_short_names_are_redacted_as_words():
    text = "Li_Wu.h5: /data/LI/olive: wuerzburg, 12 of 123"
    assert without_texts(text, ["Li", "Wu", "12", "x"], "X") == "X_X.h5: /data/X/olive: wuerzburg, X of 123"
    assert without_texts("doe john and Doe", ["Doe", "Doe John"], "X") == "X and X"


@pytest.mark.parametrize("name", ["Li^Wu", "Li Wu", "Wu, Li"])
@pytest.mark.parametrize("kind", ["fastmri", "ismrmrd", "dicom"])
def test_parts_of_names_are_redacted_alike_in_every_format(tmp_path, kind, name):
    path = tmp_path / "Li_scan_Wu.h5"
    header = xml_header(8, 6, name=name, patient="4711")
    if kind == "fastmri":
        write_fastmri(path, random_kspace((1, 2, 6, 8)), xml=header)
    elif kind == "ismrmrd":
        lines = [(np.ones((2, 8), np.complex64), {"kspace_encode_step_1": n}, ()) for n in range(6)]
        write_ismrmrd(path, lines, header)
    else:
        write_series(tmp_path, np.ones((2, 4, 4), np.uint16), np.eye(4), tags={"PatientName": name})
    (item,) = find_items([tmp_path])
    assert item.format == kind
    assert {"Li", "Wu"} <= set(get_format(kind).identify(item).aliases)


def test_hashing_stops_when_the_work_fails(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1234")
    stopped = Event()
    stopped.set()
    with pytest.raises(CancelledError):
        file_sha256((tmp_path / "a",), stopped)
    seen = []

    def slow(files, stop):
        seen.append(stop.wait(20))

    monkeypatch.setattr(running, "file_sha256", slow)
    source = write_fastmri(tmp_path / "sub-01.h5", random_kspace(SHAPE), mask=np.ones(3))
    assert convert([source], tmp_path / "c", progress=False).failures
    assert seen == [True]


def test_a_redacted_name_is_hidden_all_the_same(tmp_path):
    """DOE_JOHN.h5 of the patient DOE does not become sub-..._JOHN.h5, which would look like a pseudonym's file."""
    source = write_fastmri(tmp_path / "PQR_JOHN.h5", random_kspace(SHAPE), patient="PQR")
    assert convert([source], tmp_path / "c", progress=False).ok
    (volume,) = open_cohort(tmp_path / "c").volumes()
    assert re.fullmatch(r"name-[0-9a-f]{12}\.h5", volume.source.uri)
    assert convert([source], tmp_path / "c", progress=False).count("skipped") == 1
