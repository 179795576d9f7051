"""Conversion of files into a cohort: what arrives, resuming, labels, and that no patient does."""

import json
import re

import numpy as np
import pytest

from mri_io import open_cohort, verify
from mri_io.convert import convert
from mri_io.errors import ConfigError, FormatError
from mri_io.formats import find_items
from mri_io.schema import Provenance
from mri_io.testing.raw_files import (
    NAME,
    PATIENT,
    random_kspace,
    write_cfl,
    write_fastmri,
    write_ismrmrd,
    write_nifti,
    write_png_pairs,
    xml_header,
)

SHAPE = (2, 3, 12, 8)


@pytest.fixture
def raw(tmp_path):
    """A folder with a file of every format; only one of them has a harmless name."""
    folder = tmp_path / "raw"
    folder.mkdir()
    write_fastmri(folder / "sub-01.h5", random_kspace(SHAPE), patient=PATIENT)
    write_fastmri(folder / f"scan_{PATIENT}.h5", random_kspace(SHAPE, 1), patient=PATIENT)
    kspace = random_kspace((1, 2, 6, 8))
    lines = [(kspace[0, :, n], {"kspace_encode_step_1": n}, ()) for n in range(6)]
    write_ismrmrd(folder / "scanner.h5", lines, xml_header(8, 6))
    write_cfl(folder / "bart", random_kspace((6, 5, 1, 3)))
    write_nifti(folder / "sub-02_T1w.nii.gz", np.random.default_rng(0).normal(size=(7, 6, 5)).astype(np.float32))
    write_png_pairs(folder / "cine", ["SC-PLANTED-1"])
    (folder / "README.txt").write_text("not a scan")
    return folder


def test_every_format_arrives_whole(tmp_path, raw):
    summary = convert([raw], tmp_path / "c", progress=False)
    assert (summary.count("done"), summary.failures) == (6, [])
    cohort = open_cohort(tmp_path / "c")
    report = verify(cohort)
    assert report.ok
    assert report.volumes == 6
    assert "sub-01_acq-AXT2_run-1" in cohort
    assert "sub-02_acq-t1w_run-1" in cohort
    np.testing.assert_array_equal(cohort["sub-01_acq-AXT2_run-1"]["kspace"].numpy(), random_kspace(SHAPE))
    formats = {volume.source.format for volume in cohort.volumes()}
    assert formats == {"fastmri", "ismrmrd", "bart", "nifti", "png-pairs"}


def test_no_patient_in_any_byte_of_the_cohort(tmp_path, raw):
    # Two files of the patient fail, so that the record of failures is searched too.
    write_fastmri(raw / f"short_{PATIENT}.h5", random_kspace(SHAPE), mask=np.ones(3), patient=PATIENT)
    bad = write_png_pairs(raw / "bad", ["SC-PLANTED-2"])
    next((bad / "Labels").rglob("*.png")).unlink()
    assert len(convert([raw], tmp_path / "c", progress=False).failures) == 2
    assert len(open_cohort(tmp_path / "c").failures()) == 2
    files = [file for file in (tmp_path / "c").rglob("*") if file.is_file()]
    content = b"".join(str(file).encode() + file.read_bytes() for file in files)
    assert b"SIEMENS" in content  # that the search would find something
    for planted in (PATIENT, NAME, "PLANTED-", "1950-02-03", "2011-11-11", "Planted Hospital"):
        assert planted.lower().encode() not in content.lower().replace(str(tmp_path).lower().encode(), b"")


def test_a_rerun_skips_and_changes_nothing(tmp_path, raw):
    convert([raw], tmp_path / "c", progress=False)
    before = {volume.id: volume.attributes for volume in open_cohort(tmp_path / "c").volumes()}
    summary = convert([raw], tmp_path / "c", progress=False)
    assert (summary.count("done"), summary.count("skipped")) == (0, 6)
    assert {volume.id: volume.attributes for volume in open_cohort(tmp_path / "c").volumes()} == before


