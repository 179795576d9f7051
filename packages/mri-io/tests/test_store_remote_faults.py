"""Writers to an object store that are killed at every request, race, or sleep while others take over."""

import json
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import obstore
import pytest
import zarr
from zarr.errors import ZarrUserWarning
from zarr.storage import ObjectStore

from mri_io import create_cohort, open_cohort, verify
from mri_io.errors import ElementExistsError, StoreError
from mri_io.store import collect_garbage
from mri_io.store.metadata import CLAIM
from mri_io.store.remote import claims, commit
from mri_io.store.remote.backends import ConflictError
from mri_io.store.remote.claims import Claim, claim_of
from mri_io.store.remote.object_store import ObjectStoreBackend
from mri_io.store.remote.paths import store_path
from mri_io.store.staging import STAGING, local_staging
from mri_io.testing import writers as writer
from mri_io.testing.waiting import wait_until
from mri_io.testing.writers import BOTH, NEW, OLD, REPLACED, WITHOUT_A, WriterServer, values

LONG = 120.0


@pytest.fixture(scope="module")
def server(s3_server, tmp_path_factory):
    with WriterServer(tmp_path_factory.mktemp("writers") / "errors.txt") as running:
        yield running


@pytest.fixture(scope="module")
def states(s3_server):
    """The objects of a cohort without a volume, of one whose volume has the elements a and b, and of one without a."""
    found, cohort = {}, create_cohort(f"{s3_server.bucket()}/c")
    for name, change in (
        ("empty", lambda: None),
        ("both", lambda: writer.create(cohort, OLD)),
        ("without a", lambda: cohort[writer.ID].remove("recon/a")),
    ):
        change()
        found[name] = {path.key.removeprefix("c/"): path.read_bytes() for path in cohort.path.rglob("*")}
    return found


def restored(url: str, state: dict[str, bytes]):
    """Return a cohort with the objects of another."""
    place = store_path(url)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda item: (place / item[0]).write(item[1]), state.items()))
    return open_cohort(url)


@pytest.fixture
def cohort(bucket, states):
    """A cohort with one volume that has the elements a and b."""
    return restored(f"{bucket}/c", states["both"])


def check_for_others(cohort) -> None:
    """What a plain zarr reader finds, with the copy of metadata and without it, is whole and of one writer."""
    for folder in (cohort.path / "volumes").glob("*.zarr"):
        store = ObjectStore(folder.backend.store, read_only=True)
        for consolidated in (None, False):
            group = zarr.open_group(store, path=folder.key, mode="r", use_consolidated=consolidated)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ZarrUserWarning)  # it names chunks that belong to no array yet
                members = dict(group.members(max_depth=None))
            for path, array in members.items():
                if isinstance(array, zarr.Array):
                    parent = members[path.rpartition("/")[0]]
                    if "mri" in parent.attrs:
                        expected = writer.data(parent.attrs["mri"]["provenance"]["seed"])
                        np.testing.assert_array_equal(array[...], expected)


# operation: (before, after, what may be seen after a kill beside these, every so many requests)
STEPS = {
    "create": ({}, REPLACED, [], 3),
    "write": (WITHOUT_A, {**BOTH, "recon/a": NEW}, [], 2),
    "replace": (BOTH, {**BOTH, "recon/a": NEW}, [WITHOUT_A], 3),
    "replace-volume": (BOTH, REPLACED, [{}], 7),
    "remove": (BOTH, WITHOUT_A, [], 2),
    "remove-volume": (BOTH, {}, [], 4),
}


@pytest.mark.parametrize("operation", list(STEPS))
def test_killed_at_every_request(s3_server, server, states, operation):
    """Whatever request is the last, readers find the old state or the new, or nothing of what was to be replaced."""
    before, after, between, stride = STEPS[operation]
    url = s3_server.bucket()
    for number in count(1, stride):
        state = "both" if before == BOTH else "without a" if before else "empty"
        cohort = restored(f"{url}/{number}", states[state])
        (code,) = server.run(operation, cohort.path, NEW, "kill", number)
        seen = values(cohort)
        assert seen in (before, after, *between)
        check_for_others(cohort)
        report = verify(cohort)
        assert report.ok, report.problems
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if number % 3:  # what gc leaves is clean
            collect_garbage(cohort)
            report = verify(cohort)
            assert (report.ok, report.orphans, report.stale) == (True, [], [])
            assert values(cohort) == seen
        again = operation.replace("replace", "create" if "volume" in operation else "write").removesuffix("-volume")
        if seen == before:
            assert server.run(operation, cohort.path, NEW) == [0]
        elif seen in between:
            assert server.run(again, cohort.path, NEW) == [0]
        else:
            collect_garbage(cohort)  # the writer may have died before it brought the copy in the root up to date
        assert values(cohort) == after
        report = verify(cohort)
        assert (report.ok, report.stale) == (True, [])
        check_for_others(cohort)
    assert number > 3
    assert (report.ok, report.orphans, report.stale) == (True, [], [])


