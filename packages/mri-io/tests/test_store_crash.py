"""Crashes: writers die at every step and at random moments, race, and meet full disks; readers see whole elements."""

import ctypes
import os
import shutil
import signal
import sys
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from mri_io import create_cohort, open_cohort, verify
from mri_io.errors import StoreError
from mri_io.store import collect_garbage, commit
from mri_io.testing import full_disk
from mri_io.testing import writers as writer
from mri_io.testing.writers import BOTH, NEW, OLD, REPLACED, WITHOUT_A, WriterServer, values


def can_swap() -> bool:
    """Whether two folders can change places in one step here; macOS and Linux on local disks can, NFS cannot."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        for path in (first, second):
            path.mkdir()
        return commit._exchange(first, second)


NEEDS_SWAP = pytest.mark.skipif(
    not can_swap(), reason="folders cannot be swapped here: what is replaced is away for a moment (without-exchange)"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with WriterServer(tmp_path_factory.mktemp("writers") / "errors.txt") as running:
        yield running


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A cohort with one volume that has the elements a and b."""
    cohort = create_cohort(tmp_path_factory.mktemp("crash") / "c")
    writer.create(cohort, OLD)
    return cohort


STRIDE = {"write": 2, "replace": 2, "create": 5, "replace-volume": 5}  # every so many calls, for those that make many
# operation: (before, after, what may be seen in between until garbage collection completes it)
STEPS = {
    "write": (WITHOUT_A, {**BOTH, "recon/a": NEW}, []),
    "replace": (BOTH, {**BOTH, "recon/a": NEW}, []),
    "without-exchange": (BOTH, {**BOTH, "recon/a": NEW}, [WITHOUT_A]),
    "remove": (BOTH, WITHOUT_A, []),
    "create": ({}, REPLACED, []),
    "replace-volume": (BOTH, REPLACED, []),
    "remove-volume": (BOTH, {}, []),
}


@pytest.mark.parametrize(
    "operation", [pytest.param(name, marks=NEEDS_SWAP if name.startswith("replace") else ()) for name in STEPS]
)
def test_killed_at_every_step(committed, server, tmp_path, operation):
    """Whatever call is the last, readers find the old state or the new; gc leaves nothing else, a rerun completes."""
    before, after, between = STEPS[operation]
    initial = open_cohort(shutil.copytree(committed.path, tmp_path / "initial"))
    if before == WITHOUT_A:
        initial[writer.ID].remove("recon/a")
    elif before == {}:
        initial.remove_volume(writer.ID)
    seen = []
    for step in count(1, STRIDE.get(operation, 1)):
        cohort = open_cohort(shutil.copytree(initial.path, tmp_path / str(step)))
        (code,) = server.run(operation, cohort.path, NEW, "kill", step)
        report = verify(cohort)
        assert report.ok, report.problems
        assert values(cohort) in (before, after, *between)
        collect_garbage(cohort)
        report = verify(cohort)
        assert (report.ok, report.orphans, report.stale) == (True, [], [])
        seen.append(values(cohort))
        assert seen[-1] in (before, after)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if seen[-1] == before:
            assert server.run(operation, cohort.path, NEW) == [0]
        assert values(cohort) == after
        shutil.rmtree(cohort.path)
    assert step > 5
    assert before in seen[:-1]
    assert seen == sorted(seen, key=[before, after].index)  # once it is committed, it stays


@NEEDS_SWAP
def test_killed_at_random_moments(committed, server, tmp_path):
    """After each of 24 or more kills of a writer that never rests, every element is whole and of one writer."""
    cohort = open_cohort(shutil.copytree(committed.path, tmp_path / "c"))
    rng, seen, longest = np.random.default_rng(0), set(), 0.2
    for number in range(100):
        if number >= 24 and len(seen) > 5:
            break  # a slow machine needs more kills to meet different moments
        seconds = rng.uniform(0.001, longest)
        assert server.run("endless", cohort.path, 1000 * (number + 1), "compute", seconds) == [-signal.SIGPROF]
        report = verify(cohort)
        assert report.ok, report.problems
        assert (report.volumes, report.elements) == (1, 2)
        found = tuple(values(cohort).values())
        if found in seen:
            longest *= 1.2  # a slow processor gets nothing done in that time
        seen.add(found)
    assert len(seen) > 5
    assert verify(cohort).orphans
    collect_garbage(cohort)
    report = verify(cohort)
    assert (report.ok, report.orphans, report.stale) == (True, [], [])


