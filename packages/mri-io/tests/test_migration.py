"""Migration: the golden cohort of the first version becomes one of the present, whole or not at all, node by node."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from mri_io import open_cohort, verify
from mri_io.config import config_hash
from mri_io.convert import convert
from mri_io.convert.planning import plan_conversion
from mri_io.errors import ConfigError, CorruptElementError, VersionError
from mri_io.schema import SCHEMA_VERSION
from mri_io.schema.elements import ELEMENT_TYPES
from mri_io.schema.readers import STEPS, read_current_root
from mri_io.store import build_index, collect_garbage, migrate
from mri_io.store.documents import write_document
from mri_io.store.metadata import group_text, write_group
from mri_io.testing.raw_files import random_kspace, write_fastmri

GOLDEN = Path(__file__).parent / "golden"
IDS = ("sub-01_ses-1_acq-ramp_run-1", "sub-02_ses-1_acq-ramp_run-1")
UPGRADE = r"Upgrade it: pip install --upgrade mri-io"


@pytest.fixture
def old(tmp_path) -> Path:
    """A copy of the golden cohort of the first version."""
    return shutil.copytree(GOLDEN / "store-1.0", tmp_path / "old")


def values(path: Path) -> dict[tuple[str, str, str], np.ndarray]:
    """Return every array of a cohort."""
    return {
        (volume.id, name, key): array[...]
        for volume in open_cohort(path).volumes()
        for name, element in volume.elements().items()
        for key, array in element.arrays.items()
    }


def attributes(path: Path) -> dict[tuple[str, str], dict]:
    return {
        (volume.id, name): element.attributes
        for volume in open_cohort(path).volumes()
        for name, element in volume.elements().items()
    }


def files(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def stored(path: Path) -> dict:
    """Return our attributes in a group's file, read by nothing of ours."""
    return json.loads((path / "zarr.json").read_text())["attributes"]["mri"]


def assert_same(path: Path, before: dict) -> None:
    now = values(path)
    assert now.keys() == before.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(now[key], array, err_msg=str(key))


def test_the_first_version_becomes_the_present_one(old):
    data, described, before = values(old), attributes(old), files(old)
    report = migrate(old)
    assert str(report) == "2 of 2 volumes and 1 element brought to version 1.1"
    assert [str(change) for change in report.changes] == [
        f"{IDS[0]} emb/vit/block-1: emb 1 -> emb 2",
        f"{IDS[0]}: 1.0 -> 1.1",
        f"{IDS[1]}: 1.0 -> 1.1",
        "cohort.json: 1.0 -> 1.1",
    ]
    assert_same(old, data)
    checked = verify(old)
    assert (checked.problems, checked.orphans, checked.stale) == ([], [], [])
    assert json.loads((old / "cohort.json").read_text())["schema_version"] == SCHEMA_VERSION
    for volume_id in IDS:
        volume = old / "volumes" / f"{volume_id}.zarr"
        assert stored(volume)["schema_version"] == SCHEMA_VERSION
    assert stored(old / "volumes" / f"{IDS[0]}.zarr" / "emb" / "vit" / "block-1")["type_version"] == 2
    # Nothing but that has changed: neither data nor commits nor any other attribute.
    changed = {name for name, content in files(old).items() if before.get(name) != content}
    assert changed == {
        "cohort.json",
        *(f"volumes/{volume_id}.zarr/zarr.json" for volume_id in IDS),
        f"volumes/{IDS[0]}.zarr/emb/vit/block-1/zarr.json",
    }
    assert attributes(old) == {
        key: {**found, "metadata_sha256": attributes(old)[key]["metadata_sha256"]} for key, found in described.items()
    }
    assert [row.id for row in build_index(open_cohort(old))] == list(IDS)


def test_a_second_run_does_nothing(old):
    migrate(old)
    before = {path: path.stat().st_mtime_ns for path in old.rglob("zarr.json")}
    report = migrate(open_cohort(old))
    assert (report.changes, str(report)) == ([], "0 of 2 volumes and 0 elements brought to version 1.1")
    assert {path: path.stat().st_mtime_ns for path in old.rglob("zarr.json")} == before
    present = shutil.copytree(GOLDEN / "store-1.1", old.with_name("present"))
    assert migrate(present).changes == []