def test_a_killed_writer_leaves_nothing_in_its_way_and_nothing_for_ever(cohort, server, tmp_path, monkeypatch):
    """Its claim is invisible and named as an orphan; so is what it staged here, until the next writer clears it."""
    assert server.run("write-other", cohort.path, 7, "kill", 3) == [-signal.SIGKILL]
    report = verify(cohort)
    assert [path.name for path in report.orphans] == ["x7"]
    assert list((local_staging() / STAGING).glob("*"))
    assert collect_garbage(cohort, dry_run=True) == collect_garbage(cohort)
    assert list((local_staging() / STAGING).glob("*")) == []
    keys = [key for key, _ in cohort.path.backend.walk(f"{cohort.path.key}/")]
    assert not any("x7" in key or "clock" in key for key in keys)
    assert values(cohort) == BOTH


def test_a_dry_run_of_gc_changes_nothing(cohort, s3_server):
    """Not even to learn the server's time, of claims of writers of other machines."""
    target = cohort[writer.ID].path / "recon"
    for name, lease in (("late", -60.0), ("alive", LONG)):
        claim = Claim(target / name)
        claim._process = {**claim._process, "machine": "another"}
        content = json.loads(claim.text())
        content["attributes"][CLAIM]["lease_s"] = max(lease, 0.0)
        (target / name / "zarr.json").write(json.dumps(content).encode())
    time.sleep(1.1)  # the server dates objects by seconds
    before = len(s3_server.requests())
    found = collect_garbage(cohort, dry_run=True)
    assert {method for method, _, _ in s3_server.requests()[before:]} == {"GET"}
    assert found == [target / "late"]
    before = len(s3_server.requests())
    assert collect_garbage(cohort) == found
    assert sum("clock-" in path and method == "PUT" for method, path, _ in s3_server.requests()[before:]) <= 2
    assert values(cohort) == BOTH


def test_what_has_no_metadata_is_collected(cohort):
    """Objects as an interrupted copy leaves them; not what a writer is at work on, nor what lost its metadata."""
    volume = cohort[writer.ID].path
    node = {path.relative_to(volume).as_posix(): path.read_bytes() for path in (volume / "recon" / "a").rglob("*")}
    chunk = next(path.removeprefix("recon/a/") for path in node if "/c/" in path)
    left = ["recon/chunk", "recon/array", "emb/vit/block", "image/deep", "seg/file"]
    (volume / left[0] / chunk).write(b"x")
    (volume / left[1] / "data" / "zarr.json").write(node["recon/a/data/zarr.json"])
    (volume / left[2] / chunk).write(b"x")
    (volume / left[3] / "data" / "zarr.json").write(node["recon/a/data/zarr.json"])
    (volume / left[3] / chunk).write(b"x")
    (volume / left[4] / "notes.txt").write(b"x")
    alone = volume.parent / "sub-07_acq-t1_run-1.zarr"
    (alone / "recon" / "a" / chunk).write(b"x")
    (alone / "recon" / "a" / "data" / "zarr.json").write(node["recon/a/data/zarr.json"])
    claim = Claim.take(volume / "recon" / "alive")
    (volume / "recon" / "alive" / chunk).write(b"x")
    (volume / "mask" / "m" / chunk).write(b"x")
    below = Claim.take(volume / "mask" / "m" / "n")
    (volume / "recon" / "b" / "zarr.json").backend.delete([f"{volume.key}/recon/b/zarr.json"])  # damage
    kept = {path.key for path in volume.rglob("*")} - {path.key for name in left for path in (volume / name).rglob("*")}
    expected = sorted([*(volume / name for name in left), alone])
    assert sorted(collect_garbage(cohort, dry_run=True)) == expected
    assert sorted(collect_garbage(cohort)) == expected
    assert {path.key for path in volume.rglob("*")} == kept
    assert not alone.exists()
    claim.check_now()
    below.check_now()
    for one in (claim, below):
        one.release()
    assert sorted(collect_garbage(cohort)) == [volume / "mask" / "m", volume / "recon" / "alive"]
    report = verify(cohort)
    assert [(problem.element, problem.kind) for problem in report.problems] == [("recon/b", "missing")]
    assert report.orphans == [volume / "recon" / "b"]


