"""Versions: the golden cohort of each one opens, newer major ones are refused, newer minor ones are read."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from mri_io import open_cohort, open_volume, verify
from mri_io.errors import CorruptElementError, VersionError
from mri_io.schema import SCHEMA_VERSION
from mri_io.schema.elements import ELEMENT_TYPES
from mri_io.schema.readers import STEPS
from mri_io.store import build_index, collect_garbage, query_index, read_statistics
from mri_io.store.documents import write_document
from mri_io.store.metadata import group_text, write_group

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name.removeprefix("store-") for path in GOLDEN.glob("store-*"))
ID = "sub-01_ses-1_acq-ramp_run-1"
UPGRADE = r"Upgrade it: pip install --upgrade mri-io"


@pytest.fixture
def golden(tmp_path):
    """A copy of the golden cohort of the first version, to be changed."""
    return open_cohort(shutil.copytree(GOLDEN / "store-1.0", tmp_path / "golden"))


def ramp(*shape):
    return np.arange(np.prod(shape)).reshape(shape)


def complex_ramp(*shape):
    return ramp(*shape) * (1 - 2j)


EXPECTED = {
    "kspace": (complex_ramp(2, 3, 4, 5), "complex64", ("slice", "coil", "ky", "kx")),
    "noise": (complex_ramp(3, 6), "complex64", ("coil", "sample")),
    "mask/acquired": (np.array([0, 1, 0, 1, 0]), "uint8", ("kx",)),
    "sens/espirit": (complex_ramp(2, 1, 3, 4, 5), "complex64", ("slice", "map", "coil", "y", "x")),
    "recon/combined": (complex_ramp(2, 4, 5), "complex64", ("slice", "y", "x")),
    "recon/rss": (ramp(2, 4, 5) * 0.25, "float32", ("slice", "y", "x")),
    "recon/derived": (ramp(2, 4, 5), "float32", ("slice", "y", "x")),
    "image/t1": (ramp(2, 4, 5) - 20, "int16", ("slice", "y", "x")),
    "seg/tissue": (ramp(2, 4, 5) % 3, "uint8", ("slice", "y", "x")),
    "qmap/t2": ((ramp(2, 4, 5) / 1000).astype(np.float32), "float32", ("slice", "y", "x")),
    "emb/vit/block-1": (ramp(2, 3, 2, 2), "float16", ("slice", "channel", "ey", "ex")),
}
SINCE_1_1 = {
    "recon/cine": (ramp(2, 3, 2, 4, 5), "complex64", ("frame", "echo", "slice", "y", "x")),
    "mask/kt": (ramp(3, 4) % 2, "uint8", ("frame", "ky")),
    "trajectory": (ramp(2, 4, 5, 2) / 8, "float32", ("frame", "shot", "sample", "axis")),
    "emb/vit/quantised": (ramp(2, 3, 2, 2) - 8, "int8", ("slice", "channel", "ey", "ex")),
}
AFFINE = [[0, -2, 0, 10], [1.5, 0, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1]]


def test_there_is_a_golden_cohort_of_the_present_version():
    assert SCHEMA_VERSION in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_cohorts_hold_the_known_values(version):
    cohort = open_cohort(GOLDEN / f"store-{version}")
    before = {path: path.stat().st_mtime_ns for path in cohort.path.rglob("*")}
    volume = cohort[ID]
    elements = volume.elements()
    expected = EXPECTED if version == "1.0" else {**EXPECTED, **SINCE_1_1}
    assert elements.keys() == {*expected, "prompts/clicks"}
    for path, (data, dtype, dims) in expected.items():
        np.testing.assert_array_equal(elements[path].numpy(), data, err_msg=path)
        assert (str(elements[path].dtype), elements[path].dims) == (dtype, dims)
        assert elements[path].arrays["data"].is_mapped
    prompts = elements["prompts/clicks"]
    np.testing.assert_array_equal(prompts.array("boxes"), ramp(2, 4))
    np.testing.assert_array_equal(prompts.array("points"), ramp(2, 2))
    assert [prompts.array(name).tolist() for name in ("slice", "label", "point_label")] == [[0, 1], [1, 1], [0, 1]]
    assert elements["seg/tissue"].affine.tolist() == elements["image/t1"].affine.tolist() == AFFINE
    assert elements["seg/tissue"].labels[2] == {"name": "white matter", "code": "389081007"}
    assert elements["recon/derived"].provenance["inputs"] == [
        {"path": "recon/rss", "commit": elements["recon/rss"].commit}
    ]
    assert {path: path.stat().st_mtime_ns for path in cohort.path.rglob("*")} == before  # reading changes nothing


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_cohorts_verify_and_tell_of_themselves(version):
    cohort = open_cohort(GOLDEN / f"store-{version}")
    for fast in (False, True):
        report = verify(cohort, fast=fast)
        assert (report.problems, report.orphans, report.stale) == ([], [], [])
        assert (report.volumes, report.elements) == (2, 12 if version == "1.0" else 12 + len(SINCE_1_1))
    assert (cohort.name, cohort.metadata["license"]) == ("golden", "CC0-1.0")
    header, source = cohort[ID].header, cohort[ID].source
    assert (header.recon_matrix, header.te_s, header.field_T, header.vendor) == ((5, 4, 2), (0.03,), 3.0, "ACME")
    assert (source.uri, source.sha256, source.format) == ("ramp.h5", "b" * 64, "fastmri")
    split = cohort.split()
    assert (split.train, split.val, split.test) == (("sub-01",), (), ("sub-02",))
    assert split.hash == "0804cefb2ca87bb7e31871effae59c2722b080138db1513fdf955fb01656189d"
    fields = read_statistics(cohort)["fields"]
    assert fields["image/t1"]["mean"] == -0.5
    np.testing.assert_allclose(fields["recon/rss"]["std"], np.std(np.arange(40) / 4))
    assert cohort.evaluations()["ramps"]["summary"]["ramp"]["psnr"]["mean"] == 30.5
    assert cohort.failures()[0]["item"] == "ramp-2.h5"
    assert [row.id for row in query_index(cohort, part="train", element="recon/rss", shape=(2, None, 5))] == [ID]


def set_root(volume, **changes):
    """Change attributes of a volume as a later release would have written them, with a valid seal."""
    (volume.path / "zarr.json").write_text(group_text({**volume.attributes, **changes}))


def set_element(volume, path, **changes):
    element = volume[path]
    write_group(element.folder, {**element.attributes, **changes}, tuple(element.arrays))


@pytest.mark.parametrize("version", ["2.0", "3.7", "10.0"])
def test_a_newer_cohort_is_refused(golden, version):
    write_document(golden.path / "cohort.json", {**golden.metadata, "schema_version": version, "name": ["changed"]})
    message = rf"golden: written with store version {version}, this release of mri-io reads up to 1\.x\. {UPGRADE}"
    with pytest.raises(VersionError, match=message):
        open_cohort(golden.path)
    report = verify(golden.path)
    assert [problem.kind for problem in report.problems] == ["version"]


@pytest.mark.parametrize("version", ["2.0", "10.0"])
def test_a_newer_volume_is_refused(golden, version):
    set_root(golden[ID], schema_version=version, subject_id=["changed"])
    message = rf"{ID}\.zarr: written with store version {version}, this release of mri-io reads up to 1\.x\. {UPGRADE}"
    with pytest.raises(VersionError, match=message):
        golden[ID]
    with pytest.raises(VersionError, match=message):
        open_volume(golden.path / "volumes" / f"{ID}.zarr")
    report = verify(golden)
    assert [(problem.volume, problem.kind) for problem in report.problems] == [(ID, "version")]
    assert collect_garbage(golden) == []


def test_a_newer_element_is_refused_and_the_others_are_read(golden, caplog):
    set_element(golden[ID], "recon/rss", type_version=2)
    message = rf"rss: element type 'recon' version 2; this release of mri-io reads up to version 1\. {UPGRADE}"
    with pytest.raises(VersionError, match=message):
        golden[ID]["recon/rss"]
    with caplog.at_level(logging.WARNING):
        assert golden[ID].elements().keys() == {*EXPECTED, "prompts/clicks"} - {"recon/rss"}
    assert "recon/rss: element type 'recon' version 2" in caplog.text
    assert "the element is left out" in caplog.text
    report = verify(golden)
    assert [(problem.element, problem.kind) for problem in report.problems] == [("recon/rss", "version")]
    assert collect_garbage(golden) == []


def test_an_unknown_type_is_left_out(golden):
    volume = golden[ID]
    shutil.copytree(volume.path / "recon", volume.path / "spectrum")
    folder = volume.path / "spectrum" / "rss"
    write_group(folder, {**volume["recon/rss"].attributes, "type": "spectrum", "type_version": 4}, ("data",))
    for other in ("combined", "derived"):
        shutil.rmtree(volume.path / "spectrum" / other)
    assert volume.elements().keys() == {*EXPECTED, "prompts/clicks"}
    with pytest.raises(VersionError, match=rf"type 'spectrum' version 4; .* does not know this type\. {UPGRADE}"):
        volume["spectrum/rss"]
    assert verify(golden).ok
    assert collect_garbage(golden) == []
    assert (folder / "data" / "zarr.json").is_file()


@pytest.mark.parametrize("version", ["1.1", "1.10", "0.9"])
def test_newer_minor_versions_and_older_ones_are_read(golden, version):
    """Attributes that this release does not know are tolerated everywhere and kept."""
    new = {"later": {"a": [1, None]}}
    write_document(golden.path / "cohort.json", {**golden.metadata, **new, "schema_version": version})
    for name in ("splits/default", "stats/default", "evaluations/ramps"):
        content = json.loads((golden.path / f"{name}.json").read_text())
        write_document(golden.path / f"{name}.json", {**content, **new})
    volume = golden[ID]
    header = {**volume.attributes["header"], "table_position_m": 0.1}
    source = {**volume.attributes["source"], "size": 7}
    set_root(volume, schema_version=version, header=header, source=source, **new)
    provenance = {**volume["seg/tissue"].provenance, **new}
    labels = {key: {**value, "colour": "red"} for key, value in volume["seg/tissue"].attributes["labels"].items()}
    set_element(volume, "seg/tissue", provenance=provenance, labels=labels, **new)
    index = golden.path / "index.jsonl"
    rows = [{**json.loads(line), **new} for line in index.read_text().splitlines()]
    rows[0]["elements"]["recon/rss"]["bytes"] = 3
    index.write_text("".join(json.dumps(row) + "\n" for row in rows))

    cohort = open_cohort(golden.path)
    assert cohort.metadata["later"] == new["later"]
    assert cohort[ID].header.te_s == (0.03,)
    assert cohort[ID].source.uri == "ramp.h5"
    assert cohort[ID].attributes["later"] == new["later"]
    element = cohort[ID]["seg/tissue"]
    np.testing.assert_array_equal(element.numpy(), EXPECTED["seg/tissue"][0])
    assert element.attributes["later"] == new["later"]
    assert element.labels[1] == {"name": "grey matter", "colour": "red"}
    assert cohort.split().train == ("sub-01",)
    assert cohort.evaluations()["ramps"]["rows"][0]["psnr"] == 30.5
    assert read_statistics(cohort)["fields"]["image/t1"]["n"] == 40
    assert [row.id for row in query_index(cohort, element="recon/rss")] == [ID]
    report = verify(cohort)
    assert report.problems == []


def test_a_further_array_of_an_element_is_ignored(golden):
    element = golden[ID]["recon/rss"]
    shutil.copytree(element.folder / "data", element.folder / "weights")
    write_group(element.folder, element.attributes, ("data", "weights"))
    np.testing.assert_array_equal(golden[ID]["recon/rss"].numpy(), EXPECTED["recon/rss"][0])
    assert verify(golden).ok


def test_older_elements_are_brought_to_the_present_by_their_reader(golden, monkeypatch):
    """A type at version 2 reads elements of version 1 through a function of the registry."""
    before = (golden[ID]["recon/rss"].folder / "zarr.json").read_bytes()
    monkeypatch.setitem(ELEMENT_TYPES, "recon", dataclasses.replace(ELEMENT_TYPES["recon"], version=2))
    monkeypatch.setitem(STEPS, ("recon", 1), lambda old: {**old, "scale": old.get("scale", 1.0)})
    element = golden[ID]["recon/rss"]
    assert (element.attributes["type_version"], element.attributes["scale"]) == (2, 1.0)
    np.testing.assert_array_equal(element.numpy(), EXPECTED["recon/rss"][0])
    assert (element.folder / "zarr.json").read_bytes() == before
    assert "scale" not in golden[ID]["image/t1"].attributes


@pytest.mark.parametrize("version", ["", "1", "one", "1.0.0", "-1.0", " 1.0", None, 1.0])
def test_a_version_that_is_none_is_damage(golden, version):
    set_root(golden[ID], schema_version=version)
    with pytest.raises(CorruptElementError, match=r"schema_version: expected major\.minor, got"):
        golden[ID]
    write_document(golden.path / "cohort.json", {**golden.metadata, "schema_version": version})
    with pytest.raises(CorruptElementError, match=r"schema_version: expected major\.minor, got"):
        open_cohort(golden.path)
    assert len(verify(golden.path).problems) == 2


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, None, True])
def test_a_type_version_that_is_none_is_damage(golden, version):
    set_element(golden[ID], "recon/rss", type_version=version)
    with pytest.raises(CorruptElementError, match="type and type_version: expected a name and a positive integer"):
        golden[ID]["recon/rss"]
    assert [problem.element for problem in verify(golden).problems] == ["recon/rss"]


def test_writers_emit_the_present_version(golden, made):
    volume = golden[ID]
    volume.write("recon/new", np.ones((2, 4, 5), np.float32), provenance=made)
    stored = json.loads((volume.path / "recon" / "new" / "zarr.json").read_text())["attributes"]["mri"]
    assert stored["type_version"] == 1
    with golden.create_volume("sub-03_acq-a_run-1", subject_id="sub-03") as new:
        pass
    assert new.attributes["schema_version"] == SCHEMA_VERSION == "1.1"
    assert [row.id for row in build_index(golden)] == golden.volume_ids()
    assert verify(golden).ok