def test_ids_depend_neither_on_order_nor_on_what_is_there(tmp_path):
    files = []
    for n in range(4):
        files.append(write_fastmri(tmp_path / f"file{n}.h5", random_kspace(SHAPE, n), patient="one"))
    found = []
    for order in (files, files[::-1]):
        cohort = tmp_path / f"c{len(found)}"
        convert(order, cohort, progress=False)
        found.append({volume.id: volume.source.uri for volume in open_cohort(cohort).volumes()})
    assert found[0] == found[1]
    assert sorted(found[0].values()) == [file.name for file in files]
    assert len({volume_id.partition("_")[0] for volume_id in found[0]}) == 1
    # A volume lost is made again under its own id.
    cohort = open_cohort(tmp_path / "c0")
    lost = cohort.volume_ids()[1]
    cohort.remove_volume(lost)
    assert convert(files, cohort.path, progress=False).results[1] == {"status": "done", "volume": lost}


def test_a_changed_source_replaces_its_volume(tmp_path):
    path = write_fastmri(tmp_path / "sub-01.h5", random_kspace(SHAPE))
    convert([path], tmp_path / "c", progress=False)
    write_fastmri(path, random_kspace(SHAPE, 5))
    assert convert([path], tmp_path / "c", progress=False).count("done") == 1
    (volume,) = open_cohort(tmp_path / "c").volumes()
    np.testing.assert_array_equal(volume["kspace"].numpy(), random_kspace(SHAPE, 5))


def test_results_are_not_thrown_away_unasked(tmp_path):
    path = write_fastmri(tmp_path / "sub-01.h5", random_kspace(SHAPE))
    convert([path], tmp_path / "c", progress=False)
    (volume,) = open_cohort(tmp_path / "c").volumes()
    volume.write("recon/x", np.ones((2, 12, 8), np.float32), provenance=Provenance.of("mri-io", "test"))
    write_fastmri(path, random_kspace(SHAPE, 5))
    (failure,) = convert([path], tmp_path / "c", progress=False).failures
    assert "would discard recon/x. To do so: --replace" in failure.error
    assert "recon/x" in open_cohort(tmp_path / "c").volumes()[0]
    assert convert([path], tmp_path / "c", replace=True, progress=False).ok
    assert "recon/x" not in open_cohort(tmp_path / "c").volumes()[0]


def scans(folder, *places, shape=(4, 4, 4)):
    """Write a NIfTI image named ``anat.nii.gz``, of another value each, into folders."""
    files = []
    for value, place in enumerate(places, start=1):
        (folder / place).mkdir(parents=True, exist_ok=True)
        files.append(write_nifti(folder / place / "anat.nii.gz", np.full(shape, value, np.int16)))
    return files


def test_another_file_of_the_same_name_does_not_replace_a_volume_unasked(tmp_path):
    first, second = scans(tmp_path, "sub-01/ses1", "sub-01/ses2")
    cohort = tmp_path / "c"
    assert convert([first.parent], cohort, progress=False).ok
    (failure,) = convert([second.parent], cohort, progress=False).failures
    message = r"ses2/anat\.nii\.gz: sub-01_acq-image_run-1 was converted from another file of this name.* --replace"
    assert re.search(message, failure.error)
    assert open_cohort(cohort).volumes()[0]["image/image"].numpy().max() == 1
    # The same file, changed, is converted anew; so is another one on request.
    write_nifti(first, np.full((4, 4, 4), 7, np.int16))
    assert convert([first], cohort, progress=False).count("done") == 1
    assert open_cohort(cohort).volumes()[0]["image/image"].numpy().max() == 7
    assert convert([second], cohort, replace=True, progress=False).count("done") == 1
    (volume,) = open_cohort(cohort).volumes()
    assert volume["image/image"].numpy().max() == 2
    assert str(tmp_path) not in (volume.path / "zarr.json").read_text()


def test_a_file_that_moved_unchanged_is_skipped(tmp_path):
    first, second = scans(tmp_path, "sub-01/ses1", "sub-01/ses2")
    convert([first], tmp_path / "c", progress=False)
    second.write_bytes(first.read_bytes())
    assert convert([second], tmp_path / "c", progress=False).count("skipped") == 1