def test_a_dry_run_lists_and_changes_nothing(old):
    before = files(old)
    report = migrate(old, dry_run=True)
    assert len(report.changes) == 4
    assert str(report) == "2 of 2 volumes and 1 element would be brought to version 1.1"
    assert files(old) == before


def test_steps_of_several_versions_and_unknown_attributes(old, monkeypatch):
    """Each step is applied once, in order; what this release does not know is kept."""
    monkeypatch.setitem(ELEMENT_TYPES, "recon", dataclasses.replace(ELEMENT_TYPES["recon"], version=3))
    monkeypatch.setitem(STEPS, ("recon", 1), lambda found: {**found, "history": ["one"]})
    monkeypatch.setitem(STEPS, ("recon", 2), lambda found: {**found, "history": [*found["history"], "two"]})
    volume = open_cohort(old)[IDS[0]]
    write_group(volume.path / "recon/rss", {**volume["recon/rss"].attributes, "type_version": 1, "later": 7}, ("data",))
    (volume.path / "zarr.json").write_text(group_text({**volume.attributes, "later": [None]}))
    migrate(old)
    found = stored(volume.path / "recon" / "rss")
    assert (found["type_version"], found["history"], found["later"]) == (3, ["one", "two"], 7)
    assert stored(volume.path)["later"] == [None]
    assert verify(old).ok


@pytest.mark.parametrize("version", ["2.0", "1.2", "1.10"])
@pytest.mark.parametrize("what", ["cohort", "volume"])
def test_a_store_of_the_future_is_refused_before_anything_changes(old, version, what):
    cohort = open_cohort(old)
    last = cohort[IDS[1]]
    if what == "cohort":
        write_document(old / "cohort.json", {**cohort.metadata, "schema_version": version})
    else:
        (last.path / "zarr.json").write_text(group_text({**last.attributes, "schema_version": version}))
    before = files(old)
    with pytest.raises(VersionError, match=rf"written with store version {version}, .*{UPGRADE}"):
        migrate(old)
    assert files(old) == before


def test_an_element_of_the_future_or_damage_is_refused_before_anything_changes(old):
    volume = open_cohort(old)[IDS[0]]
    original = volume["recon/rss"].attributes
    write_group(volume.path / "recon/rss", {**original, "type_version": 2}, ("data",))
    before = files(old)
    with pytest.raises(VersionError, match=f"recon/rss: element type 'recon' version 2; .*{UPGRADE}"):
        migrate(old)
    assert files(old) == before
    write_group(volume.path / "recon/rss", original, ("data",))
    text = (volume.path / "seg/tissue/zarr.json").read_text()
    (volume.path / "seg/tissue/zarr.json").write_text(text.replace("grey", "gray"))
    before = files(old)
    with pytest.raises(CorruptElementError, match=r"seg/tissue/zarr\.json: the metadata do not match their seal"):
        migrate(old)
    assert files(old) == before


@pytest.mark.parametrize("golden", ["store-1.0", "store-1.1"])
def test_a_damaged_document_is_refused_and_gets_no_new_seal(tmp_path, golden):
    """One bit of cohort.json has flipped; an edit on purpose, without a seal, is taken."""
    path = shutil.copytree(GOLDEN / golden, tmp_path / "old")
    document = path / "cohort.json"
    content = {**open_cohort(path).metadata, "license": "CC-BY"}
    write_document(document, content)
    document.write_text(document.read_text().replace("CC-BY", "CC-BX"))
    before = files(path)
    for dry_run in (True, False):
        with pytest.raises(CorruptElementError, match=r"cohort\.json: the content does not match its seal"):
            migrate(path, dry_run=dry_run)
    assert files(path) == before
    document.write_text(json.dumps({**content, "license": "CC-BZ"}))
    migrate(path)
    assert open_cohort(path).metadata["license"] == "CC-BZ"
    assert verify(path).ok