def test_two_writers_of_one_volume(s3_server, server):
    """One wins and its data are whole; the other is told before it uploads anything. So with one element.

    Both have seen that there is none and stop right before they claim it: what decides is the condition of that write.
    """
    cohort = create_cohort(f"{s3_server.bucket()}/c")
    for operation, value, expected in (
        ("create+create", 10, ("volume", "recon/a", "recon/b")),
        ("write+write", 15, ("recon/a",)),
    ):
        told = len(server.errors())
        codes = server.woken_together(operation, cohort.path, value, "stop", 1)
        assert sorted(codes) in ([0, writer.EXISTS], [0, writer.REFUSED]), codes
        said = server.errors()[told:]
        assert ("another writer is at work on it" in said) == (writer.REFUSED in codes), said
        assert "taken it over" not in said
        found = values(cohort)
        assert {found[name] for name in expected} == {value + codes.index(0)}
        report = verify(cohort)
        assert (report.ok, report.orphans, report.stale) == (True, [], [])
        cohort[writer.ID].remove("recon/a")


def test_many_writers_of_one_cohort(bucket, server):
    """Volumes of their own, elements of one volume and rows of failures: nothing is lost."""
    cohort = create_cohort(f"{bucket}/c")
    assert server.run("rows+rows+rows", cohort.path, 4) == [0, 0, 0]
    assert [volume.attributes["writer"] for volume in cohort.volumes()] == [4, 5, 6]
    assert {row["item"] for row in cohort.failures()} == {f"{n}-{m}" for n in (4, 5, 6) for m in range(5)}
    writer.create(cohort, OLD)
    assert server.run("write-other+write-other+write-other", cohort.path, 4) == [0, 0, 0]
    assert set(cohort[writer.ID].elements()) == {"recon/a", "recon/b", "recon/x4", "recon/x5", "recon/x6"}
    report = verify(cohort)
    assert (report.ok, report.orphans, report.stale) == (True, [], [])


@pytest.mark.parametrize("operations", ["replace+replace-volume", "write-other+replace-volume", "write-other+remove"])
def test_joining_and_replacing_at_once(s3_server, server, states, operations):
    """An element joins the volume that it was made for, before it is replaced, or it is told; never another."""
    url = s3_server.bucket()
    for number in range(2):
        cohort = restored(f"{url}/{number}", states["both"])
        codes = server.run(operations, cohort.path, NEW)
        assert codes[1] in (0, writer.REFUSED)
        report = verify(cohort)
        assert (report.ok, report.stale) == (True, []), report
        check_for_others(cohort)
        found = values(cohort)
        if operations.endswith("volume") and codes[1] == 0:
            assert found == {"volume": NEW + 1, "recon/a": NEW + 1, "recon/b": NEW + 1}


# Of the writer: 1 claim, 2, 3 the chunks, 4, 5 the arrays, 6, 7 the elements, 8 the group, 9 the commit.
# That with the longest lease does not know that it has lost the claim: only the conditions of writes are in its way.
@pytest.mark.parametrize(
    ("number", "wakes", "lease"), [(2, "after", 1.0), (3, "amid", 1.0), (5, "amid", 60.0), (9, "after", 1.0)]
)
def test_a_stopped_writer_wakes_up_too_late(bucket, states, server, monkeypatch, number, wakes, lease):
    """Another took over while it slept: it commits nothing, overwrites nothing, and says so."""
    cohort, told = restored(f"{bucket}/c", states["empty"]), len(server.errors())
    codes = []
    process = server.stopped("create", cohort.path, NEW, "stop", number, lease)
    claimed = (cohort.volumes_path / f"{writer.ID}.zarr" / "zarr.json").file_stat().modified
    with monkeypatch.context() as clock:
        clock.setattr(claims, "server_time", lambda volumes: claimed + lease / 2)  # however long it took until here
        with pytest.raises(StoreError, match="another writer is at work"):
            writer.create(cohort, 3)
    if number == 9:
        time.sleep(lease + 1.1)  # the server dates objects by seconds
    else:  # instead, the clock of the server goes on, and that of the writer as far as makes it ask
        time.sleep(0.6)
        time_of = claims.server_time
        monkeypatch.setattr(claims, "server_time", lambda volumes: time_of(volumes) + lease + 1.1)

    def wake():
        os.kill(process, signal.SIGCONT)
        codes.extend(server.wait())

    if wakes == "amid":
        send, sent = ObjectStoreBackend.write, []

        def waking(self, key, data, condition="any"):
            if "/c/0" in key:
                sent.append(key)
                if len(sent) == 2:
                    wake()
            return send(self, key, data, condition)

        monkeypatch.setattr(ObjectStoreBackend, "write", waking)
    writer.create(cohort, 3)
    if wakes == "after":
        wake()
    assert codes == [writer.REFUSED]
    said = "another writer has taken it over" if lease < 10 else "Run the step again"
    assert said in server.errors()[told:]
    assert values(cohort) == {"volume": 3, "recon/a": 3, "recon/b": 3}
    report = verify(cohort)
    assert (report.ok, report.orphans, report.stale) == (True, [], [])