def test_failures_of_files_of_one_name_are_told_apart(tmp_path):
    for folder in ("A", "B", "C"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    bad = {"mask": np.ones(3)}
    write_fastmri(tmp_path / "raw/A/scan.h5", random_kspace(SHAPE), patient="JOHNDOE", **bad)
    write_fastmri(tmp_path / "raw/B/scan.h5", random_kspace(SHAPE), patient="JANEROE", **bad)
    write_fastmri(tmp_path / "raw/C/scan.h5", random_kspace(SHAPE, 1), patient="RICHARDROE")
    given = [[tmp_path / "raw"], [tmp_path / "raw" / folder for folder in "ABC"]]
    given.append([path / "scan.h5" for path in given[1]])
    for sources in given:
        cohort = tmp_path / f"c{len(list(tmp_path.iterdir()))}"
        summary = convert(sources, cohort, progress=False)
        assert [failure.label for failure in summary.failures] == ["A/scan.h5", "B/scan.h5"]
        rows = open_cohort(cohort).failures()
        assert [row["item"] for row in rows] == ["A/scan.h5", "B/scan.h5"]
        assert all(f"/{row['item']}: mask length" in row["error"] for row in rows)


def test_the_record_of_failures_names_no_patient_of_files_of_one_name(tmp_path):
    for folder, patient in (("A", "JOHNDOE"), ("B", "JANEROE")):
        (tmp_path / f"{folder}_{patient}").mkdir()
        write_fastmri(
            tmp_path / f"{folder}_{patient}" / "scan.h5", random_kspace(SHAPE), mask=np.ones(3), patient=patient
        )
    convert([tmp_path], tmp_path / "c", progress=False)
    record = (tmp_path / "c" / "failures.jsonl").read_text()
    assert record.count("\n") == 2
    assert "JOHNDOE" not in record
    assert "JANEROE" not in record


@pytest.mark.parametrize("name", ["DOE_JOHN_t1.nii.gz", "sub-01_DOE_JOHN.nii.gz", "DoeJohn.cfl", "scan.DOEJOHN"])
def test_names_of_files_that_may_name_a_person_are_not_stored(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".cfl"):
        write_cfl(path.with_suffix(""), random_kspace((6, 5, 1, 3)))
    elif name.endswith(".gz"):
        write_nifti(path, np.ones((4, 4, 4), np.int16))
    else:
        write_fastmri(path, random_kspace(SHAPE), xml="<none/>")
    assert convert([path], tmp_path / "c", progress=False).ok
    (volume,) = open_cohort(tmp_path / "c").volumes()
    assert re.fullmatch(r"name-[0-9a-f]{12}(\.nii\.gz|\.cfl)?", volume.source.uri)
    files = [file for file in (tmp_path / "c").rglob("*") if file.is_file()]
    content = b"".join(str(file.relative_to(tmp_path)).encode() + file.read_bytes() for file in files).lower()
    assert b"doe" not in content
    # The file is known again by the hash.
    assert convert([path], tmp_path / "c", progress=False).count("skipped") == 1


def test_volumes_with_names_of_an_earlier_version_keep_their_ids(tmp_path, monkeypatch):
    source = write_nifti(tmp_path / "scan_t1.nii.gz", np.ones((4, 4, 4), np.int16))
    with monkeypatch.context() as patch:
        patch.setattr("mri_io.convert.numbering.stored_name", lambda name: name)
        convert([source], tmp_path / "c", progress=False)
    assert [volume.source.uri for volume in open_cohort(tmp_path / "c").volumes()] == ["scan_t1.nii.gz"]
    assert convert([source], tmp_path / "c", progress=False).count("skipped") == 1


def test_relative_sources_are_found_from_elsewhere(tmp_path, monkeypatch):
    """Workers on other machines have working directories of their own."""
    write_fastmri(tmp_path / "sub-01.h5", random_kspace(SHAPE))
    monkeypatch.chdir(tmp_path)
    (item,) = find_items(["sub-01.h5"])
    assert (item.path, item.files) == (tmp_path / "sub-01.h5", (tmp_path / "sub-01.h5",))
    assert [item.path for item in find_items(["."])] == [tmp_path / "sub-01.h5"]


def write_labels(folder, stem="sub-01", shape=(8, 12, 2), pixel=(27.5, 18.3333, 5), values=(0, 1, 2)):
    folder.mkdir(exist_ok=True)
    array = np.resize(np.array(values), shape).astype(np.uint8)
    (folder / "labels.json").write_text(json.dumps({"tissue": {"1": "grey matter", "2": "white matter"}}))
    return write_nifti(folder / f"{stem}_tissue.nii.gz", array, np.diag([*pixel, 1.0])), array


def test_labels_with_names(tmp_path):
    source = write_fastmri(tmp_path / "sub-01.h5", random_kspace(SHAPE))
    other = write_fastmri(tmp_path / "sub-01_b.h5", random_kspace(SHAPE), acquisition="AXT1")
    _, array = write_labels(tmp_path / "labels")
    assert convert([source, other], tmp_path / "c", labels=tmp_path / "labels", progress=False).ok
    cohort = open_cohort(tmp_path / "c")
    element = cohort["sub-01_acq-AXT2_run-1"]["seg/tissue"]
    np.testing.assert_array_equal(element.numpy(), array.T)
    np.testing.assert_allclose(np.diag(element.affine), [27.5, 18.3333, 5, 1], rtol=1e-6)
    assert {number: entry["name"] for number, entry in element.labels.items()} == {1: "grey matter", 2: "white matter"}
    assert "seg/tissue" not in cohort["sub-01_acq-AXT1_run-1"]
    # Without --labels the labels would be lost; that is not done unasked.
    assert "would discard seg/tissue" in convert([source], cohort.path, progress=False).failures[0].error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (8, 11, 2)}, r"label grid: expected that of the source \(kspace \(2, 12, 8\)\), got \(2, 11, 8\)"),
        ({"pixel": (20.0, 18.3, 5)}, r"label pixel size \(mm\): expected \[27.5, 18.3333\] as of the source"),
        ({"values": (0, 1, 7)}, r"label ids: expected 0 and 1, 2, got 7\. Name every id of 'tissue' in labels\.json"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, change, message):
    source = write_fastmri(tmp_path / "sub-01.h5", random_kspace(SHAPE))
    path, _ = write_labels(tmp_path / "labels", **change)
    (failure,) = convert([source], tmp_path / "c", labels=tmp_path / "labels", progress=False).failures
    assert failure.error.startswith(str(path))
    assert re.search(message, failure.error)
    assert len(open_cohort(tmp_path / "c")) == 0


