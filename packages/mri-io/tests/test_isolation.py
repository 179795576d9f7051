"""Readers in a process of their own: what they find and read is the same; hangs and crashes end there."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from mri_io import open_cohort, verify
from mri_io.convert import convert
from mri_io.errors import FormatError, StoreError
from mri_io.formats import Format, find_items, find_sources, get_format, table
from mri_io.formats.isolation import child as children
from mri_io.formats.isolation import messages, proxy
from mri_io.testing.raw_files import random_kspace, write_fastmri
from mri_io.testing.waiting import PATIENCE_S, wait_until

SCRIPTED = '''
import ctypes, os, time
from contextlib import contextmanager
import numpy as np
from mri_io.errors import ShapeError
from mri_io.formats import Format, RawElement, RawVolume
from mri_io.formats.base import identify
from mri_io.formats.images.files import ImageFile
from mri_io.formats.images.single import ImageFormat
from mri_io.formats.isolation.service import Service


class Unpicklable(Exception):
    def __init__(self, a, b):
        super().__init__(a)


class Scripted(Format):
    """Does what the first line of the file says, in the step that the second names."""

    name, summary = "scripted", "for tests"

    def is_fragile(self, path):
        return path.suffix == ".scripted"

    def sniff(self, path):
        return path.suffix == ".scripted" and self.act(path, "sniff")

    def identify(self, item):
        self.act(item.path, "identify")
        return identify(item.path, item.path.stem, "a")

    def read(self, item):
        self.act(item.path, "read")
        return RawVolume((RawElement("kspace", (5, 2, 4, 3), np.dtype(np.complex64), lambda: self.blocks(item.path)),))

    def blocks(self, path):
        for number in range(5):
            if number == 2:
                self.act(path, "blocks")
            yield np.full((1, 2, 4, 3), number, np.complex64)

    def memory(self, item):
        return os.getpid()

    def act(self, path, step):
        action, when = path.read_text().split()
        if when != step:
            return True
        if action == "crash":
            ctypes.string_at(0)
        elif action == "hang":
            path.with_suffix(".hangs").touch()
            ctypes.PyDLL(None).sleep(1000)  # holds the interpreter, as a library in a loop does
        elif action == "claim":
            np.ones(3 * 2**30, np.uint8)
        elif action == "raise":
            raise ShapeError(f"{path}: shape")
        elif action == "foreign":
            raise Unpicklable("one", "two")
        elif action == "print":
            print("noise " * 100000, flush=True)
            os.write(1, b"more noise")
        return True


class ScriptedImage(Scripted, ImageFormat):
    """An image that does the same; its values tell in which process it was read."""

    name, summary = "scripted-image", "for tests"

    def is_fragile(self, path):
        return path.name.endswith(".scripted.mha")

    def sniff(self, path):
        return path.name.endswith(".scripted.mha") and self.act(path, "sniff")

    def open(self, path):
        self.act(path, "open")
        return ImageFile(path, "image", (5, 4, 3), (), np.dtype(np.uint8), lambda: self.slices(path))

    @contextmanager
    def slices(self, path):
        def read(index, start, stop):
            self.act(path, "slices")
            return np.full((stop - start, 4, 3), 2 if Service.running else 1, np.uint8)

        yield read

    identify, read, memory = ImageFormat.identify, ImageFormat.read, ImageFormat.memory
'''


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """A function that writes a file of a format which misbehaves as told; the child finds it as a plug-in."""
    package = tmp_path / "site" / "scripted-1.dist-info"
    package.mkdir(parents=True)
    (package.parent / "scripted.py").write_text(SCRIPTED)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1\n")
    readers = "scripted = scripted:Scripted\nscripted-image = scripted:ScriptedImage\n"
    (package / "entry_points.txt").write_text(f"[mri_io.formats]\n{readers}")
    monkeypatch.syspath_prepend(str(package.parent))
    from mri_io import plugins

    def forget():
        table.formats.cache_clear()
        plugins._found.cache_clear()
        for child in list(children.processes.values()):
            child.end()
        children.processes.clear()
        sys.modules.pop("scripted", None)

    forget()

    def write(action, step, name="a.scripted", within="files"):
        folder = tmp_path / within
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"{action} {step}")
        return folder

    yield write
    forget()


def test_the_same_is_read(tmp_path):
    kspace = random_kspace((3, 2, 8, 6))
    path = write_fastmri(tmp_path / "a.h5", kspace, mask=np.arange(6) % 2, rss=np.ones((3, 8, 6), np.float32))
    (item,) = find_items([path])
    assert find_sources([path], isolate=True).items == [item]
    here, there = get_format("fastmri"), get_format("fastmri", isolate=True)
    assert (there.name, there.summary, there.options) == (here.name, here.summary, here.options)
    assert there.identify(item) == here.identify(item)
    first, second = here.read(item), there.read(item)
    assert (first.header, first.attributes) == (second.header, second.attributes)
    for one, other in zip(first.elements, second.elements, strict=True):
        assert (one.path, one.shape, one.dtype, one.dims) == (other.path, other.shape, other.dtype, other.dims)
        blocks = [block.copy() for block in other.blocks()]
        np.testing.assert_array_equal(np.concatenate(blocks), np.concatenate(list(one.blocks())))
        assert len(blocks) == len(list(one.blocks()))


def test_the_same_child_serves_until_it_dies(scripted):
    folder = scripted("nothing", "read")
    reader, (item,) = get_format("scripted", isolate=True), find_items([folder])
    first = reader.memory(item)
    assert first == reader.memory(item) != os.getpid()
    assert get_format("scripted").memory(item) == os.getpid()
    os.kill(first, signal.SIGKILL)
    assert reader.memory(item) not in (first, os.getpid())


def test_a_reading_that_is_given_up_leaves_nothing_behind(scripted, tmp_path):
    kspace = random_kspace((40, 4, 192, 192))  # two blocks
    item = find_items([write_fastmri(tmp_path / "a.h5", kspace)])[0]
    reader = get_format("fastmri", isolate=True)
    blocks = iter(reader.read(item).elements[0].blocks())
    np.testing.assert_array_equal(next(blocks)[0], kspace[0])
    child = children.processes[os.getpid()]
    blocks.close()
    again = np.concatenate([block.copy() for block in reader.read(item).elements[0].blocks()])
    np.testing.assert_array_equal(again, kspace)
    assert children.processes[os.getpid()] is child


def test_a_child_that_does_not_start_says_why(scripted, monkeypatch):
    folder = scripted("nothing", "read")
    (item,) = find_items([folder])
    monkeypatch.setattr(children.sys, "path", ["/nowhere"])
    with pytest.raises(StoreError, match=r"(?s)did not start\..*it said: .*No module named"):
        get_format("scripted", isolate=True).memory(item)


@pytest.mark.parametrize(
    ("action", "step"), [*(("crash", step) for step in ("sniff", "identify", "read", "blocks")), ("hang", "blocks")]
)
def test_crash_and_hang_are_failures_of_one_file(scripted, tmp_path, monkeypatch, action, step):
    if action == "hang":
        monkeypatch.setattr(children, "PATIENCE_S", 3.0)
    scripted("nothing", "read", "good1.scripted")
    scripted("nothing", "read", "good2.scripted")
    folder = scripted(action, step, "bad.scripted")
    start = time.monotonic()
    summary = convert([folder], tmp_path / "c", progress=False)
    assert time.monotonic() - start < PATIENCE_S
    (failure,) = summary.failures
    what = r"crashed \(signal 11\)" if action == "crash" else "did not answer for 3 s"
    assert "most recent call first" in failure.traceback or action == "crash"  # where the library hung
    assert failure.error.startswith(f"{folder / 'bad.scripted'}: ")
    assert ": the library that reads it " in failure.error
    assert re.search(what, failure.error)
    assert summary.count("done") == 2
    for volume in open_cohort(tmp_path / "c").volumes():
        np.testing.assert_array_equal(volume["kspace"].numpy()[:, 0, 0, 0], range(5))
    assert verify(tmp_path / "c").ok


@pytest.mark.parametrize(
    ("action", "step"), [*(("crash", step) for step in ("sniff", "open", "slices")), ("hang", "slices")]
)
def test_a_given_label_map_that_crashes_is_a_failure_of_its_source(scripted, tmp_path, monkeypatch, action, step):
    if action == "hang":
        monkeypatch.setattr(children, "PATIENCE_S", 3.0)
    folder = scripted("nothing", "read", "good.scripted")
    scripted("nothing", "read", "bad.scripted")
    labels = scripted("nothing", "read", "good_a.scripted.mha", "labels")
    scripted(action, step, "bad_a.scripted.mha", "labels")
    summary = convert([folder], tmp_path / "c", labels=labels, progress=False)
    (failure,) = summary.failures
    assert failure.label == "bad.scripted"
    assert failure.error.startswith(f"{labels / 'bad_a.scripted.mha'}: the library that reads it ")
    (volume,) = open_cohort(tmp_path / "c").volumes()
    assert (volume["seg/a.scripted"].numpy() == 2).all()  # read in the child


@pytest.mark.parametrize("step", ["identify", "read", "blocks"])
def test_errors_come_through(scripted, tmp_path, step):
    folder = scripted("raise", step, "known.scripted")
    scripted("foreign", step, "unknown.scripted")
    summary = convert([folder], tmp_path / "c", progress=False)
    errors = sorted(failure.error for failure in summary.failures)
    assert errors[0].startswith(f"{folder / 'known.scripted'}: ")
    assert errors[1] == "RuntimeError: Unpicklable: one"
    told = [failure for failure in summary.failures if step != "identify" or "Unpicklable" in failure.error]
    assert all("in act" in failure.traceback for failure in told)


def test_output_of_libraries_does_no_harm(scripted, tmp_path):
    assert convert([scripted("print", "blocks")], tmp_path / "c", progress=False).ok


def test_no_child_for_what_is_not_fragile(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "Child", None)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(FormatError, match="none of them"):
        find_sources([tmp_path], isolate=True)


def test_non_finite_values_are_named(tmp_path):
    kspace = random_kspace((3, 2, 8, 6))
    kspace[1, 1, 2, 3] = np.nan
    summary = convert([write_fastmri(tmp_path / "a.h5", kspace)], tmp_path / "c", progress=False)
    assert "NaN or infinite" in summary.failures[0].error


def test_the_child_ends_with_its_parent(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", random_kspace((3, 2, 8, 6)))
    script = (
        "import os, sys\n"
        "from mri_io.formats import find_sources\nfrom mri_io.formats.isolation.child import present_child\n"
        f"find_sources([{str(path)!r}], isolate=True)\n"
        "print(present_child()._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(done.stdout)
    wait_until(lambda: not psutil.pid_exists(child))


def test_every_method_is_passed_on():
    """Else a method with a default in `Format` would hide that of the reader."""
    methods = {name for name, member in vars(Format).items() if callable(member) and not name.startswith("_")}
    assert methods <= vars(proxy._Isolated).keys()


def test_what_hdf5_reads_is_fragile(tmp_path):
    file = write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 8, 6)))
    for name in ("fastmri", "ismrmrd", "ocmr", "stanford-knees", "cc359", "skm-tea", "hdf5"):
        assert get_format(name).is_fragile(file)
        assert get_format(name).is_fragile(tmp_path)
        assert not get_format(name).is_fragile(tmp_path / "none")
    matlab = tmp_path / "a.mat"
    matlab.write_bytes(b"MATLAB 7.3".ljust(512) + b"\x89HDF\r\n\x1a\n")
    assert get_format("arrays").is_fragile(matlab)


def test_no_room_to_share_blocks_is_said(scripted, tmp_path, monkeypatch):
    monkeypatch.setattr(messages.os, "posix_fallocate", full, raising=False)
    with pytest.raises(StoreError, match=r"no room for a block of 5 MB\. Free space there"):
        messages.shared_file(5_000_000)
    assert not list(tmp_path.glob(f"mri-io-{os.getpid()}-*"))


def full(descriptor, offset, size):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_child_that_is_killed_wants_memory(scripted, tmp_path, number):
    folder = scripted("hang", "read")
    (item,) = find_items([folder])
    child = get_format("scripted", isolate=True).memory(item)

    def kill():
        wait_until((folder / "a.hangs").exists)
        os.kill(child, number)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(FormatError, match=rf"was killed \(signal {number}\), most likely for want of memory"):
        get_format("scripted", isolate=True).read(item)
    thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems set no limit")
@pytest.mark.parametrize("step", ["identify", "read", "blocks"])
def test_what_a_damaged_header_claims_is_not_taken(scripted, tmp_path, step):
    folder = scripted("claim", step, "bad.scripted")
    scripted("nothing", step, "good.scripted")
    summary = convert([folder], tmp_path / "c", progress=False)
    (failure,) = summary.failures
    expected = r"bad\.scripted: (kspace: )?expected to need less than 1\.1 GB, got a header that claims more"
    assert re.search(expected, failure.error)
    assert summary.count("done") == 1