def test_a_writer_that_slept_goes_on_when_nobody_took_over(bucket, states, server):
    cohort = restored(f"{bucket}/c", states["empty"])
    process = server.stopped("create", cohort.path, NEW, "stop", 4, 1.0)
    time.sleep(1.1)
    os.kill(process, signal.SIGCONT)
    assert server.wait() == [0]
    assert values(cohort) == REPLACED


def test_a_claim_is_renewed_while_its_writer_works(cohort, monkeypatch):
    """An upload may take longer than the lease."""
    monkeypatch.setattr(claims, "LEASE_S", 1.2)
    target = cohort[writer.ID].path / "recon" / "slow"
    claim = Claim.take(target)
    try:
        first = (target / "zarr.json").file_stat()
        time.sleep(1.6)
        wait_until(lambda: claim_of((target / "zarr.json").read_bytes())["renewal"] > 2)
        raw, stat = (target / "zarr.json").read()
        assert stat.tag != first.tag
        assert claim_of(raw)["renewal"] > 2
        with pytest.raises(StoreError, match="at work on it: process"):
            Claim.take(target)
        claim.check()
    finally:
        claim.remove()
    assert not target.exists()


def test_the_answer_to_a_request_is_lost(cohort, monkeypatch):
    """A write that was done, but seemed to fail, is neither taken for another's nor done twice."""
    send, lost = ObjectStoreBackend.write, []

    def losing(self, key, data, condition="any"):
        tag = send(self, key, data, condition)
        if key not in lost:
            lost.append(key)
            if len(lost) % 2 and isinstance(data, bytes):
                raise StoreError("the connection was closed")
            raise ConflictError("tried again by the library: the condition holds no more")
        return tag

    monkeypatch.setattr(ObjectStoreBackend, "write", losing)
    for number in range(5):
        with suppress(StoreError):
            writer.write(cohort, 40 + number, name=f"n{number}")
    monkeypatch.undo()
    found = values(cohort)
    assert found["recon/n1"] == 41
    report = verify(cohort)
    assert (report.ok, report.problems) == (True, [])


def test_what_fails_on_the_way_leaves_nothing(cohort, monkeypatch):
    """The server refuses an object: an error, no orphan, and what only was to be replaced is there unless it began."""
    send = ObjectStoreBackend.write

    def refusing(self, key, data, condition="any"):
        if isinstance(data, Path):
            raise StoreError(f"{key}: 503 slow down")
        return send(self, key, data, condition)

    monkeypatch.setattr(ObjectStoreBackend, "write", refusing)
    with pytest.raises(StoreError, match="slow down"):
        writer.write(cohort, NEW, name="n")
    monkeypatch.undo()
    report = verify(cohort)
    assert (report.ok, report.orphans, report.stale) == (True, [], [])
    assert values(cohort) == BOTH
    former = cohort[writer.ID]["recon/a"].commit

    def failing():
        raise StoreError("the volume is another")

    with tempfile.TemporaryDirectory() as folder:
        node = Path(folder, "node")
        local = create_cohort(Path(folder, "c"))
        writer.create(local, NEW)
        shutil.copytree(local[writer.ID].path / "recon" / "a", node)
        with pytest.raises(StoreError, match="is another"):
            commit.publish(node, cohort[writer.ID].path / "recon" / "a", replace=True, check=failing)
    assert cohort[writer.ID]["recon/a"].commit == former
    assert values(cohort) == BOTH


def test_readers_meet_a_replacement_in_every_state(cohort):
    """While an element is replaced again and again, a reader sees one whole version, none, or StoreError."""
    done, seen = threading.Event(), set()

    def replace():
        try:
            for value in range(100, 106):
                writer.write(cohort, value, replace=True)
        finally:
            done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    while not done.is_set():
        volume = cohort[writer.ID]
        try:
            element = volume["recon/a"]
            found = element.numpy()
        except StoreError:
            continue
        seen.add(element.provenance["seed"])
        np.testing.assert_array_equal(found, writer.data(element.provenance["seed"]))
    thread.join()
    assert len(seen) > 1
    assert values(cohort)["recon/a"] == 105
    with pytest.raises(ElementExistsError):
        writer.write(cohort, NEW)


def test_conditions_are_those_of_the_server(bucket):
    """What all this rests on: a write on a condition that does not hold changes nothing."""
    store = create_cohort(f"{bucket}/c").path / "x"
    tag = store.write(b"one", "absent")
    for condition in ("absent", '"other"'):
        with pytest.raises(ConflictError):
            store.write(b"two", condition)
    assert store.read_bytes() == b"one"
    store.write(b"two", tag)
    with pytest.raises(ConflictError):
        store.write(b"three", tag)
    assert obstore.head(store.backend.store, store.key)["size"] == 3
    assert store.read_bytes() == b"two"