@pytest.mark.parametrize(("operation", "before"), [("write", WITHOUT_A), ("create", {})])
def test_of_several_writers_one_wins(committed, server, tmp_path, operation, before):
    cohort = open_cohort(shutil.copytree(committed.path, tmp_path / "c"))
    winners = []
    for turn in range(200):
        if turn >= 8 and len(set(winners)) > 1:
            break  # else they may not have raced at all
        cohort[writer.ID].remove("recon/a") if before else cohort.remove_volume(writer.ID)
        codes = server.run("+".join([operation] * 4), cohort.path, 100 * (turn + 1))
        assert sorted(codes) == [0] + [writer.EXISTS] * 3
        winner = codes.index(0)
        winners.append(winner)
        won = {"volume", "recon/a", "recon/b"} if operation == "create" else {"recon/a"}
        assert {key: value for key, value in values(cohort).items() if key in won} == dict.fromkeys(
            won, 100 * (turn + 1) + winner
        )
        report = verify(cohort)
        assert (report.ok, report.orphans, report.stale) == (True, [], [])
    assert len(set(winners)) > 1


@NEEDS_SWAP
@pytest.mark.parametrize("operation", ["replace", "replace-volume"])
def test_racing_replacements_never_mix(committed, server, tmp_path, operation):
    cohort = open_cohort(shutil.copytree(committed.path, tmp_path / "c"))
    for turn in range(6):
        value = 100 * (turn + 1)
        assert server.run("+".join([operation] * 3), cohort.path, value) == [0, 0, 0]
        found = values(cohort)
        assert found["recon/a"] in range(value, value + 3)
        if operation == "replace-volume":
            assert len(set(found.values())) == 1
        report = verify(cohort)
        assert (report.ok, report.orphans, report.stale) == (True, [], [])


def test_writers_of_different_elements_do_not_hinder_each_other(committed, server, tmp_path):
    cohort = open_cohort(shutil.copytree(committed.path, tmp_path / "c"))
    assert server.run("+".join(["write-other"] * 6), cohort.path, 10) == [0] * 6
    assert values(cohort) == {**BOTH, **{f"recon/x{n}": n for n in range(10, 16)}}
    report = verify(cohort)
    assert (report.ok, report.orphans, report.stale) == (True, [], [])  # the root knows all of them


@pytest.mark.parametrize("limit", [0, 10, 200, 1000, 2000, 3500])
def test_a_file_size_limit_is_an_error_that_leaves_nothing(committed, server, tmp_path, limit):
    """The system itself refuses (EFBIG), in data, in metadata, in what is left in buffers."""
    cohort = open_cohort(shutil.copytree(committed.path, tmp_path / "c"))
    cohort[writer.ID].remove("recon/a")
    told = len(server.errors())
    assert server.run("with-limit", cohort.path, limit) == [writer.REFUSED]
    message = server.errors()[told:]
    assert "cannot write: File too large. The file is larger than the system allows" in message
    assert writer.ID in message
    assert values(cohort) == WITHOUT_A
    report = verify(cohort)
    assert (report.ok, report.orphans) == (True, [])
    assert server.run("write", cohort.path, OLD) == [0]
    assert values(cohort) == BOTH


@pytest.mark.parametrize("after", [0, 1, 500, 1200])
@pytest.mark.parametrize("path", ["kspace", "recon/a", "seg/a", "mask/a"])
def test_a_full_disk_is_an_error_that_leaves_nothing(volume, made, rng, path, after):
    data = {
        "kspace": rng.random((4, 2, 10, 10)).astype(np.complex64),
        "recon/a": rng.random((4, 20, 20)).astype(np.float32),
        "seg/a": rng.integers(0, 4000, (4, 20, 20)).astype(np.uint16),
        "mask/a": rng.integers(0, 2, (10, 10)).astype(np.uint8),
    }[path]
    more = {"labels": {n: f"{n}" for n in range(1, 4000)}} if path == "seg/a" else {}
    after = after if path != "mask/a" else min(after, 20)
    with (
        full_disk(after=after),
        pytest.raises(StoreError, match=r"No space left on device.*free space, then run") as caught,
    ):
        volume.write(path, data, provenance=made, **more)
    assert path in str(caught.value)
    assert volume.elements() == {}
    assert list((volume.path.parent / ".staging").glob("*")) == []
    element = volume.write(path, data, provenance=made, **more)
    np.testing.assert_array_equal(element.numpy(), data)


