"""Cohorts: volumes come and go, the index is a cache, gc removes what is dead and nothing that lives, failures last."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mri_io import create_cohort, open_cohort, verify
from mri_io.errors import CorruptElementError, ElementExistsError, ElementNotFoundError, SchemaError, StoreError
from mri_io.schema import Source
from mri_io.store import Split, build_index, collect_garbage, open_volume, query_index
from mri_io.store import cohort as cohort_module
from mri_io.store import volume as volume_module
from mri_io.store.damage import DamageError
from mri_io.store.documents import write_document
from mri_io.store.index import read_index
from mri_io.testing import flip_bit

IMAGE = np.ones((3, 10, 8), np.float32)


def test_creating_and_opening(tmp_path):
    made = create_cohort(tmp_path / "a", name="brains", license="CC-BY-4.0", source_url="https://example.org")
    assert create_cohort(tmp_path / "a", name="other").name == "brains"  # opens what is there
    opened = open_cohort(str(tmp_path / "a"))
    assert opened.metadata == made.metadata
    assert opened.metadata["license"] == "CC-BY-4.0"
    assert (len(opened), opened.volume_ids(), opened.volumes()) == (0, [], [])
    with pytest.raises(ElementExistsError, match=r"a: there is a cohort already\. Open it, or choose another"):
        create_cohort(tmp_path / "a", exist_ok=False)
    assert create_cohort(tmp_path / "b").name == "b"


def test_what_is_no_cohort(tmp_path):
    with pytest.raises(StoreError, match=r"x: there is no cohort here \(no cohort\.json\)\. Make one: mri-cli convert"):
        open_cohort(tmp_path / "x")
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(StoreError, match="expected a new or empty folder for the cohort, found other files"):
        create_cohort(tmp_path)
    with pytest.raises(StoreError, match="expected a new or empty folder"):
        create_cohort(tmp_path / "note.txt")
    with pytest.raises(StoreError, match="there is no cohort here"):
        open_cohort(tmp_path / "note.txt")
    (tmp_path / "cohort.json").write_text('{"schema_version": "1.0"}')
    with pytest.raises(SchemaError, match="'name' is a required property"):
        open_cohort(tmp_path)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_what_a_killed_process_left_is_made_whole(tmp_path):
    """It had made the folder of volumes, perhaps written its document, and not yet given that its name."""
    for name, left in {"a": ["volumes"], "b": ["volumes", ".cohort.json.0123"]}.items():
        (tmp_path / name / left[0]).mkdir(parents=True)
        for file in left[1:]:
            (tmp_path / name / file).write_text('{"na')
        assert create_cohort(tmp_path / name).volume_ids() == []
        assert verify(tmp_path / name).ok
    (tmp_path / "c/volumes/mine").mkdir(parents=True)
    with pytest.raises(StoreError, match="expected a new or empty folder"):
        create_cohort(tmp_path / "c")


def test_another_process_makes_the_same_cohort(tmp_path, monkeypatch):
    (tmp_path / "c/other").mkdir(parents=True)
    looked = Path.iterdir

    def meanwhile(folder):
        monkeypatch.undo()
        write_document(tmp_path / "c/cohort.json", create_cohort(tmp_path / "model", name="theirs").metadata)
        (tmp_path / "c/volumes").mkdir()
        return looked(folder)

    monkeypatch.setattr(Path, "iterdir", meanwhile)
    assert create_cohort(tmp_path / "c", name="mine").name == "theirs"


def test_volumes_come_and_go(tiny):
    assert tiny.volume_ids() == [f"sub-0{n}_acq-tiny_run-1" for n in (1, 2, 3)]
    first = tiny.volume_ids()[0]
    assert (first in tiny, "sub-09_acq-tiny_run-1" in tiny, tiny.state(first)) == (True, False, "committed")
    assert [volume.id for volume in tiny.volumes("default", "test")] == ["sub-03_acq-tiny_run-1"]
    with pytest.raises(ElementNotFoundError, match=r"no volume 'x'\. It has 3 volumes: sub-01_acq-tiny_run-1, sub"):
        tiny["x"]
    tiny.remove_volume(first)
    assert (tiny.state(first), len(tiny)) == ("absent", 2)
    with pytest.raises(ElementNotFoundError, match="no volume 'sub-01"):
        tiny.remove_volume(first)
    with pytest.raises(ElementNotFoundError, match="there is no committed volume"):
        open_volume(tiny.path / "volumes" / f"{first}.zarr")
    (tiny.path / "volumes" / f"{first}.zarr").mkdir()
    assert (tiny.state(first), len(tiny), first in tiny) == ("orphan", 2, False)
    with tiny.create_volume(first, subject_id="sub-01"):
        pass
    assert tiny.state(first) == "committed"


@pytest.mark.parametrize("volume_id", ["..", "", ".", "../volumes/sub-01_acq-tiny_run-1", "/"])
def test_odd_ids_are_no_volumes(tiny, volume_id):
    assert volume_id not in tiny
    with pytest.raises(ElementNotFoundError):
        tiny[volume_id]
    with pytest.raises(ElementNotFoundError):
        tiny.remove_volume(volume_id)
    assert len(tiny) == 3


def test_a_damaged_volume_is_an_error_unless_it_is_asked_for(tiny):
    ids = tiny.volume_ids()
    flip_bit(tiny.volumes_path / f"{ids[1]}.zarr" / "zarr.json", 200)
    (tiny.volumes_path / "orphan.zarr").mkdir()
    with pytest.raises(CorruptElementError, match=ids[1]):
        tiny.volumes()
    damaged = {}
    assert [volume.id for volume in tiny.volumes(on_damage=damaged.__setitem__)] == [ids[0], ids[2]]
    assert [(name, type(error)) for name, error in damaged.items()] == [(ids[1], DamageError)]
    assert [volume.id for volume in tiny.volumes("default", "train")] == [ids[0]]  # it is of another part
    with pytest.raises(CorruptElementError):
        tiny.volumes("default", "val")


def test_volumes_that_are_removed_while_they_are_listed_are_left_out(tiny, monkeypatch):
    ids = tiny.volume_ids()
    opened = cohort_module.open_volume

    def open_and_remove(folder):
        volume = opened(folder)
        if volume.id == ids[0]:
            tiny.remove_volume(ids[1])
        return volume

    monkeypatch.setattr(cohort_module, "open_volume", open_and_remove)
    assert [volume.id for volume in tiny.volumes()] == [ids[0], ids[2]]


def test_no_element_joins_the_volume_that_takes_the_place_of_its_own(tiny, made, monkeypatch):
    first = tiny.volumes()[0]
    publish = volume_module.publish
    others = []

    def replace_volume():
        tiny.remove_volume(first.id)
        with tiny.create_volume(first.id, subject_id="sub-01") as volume:
            volume.write("image/new", IMAGE, provenance=made)

    def publish_late(folder, target, *, replace=False):
        if target.name == "late":  # between the look at the volume and the publication in it
            others.append(threading.Thread(target=replace_volume))
            others[0].start()
            others[0].join(0.5)
        publish(folder, target, replace=replace)

    monkeypatch.setattr(volume_module, "publish", publish_late)
    with first.writer("image/late", shape=IMAGE.shape, dtype=IMAGE.dtype, provenance=made) as writer:
        writer.append(IMAGE)
    others[0].join(20)
    assert not others[0].is_alive()
    assert list(tiny[first.id].elements()) == ["image/new"]


def test_the_index_tells_what_the_volumes_hold(tiny):
    rows = build_index(tiny)
    assert [row.id for row in rows] == tiny.volume_ids()
    lines = [json.loads(line) for line in (tiny.path / "index.jsonl").read_text().splitlines()]
    for volume, line in zip(tiny.volumes(), lines, strict=True):
        assert (line["id"], line["subject"]) == (volume.id, volume.subject_id)
        for path, element in volume.elements().items():
            stored = line["elements"].pop(path)
            assert (tuple(stored["shape"]), stored["dtype"]) == (element.shape, str(element.dtype))
            assert (tuple(stored["dims"]), stored["commit"]) == (element.dims, element.commit)
        assert line["elements"] == {}
    assert [line["split"] for line in lines] == [{"default": part} for part in ("train", "val", "test")]


def test_queries(tiny, made):
    tiny.volumes()[1].write("image/t2", IMAGE[:, :5], provenance=made)
    tiny.write_split(Split(name="other", train=("sub-03",)))
    build_index(tiny)
    ids = lambda **conditions: [row.subject[-1] for row in query_index(tiny, **conditions)]  # noqa: E731
    assert ids() == ["1", "2", "3"]
    assert ids(subject="sub-02") == ["2"]
    assert ids(part="train") == ["1"]
    assert ids(split="other", part="train") == ["3"]
    assert ids(split="unknown", part="train") == []
    assert ids(element="image/t2") == ["2"]
    assert ids(element="kspace", shape=(3, None, 10, 8)) == ["1", "2", "3"]
    assert ids(element="kspace", shape=(3, None, 8, 10)) == ids(element="kspace", shape=(3, 2, 10)) == []
    assert ids(where=lambda row: len(row.elements) > 5) == ["2"]
    assert ids(subject="sub-01", part="test") == []


def test_an_old_index_misleads_nobody_but_queries(tiny, made):
    build_index(tiny)
    volume = tiny.volumes()[0]
    new = volume.write("image/t1", volume["image/t1"].numpy(), provenance=made, replace=True)
    tiny.remove_volume(tiny.volume_ids()[2])
    assert [row.id for row in query_index(tiny)] != tiny.volume_ids()  # it is a cache
    assert len(tiny.volumes()) == 2
    assert volume["image/t1"].commit == new.commit
    assert verify(tiny).ok
    (row, _) = build_index(tiny)
    assert row.elements["image/t1"].commit == new.commit
    assert [row.id for row in query_index(tiny)] == tiny.volume_ids()


@pytest.mark.parametrize("content", [None, b'{"id": "a"', b'{"id": 3}\n', b"\xff\n", b"[]\n"])
def test_an_index_that_cannot_be_read_is_rebuilt_by_command(tiny, content):
    if content is not None:
        (tiny.path / "index.jsonl").write_bytes(content)
    with pytest.raises(StoreError, match=r"index\.jsonl: (?s:.*)[Bb]uild (it|the index): mri-cli index .*tiny"):
        read_index(tiny)
    with pytest.raises(StoreError):
        list(query_index(tiny))
    assert len(tiny.volumes()) == 3
    build_index(tiny)
    assert len(read_index(tiny)) == 3


def litter(cohort) -> list:
    """Leave behind what dead writers leave; return it."""
    staging = cohort.path / "volumes" / ".staging"
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = staging / f"{'0' * 32}-{socket.gethostname()}-{process.pid}"
    (dead / "node").mkdir(parents=True)
    (dead / "node" / "data").write_bytes(b"half")
    (dead / ".owner").touch()
    killed_early = staging / f"{'1' * 32}-{socket.gethostname()}-{process.pid}"
    killed_early.mkdir()
    orphan = cohort.path / "volumes" / "sub-77_acq-a_run-1.zarr"
    (orphan / "kspace" / "data" / "c").mkdir(parents=True)
    in_volume = cohort.volumes()[0].path / "recon" / "half"
    (in_volume / "data" / "c").mkdir(parents=True)
    return [dead, killed_early, orphan, in_volume]


def test_gc_removes_what_is_dead_and_nothing_else(tiny, monkeypatch):
    dead = litter(tiny)
    kept = [tiny.path / "notes.md", tiny.path / ".hidden", tiny.path / "runs", tiny.path / "volumes" / "README"]
    for path in kept:
        path.mkdir() if path.name == "runs" else path.touch()
    before = sorted(tiny.path.rglob("*"))
    assert sorted(collect_garbage(tiny, dry_run=True)) == sorted(dead)
    assert sorted(tiny.path.rglob("*")) == before
    assert sorted(verify(tiny).orphans) == sorted(dead)
    assert verify(tiny).ok
    assert sorted(collect_garbage(tiny)) == sorted(dead)
    assert not any(path.exists() for path in dead)
    assert all(path.exists() for path in kept)
    report = verify(tiny)
    assert (report.ok, report.orphans, report.volumes, report.elements) == (True, [], 3, 15)
    assert collect_garbage(tiny) == []


def test_gc_of_other_machines_waits(tiny):
    folder = tiny.path / "volumes" / ".staging" / f"{'2' * 32}-elsewhere-1"
    (folder / "node").mkdir(parents=True)
    assert collect_garbage(tiny) == []
    hours = time.time() - 3600 * 30
    for path in (folder / "node", folder):
        os.utime(path, (hours, hours))
    assert collect_garbage(tiny, older_than_s=3600 * 40) == []
    assert collect_garbage(tiny) == [folder]


def test_gc_of_temporary_files(tiny):
    names = [f".cohort.json.{'a' * 32}", f"splits/.default.json.{'b' * 32}", f"evaluations/.x.csv.{'c' * 32}"]
    (tiny.path / "evaluations").mkdir()
    for name in names:
        (tiny.path / name).touch()
    assert collect_garbage(tiny) == []
    assert collect_garbage(tiny, older_than_s=-1) == [tiny.path / name for name in names]
    assert tiny.split().train == ("sub-01",)


def test_gc_leaves_living_writers_alone(tiny, made):
    volume = tiny.volumes()[0]
    with tiny.create_volume("sub-09_acq-a_run-1", subject_id="sub-09") as new:
        new.write("recon/a", IMAGE, provenance=made)
        with volume.writer("recon/slow", shape=IMAGE.shape, dtype="float32", provenance=made) as writer:
            writer.append(IMAGE[:1])
            assert collect_garbage(tiny, older_than_s=-1) == []
            writer.append(IMAGE[1:])
    assert len(tiny) == 4
    np.testing.assert_array_equal(volume["recon/slow"].numpy(), IMAGE)
    assert verify(tiny).orphans == []


LIVING = """
import sys
import numpy as np
from mri_io import open_cohort
from mri_io.schema import Provenance