def test_elements_of_unknown_types_stay_as_they_are(old):
    volume = open_cohort(old)[IDS[0]]
    shutil.copytree(volume.path / "recon" / "rss", volume.path / "spectrum")
    write_group(volume.path / "spectrum", {**volume["recon/rss"].attributes, "type": "spectrum"}, ("data",))
    before = (volume.path / "spectrum" / "zarr.json").read_bytes()
    assert len(migrate(old).changes) == 4
    assert (volume.path / "spectrum" / "zarr.json").read_bytes() == before


def test_versions_without_a_step_are_refused(old):
    volume = open_cohort(old)[IDS[0]]
    (volume.path / "zarr.json").write_text(group_text({**volume.attributes, "schema_version": "0.9"}))
    before = files(old)
    with pytest.raises(VersionError, match=r"store version 0\.9 can no longer be brought to 1\.1"):
        migrate(old)
    assert files(old) == before


@pytest.mark.parametrize("url", ["s3://bucket/cohort", "https://host/cohort"])
def test_object_stores_are_refused_by_name(url):
    with pytest.raises(ConfigError, match=f"migrate: expected a cohort on a local disk, got {url}"):
        migrate(url)


def migrate_and_die(path: Path, call: int) -> int:
    """Migrate in a child that is killed at the given rename; return its exit status."""
    child = os.fork()
    if child == 0:
        left, rename = call, os.replace

        def dying(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*arguments, **options)

        os.replace = dying
        try:
            migrate(path)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_any_rename_every_node_is_old_or_new_and_readable(tmp_path):
    data = values(GOLDEN / "store-1.0")
    seen = set()
    for call in range(1, 100):
        path = shutil.copytree(GOLDEN / "store-1.0", tmp_path / str(call))
        status = migrate_and_die(path, call)
        report = verify(path)
        assert report.problems == []
        assert_same(path, data)
        versions = [stored(file.parent) for file in sorted(path.rglob("zarr.json")) if "mri" in file.read_text()]
        versions = [found.get("schema_version", found.get("type_version")) for found in versions if found]
        seen.add(tuple(versions))
        migrate(path)
        collect_garbage(open_cohort(path))
        done = verify(path)
        assert (done.problems, done.orphans, done.stale) == ([], [], [])
        assert migrate(path).changes == []
        assert_same(path, data)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert len(seen) == 4  # nothing, the element, its volume, the other volume


def test_a_migrated_volume_is_known_again_when_its_source_is_converted_again(tmp_path):
    source = write_fastmri(tmp_path / "sub-01.h5", random_kspace((2, 2, 8, 8)))
    convert([source], tmp_path / "c", progress=False)
    cohort = open_cohort(tmp_path / "c")
    (volume,) = cohort.volumes()
    # As the first version would have written it: the hash of the settings covers the version.
    from mri_io.formats import find_items

    (task,) = plan_conversion(find_items([source]), cohort, None)
    converter = {**volume.attributes["converter"], "config_hash": config_hash(task.settings("1.0"))}
    (volume.path / "zarr.json").write_text(
        group_text({**volume.attributes, "schema_version": "1.0", "converter": converter})
    )
    assert len(migrate(tmp_path / "c").changes) == 1
    assert stored(volume.path)["converter"] == {**converter, "schema_version": "1.0"}
    assert convert([source], tmp_path / "c", progress=False).count("skipped") == 1


def test_the_version_of_the_conversion_is_that_of_the_first():
    steps = {"1.0": ("1.05", dict), "1.05": (SCHEMA_VERSION, lambda found: {**found, "new": True})}
    start = {"schema_version": "1.0", "converter": {"config_hash": "a"}}
    found = read_current_root(start, steps, "here")
    assert found == {
        "schema_version": SCHEMA_VERSION,
        "converter": {"config_hash": "a", "schema_version": "1.0"},
        "new": True,
    }
    assert start == {"schema_version": "1.0", "converter": {"config_hash": "a"}}
    assert read_current_root(found, steps, "here") == found