@pytest.mark.parametrize("step", ["flush_tree", "write_group", "_rename_new"])
def test_a_failing_disk_at_the_end_leaves_nothing(volume, made, monkeypatch, step):
    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(f"mri_io.store.{'volume' if step == 'write_group' else 'commit'}.{step}", fail)
        with pytest.raises(StoreError, match=r"cannot write: Input/output error\. Nothing half-written is visible"):
            volume.write("recon/a", np.ones((3, 7, 5), np.float32), provenance=made)
    assert volume.elements() == {}
    assert list((volume.path.parent / ".staging").glob("*")) == []
    report = verify(volume.path.parents[1])
    assert (report.ok, report.orphans) == (True, [])


def refuse(*_):
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("replace", [writer.OPERATIONS["replace"], writer.OPERATIONS["replace-volume"]])
@pytest.mark.parametrize("disk", ["recovers", "stays broken"])
def test_a_replacement_that_fails_without_exchange_keeps_the_old(committed, tmp_path, monkeypatch, replace, disk):
    """The old one, moved aside already, is put back; where even that fails, garbage collection does so."""
    cohort = open_cohort(shutil.copytree(committed.path, tmp_path / "c"))
    new, rename = commit._rename_new, Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(commit, "_exchange", lambda *_: False)
        patch.setattr(commit, "_rename_new", lambda *to: refuse() if (to[0].parent / "replaced").exists() else new(*to))
        if disk == "stays broken":
            patch.setattr(Path, "rename", lambda self, to: refuse() if self.name == "replaced" else rename(self, to))
        with pytest.raises(StoreError, match=r"cannot write: Input/output error"):
            replace(cohort, NEW)
    assert (values(cohort) == BOTH) == (disk == "recovers")
    collect_garbage(cohort, older_than_s=-1)
    for folder in (cohort.volumes_path / ".staging").glob("*"):  # its writer, this process, lives
        assert disk == "stays broken"
        commit.finish_replacement(folder)
        shutil.rmtree(folder)
    assert {"volume", "recon/a", "recon/b"} == set(values(cohort))
    report = verify(cohort)
    assert (report.ok, report.orphans) == (True, [])


def test_an_interrupted_replacement_keeps_the_old(committed, tmp_path, monkeypatch):
    cohort = open_cohort(shutil.copytree(committed.path, tmp_path / "c"))

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commit, "_exchange", lambda *_: False)
        patch.setattr(commit, "_rename_new", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.write(cohort, NEW, replace=True)
    assert values(cohort) == BOTH
    assert list((cohort.volumes_path / ".staging").glob("*")) == []


class Darwin:
    """The part of macOS' C library that swaps names: acts like the real one, or cannot (as on NFS)."""

    def __init__(self, code: int) -> None:
        self.code, self.calls = code, []

    def renamex_np(self, first, second, flags):
        self.calls.append(flags)
        ctypes.set_errno(self.code)
        if self.code:
            return -1
        aside = first + b".aside"
        for old, new in ((first, aside), (second, first), (aside, second)):
            Path(os.fsdecode(old)).rename(os.fsdecode(new))
        return 0


@pytest.mark.parametrize("code", [0, 45, 22])
def test_macos_swaps_by_its_own_call(committed, tmp_path, monkeypatch, code):
    cohort = open_cohort(shutil.copytree(committed.path, tmp_path / "c"))
    library = Darwin(code)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        patch.setattr("errno.ENOTSUP", 45)
        patch.setattr(ctypes, "CDLL", lambda *_, **__: library)
        writer.write(cohort, NEW, replace=True)
    assert library.calls == [2]  # RENAME_SWAP
    assert values(cohort) == {**BOTH, "recon/a": NEW}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux tells the file of a descriptor there")
def test_all_is_flushed_before_it_is_visible(volume, made, monkeypatch):
    """Every file and folder of an element has been synchronised when the rename makes it visible, and it after that."""
    flushed, visible = [], []
    rename = Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink())))

    def renamed(self, target):
        if self.name == "node":
            wanted = {str(path) for path in (self, *self.rglob("*"))}
            visible.append(wanted <= set(flushed))
            flushed.clear()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    volume.write("recon/a", np.ones((3, 7, 5), np.float32), provenance=made)
    assert visible == [True]
    assert str(volume.path / "recon") in flushed