volume = open_cohort(sys.argv[1]).volumes()[0]
made = Provenance(method="test", package="mri-io", version="0")
with volume.writer("recon/slow", shape=(3, 10, 8), dtype="float32", provenance=made) as writer:
    print("ready", flush=True)
    sys.stdin.readline()
    writer.append(np.ones((3, 10, 8), np.float32))
"""


def test_gc_leaves_writers_of_other_processes_alone_until_they_die(tiny):
    command = [sys.executable, "-c", LIVING, str(tiny.path)]
    for survives in (True, False):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            assert collect_garbage(tiny, older_than_s=-1) == []
            if survives:
                process.stdin.write(b"\n")
            else:
                process.kill()
        assert len(collect_garbage(tiny)) == (0 if survives else 1)
        assert ("recon/slow" in tiny.volumes()[0]) == survives
        if survives:
            tiny.volumes()[0].remove("recon/slow")
    assert verify(tiny).orphans == []


def test_failures_last_until_they_are_cleared(tiny):
    assert tiny.failures() == []
    volume = tiny.volumes()[0]
    try:
        raise ValueError("größer\nthan expected")
    except ValueError as error:
        tiny.record_failure(volume, error, "calibrate")
    tiny.record_failure("scan.h5", "FormatError: torn", "convert", trace="line 1")
    tiny.record_failure(Source(uri="b.h5", sha256="0" * 64, format="fastmri"), "x", "convert")
    tiny.record_failure(volume, "again", "reconstruct")
    rows = open_cohort(tiny.path).failures()
    assert [(row["item"], row["stage"]) for row in rows] == [
        (volume.id, "calibrate"),
        ("scan.h5", "convert"),
        ("b.h5", "convert"),
        (volume.id, "reconstruct"),
    ]
    assert rows[0]["error"] == "ValueError: größer\nthan expected"
    assert "test_failures_last" in rows[0]["traceback"]
    assert (rows[1]["error"], rows[1]["traceback"]) == ("FormatError: torn", "line 1")
    tiny.clear_failure(volume, "calibrate")
    assert len(tiny.failures()) == 3
    tiny.clear_failure("nothing")
    tiny.clear_failure(volume)
    assert [row["item"] for row in tiny.failures()] == ["scan.h5", "b.h5"]
    assert verify(tiny).ok


def test_a_torn_line_of_failures_costs_only_itself(tiny):
    tiny.record_failure("a", "x", "convert")
    path = tiny.path / "failures.jsonl"
    path.write_bytes(path.read_bytes() + b'{"item": "b", "sta')
    tiny.record_failure("c", "x", "convert")
    assert [row["item"] for row in tiny.failures()] == ["a", "c"]
    tiny.clear_failure("a")
    assert [row["item"] for row in tiny.failures()] == ["c"]


def _record(path: str, name: int) -> None:
    cohort = open_cohort(path)
    for number in range(10):
        cohort.record_failure(f"{name}-{number}", "x" * 500, "convert")
        cohort.record_failure("passing", "x", "convert")
        cohort.clear_failure("passing")


def test_failures_of_many_writers_are_all_kept(tiny):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(_record, [str(tiny.path)] * 3, range(3)))
    assert sorted(row["item"] for row in tiny.failures()) == [f"{n}-{m}" for n in range(3) for m in range(10)]


def test_a_cohort_gives_volumes_and_a_volume_the_paths_of_its_elements(tiny):
    assert [volume.id for volume in tiny] == tiny.volume_ids()
    volume = next(iter(tiny))
    paths = ["image/t1", "kspace", "recon/reference", "seg/tissue", "sens/espirit"]
    assert list(volume) == list(volume.keys()) == paths
    assert {path: element.path for path, element in volume.items()} == dict(zip(paths, paths, strict=True))
    assert dict(volume)["seg/tissue"].commit == volume["seg/tissue"].commit
