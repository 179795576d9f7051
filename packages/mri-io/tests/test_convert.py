"""Conversion of files into a cohort: what arrives, resuming, labels, and that no patient does."""

import json
import re

import numpy as np
import pytest

from mri_io import open_cohort, verify
from mri_io.convert import convert
from mri_io.errors import ConfigError, FormatError
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


def write_labels(folder, stem="sub-01", shape=(8, 12, 2), pixel=(27.5, 18.3333, 5), values=(0, 1, 2)):
    folder.mkdir(exist_ok=True)
    array = np.resize(np.array(values), shape).astype(np.uint8)
    (folder / "labels.json").write_text(json.dumps({"tissue": {"1": "grey matter", "2": "white matter"}}))
    return write_nifti(folder / f"{stem}_tissue.nii.gz", array, np.diag([*pixel, 1.0])), array


def test_labels_with_names(tmp_path):
    source = write_fastmri(tmp_path / "sub-01.h5", random_kspace(SHAPE))
    other = write_fastmri(tmp_path / "sub-01_b.h5", random_kspace(SHAPE), acquisition="other")
    _, array = write_labels(tmp_path / "labels")
    assert convert([source, other], tmp_path / "c", labels=tmp_path / "labels", progress=False).ok
    cohort = open_cohort(tmp_path / "c")
    element = cohort["sub-01_acq-AXT2_run-1"]["seg/tissue"]
    np.testing.assert_array_equal(element.numpy(), array.T)
    np.testing.assert_allclose(np.diag(element.affine), [27.5, 18.3333, 5, 1], rtol=1e-6)
    assert {number: entry["name"] for number, entry in element.labels.items()} == {1: "grey matter", 2: "white matter"}
    assert "seg/tissue" not in cohort["sub-01_acq-other_run-1"]
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
    (tmp_path / "b").mkdir()
    twin = write_fastmri(tmp_path / "b" / "sub-01.h5", random_kspace(SHAPE))
    cases = [
        ({"sources": [tmp_path / "none.h5"]}, FormatError, "there is no such file"),
        ({"sources": [tmp_path / "empty"]}, FormatError, "expected one of the formats fastmri, .* got none of them"),
        ({"sources": [source], "format": "dicom"}, ConfigError, "format: expected auto, fastmri"),
        ({"sources": [source], "labels": tmp_path / "x"}, ConfigError, "labels: expected a folder"),
        (
            {"sources": [source], "labels": tmp_path / "empty"},
            ConfigError,
            r"e\.g\. sub-01_tissue\.nii\.gz, got no NIf",
        ),
        ({"sources": [source], "scheduler": "locals"}, ConfigError, "scheduler: expected sync, local"),
        ({"sources": [source, twin]}, ConfigError, "would be the same scan"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            convert(cohort=tmp_path / "c", progress=False, **options)