def test_labels_that_fit_two_sources_are_refused(tmp_path):
    sources = scans(tmp_path, "sub-01", "sub-02", shape=(8, 12, 2))
    path, _ = write_labels(tmp_path / "labels", "anat", pixel=(2.0, 2, 3))
    message = rf"{path}: source of the labels: expected one file, got {sources[0]} and {sources[1]}\. Give the sources"
    with pytest.raises(ConfigError, match=message):
        convert(sources, tmp_path / "c", labels=tmp_path / "labels", progress=False)
    # Of one of them alone they are the labels.
    assert convert(sources[:1], tmp_path / "c", labels=tmp_path / "labels", progress=False).ok
    assert "seg/tissue" in open_cohort(tmp_path / "c").volumes()[0]


def test_labels_on_another_affine_than_the_image_are_refused(tmp_path):
    image = np.random.default_rng(0).normal(size=(8, 12, 2)).astype(np.float32)
    source = write_nifti(tmp_path / "sub-01.nii.gz", image, np.diag([2.0, 2, 3, 1]))
    write_labels(tmp_path / "labels", pixel=(2.0, 2, 3.5))
    (failure,) = convert([source], tmp_path / "c", labels=tmp_path / "labels", progress=False).failures
    assert "label affine: expected" in failure.error
    assert "sub-01_tissue.nii.gz" in failure.error


def test_masks_of_pngs_are_named_by_labels_json(tmp_path):
    write_png_pairs(tmp_path / "cine", ["P1"])
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "labels.json").write_text('{"left-ventricle": {"1": "left ventricle"}}')
    convert([tmp_path / "cine"], tmp_path / "c", labels=tmp_path / "names", progress=False)
    (volume,) = open_cohort(tmp_path / "c").volumes()
    assert volume["seg/left-ventricle"].labels[1]["name"] == "left ventricle"


def test_mistakes_of_the_call_are_refused_at_once(tmp_path):
    source = write_fastmri(tmp_path / "sub-01.h5", random_kspace(SHAPE))
    (tmp_path / "empty").mkdir()
    cases = [
        ({"sources": [tmp_path / "none.h5"]}, FormatError, "there is no such file"),
        ({"sources": [tmp_path / "empty"]}, FormatError, "expected one of the formats .*fastmri, .* got none of them"),
        ({"sources": [source], "format": "gif"}, ConfigError, "format: expected auto, .*fastmri"),
        ({"sources": [source], "labels": tmp_path / "x"}, ConfigError, "labels: expected a folder"),
        (
            {"sources": [source], "labels": tmp_path / "empty"},
            ConfigError,
            r"e\.g\. sub-01_tissue\.nii\.gz, got no image",
        ),
        ({"sources": [source], "scheduler": "locals"}, ConfigError, "scheduler: expected sync, local"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            convert(cohort=tmp_path / "c", progress=False, **options)
