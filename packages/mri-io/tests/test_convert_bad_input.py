"""Damaged files, full disks, killed processes: a clear error, nothing half-written, the others go on."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mri_io import create_cohort, open_cohort, verify
from mri_io.convert import convert
from mri_io.errors import VersionError
from mri_io.store import collect_garbage
from mri_io.testing import full_disk
from mri_io.testing.raw_files import random_kspace, write_cfl, write_fastmri, write_nifti

SHAPE = (3, 4, 24, 16)


def truncated(folder):
    path = write_fastmri(folder / "bad.h5", random_kspace((8, 4, 64, 64)))
    path.write_bytes(path.read_bytes()[:-100_000])
    return r"bad\.h5: expected a readable HDF5 file"


def truncated_late(folder):
    """A file whose metadata can be read and whose data are damaged."""
    import h5py

    path = folder / "bad.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("kspace", data=random_kspace(SHAPE), chunks=(1, *SHAPE[1:]), fletcher32=True)
        offset = data.id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 99] ^= 1
    path.write_bytes(content)
    return r"bad\.h5: kspace: expected a readable HDF5 file"


def not_kspace(folder):
    import h5py

    with h5py.File(folder / "bad.h5", "w") as file:
        file["weights"] = np.zeros(4)
    return r"bad\.h5: data set: expected 'kspace' .* got weights"


def wrong_size(folder):
    path = write_cfl(folder / "bad", random_kspace((16, 24, 1, 4)))
    path.write_bytes(path.read_bytes()[:-16])
    return r"bad\.cfl: size: expected 12288 bytes .* got 12272 bytes"


def not_finite(folder):
    kspace = random_kspace(SHAPE)
    kspace[2, 3, 23, 15] = np.nan
    write_fastmri(folder / "bad.h5", kspace)
    return (
        r"bad\.h5: kspace: values: expected finite numbers, got 1 NaN or infinite, the first at index \(2, 3, 23, 15\)"
    )


def wrong_mask(folder):
    write_fastmri(folder / "bad.h5", random_kspace(SHAPE), mask=np.ones(24))
    return r"bad\.h5: mask length: expected 16 columns, got 24"


def wrong_reconstruction(folder):
    write_fastmri(folder / "bad.h5", random_kspace(SHAPE), rss=np.ones((2, 16, 16), np.float32))
    return r"bad\.h5: recon/rss: .*slice: expected 3.* got 2"


def empty(folder):
    (folder / "bad.nii.gz").write_bytes(b"")
    return r"bad\.nii\.gz: expected a readable NIfTI image"


def groups_for_arrays(folder):
    import h5py

    with h5py.File(folder / "bad.h5", "w") as file:
        file.create_group("kspace")
    return r"bad\.h5: kspace: expected an array \(HDF5 data set\), got a group"


def odd_header(folder):
    import h5py

    with h5py.File(write_fastmri(folder / "bad.h5", random_kspace(SHAPE)), "a") as file:
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = np.zeros((3, 3))
    return r"bad\.h5: ismrmrd_header: expected one string, got an array \(3, 3\)"


BAD = (
    groups_for_arrays,
    odd_header,
    truncated,
    truncated_late,
    not_kspace,
    wrong_size,
    not_finite,
    wrong_mask,
    wrong_reconstruction,
    empty,
)


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_file_is_a_record_and_the_others_go_on(tmp_path, make):
    message = make(tmp_path)
    for name in ("sub-01.h5", "sub-02.h5"):
        write_fastmri(tmp_path / name, random_kspace(SHAPE))
    summary = convert([tmp_path], tmp_path / "c", progress=False)
    assert summary.count("done") == 2
    (failure,) = summary.failures
    assert re.search(message, failure.error)
    cohort = open_cohort(tmp_path / "c")
    assert cohort.volume_ids() == ["sub-01_acq-AXT2_run-1", "sub-02_acq-AXT2_run-1"]
    assert not list((cohort.path / "volumes").glob("**/*bad*"))
    report = verify(cohort)
    assert report.ok
    assert not report.orphans
    (row,) = cohort.failures()
    assert (row["stage"], row["error"]) == ("convert", failure.error)


@pytest.mark.parametrize("name", ["sub-01.h5", "sub-01.nii.gz", "sub-01.cfl", "folder", "closed"])
def test_what_may_not_be_read_is_a_record_and_the_others_go_on(tmp_path, monkeypatch, name):
    raw = tmp_path / "raw"
    raw.mkdir()
    write_fastmri(raw / "sub-02.h5", random_kspace(SHAPE))
    locked = raw / name
    if locked.suffix:
        locked.write_bytes(b"anything")
    else:
        locked.mkdir()

    def refuse(real, *, below=False):
        def call(self, *args, **options):
            if self == locked or (below and locked in self.parents):
                raise PermissionError(13, "Permission denied", str(self))
            return real(self, *args, **options)

        return call

    with monkeypatch.context() as patch:  # root may read everything
        for method in ("open", "iterdir"):
            patch.setattr(Path, method, refuse(getattr(Path, method)))
        patch.setattr(Path, "is_dir", refuse(Path.is_dir, below=name == "closed") if name == "closed" else Path.is_dir)
        summary = convert([raw], tmp_path / "c", progress=False)
    assert summary.count("done") == 1
    (failure,) = summary.failures
    assert re.match(rf"{locked}.*: cannot be read: Permission denied\. Check its permissions", failure.error)
    assert [row["item"] for row in open_cohort(tmp_path / "c").failures()] == [name]


def test_failures_are_recorded_where_files_cannot_be_locked(tmp_path, monkeypatch):
    """As on some network file systems."""
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    wrong_mask(tmp_path)
    write_fastmri(tmp_path / "sub-02.h5", random_kspace(SHAPE))
    summary = convert([tmp_path], tmp_path / "c", progress=False)
    assert (summary.count("done"), len(summary.failures)) == (1, 1)
    cohort = open_cohort(tmp_path / "c")
    assert [row["item"] for row in cohort.failures()] == ["bad.h5"]
    cohort.clear_failure("bad.h5")
    assert cohort.failures() == []


def test_a_mended_file_clears_its_failure(tmp_path):
    wrong_mask(tmp_path)
    convert([tmp_path / "bad.h5"], tmp_path / "c", progress=False)
    assert len(open_cohort(tmp_path / "c").failures()) == 1
    write_fastmri(tmp_path / "bad.h5", random_kspace(SHAPE))
    assert convert([tmp_path / "bad.h5"], tmp_path / "c", progress=False).ok
    assert open_cohort(tmp_path / "c").failures() == []


def test_a_full_disk_leaves_nothing_and_a_rerun_completes(tmp_path):
    for n in range(3):
        write_fastmri(tmp_path / f"sub-0{n}.h5", random_kspace(SHAPE, n))
    size = random_kspace(SHAPE).nbytes
    with full_disk(after=size + size // 2):
        summary = convert([tmp_path], tmp_path / "c", progress=False)
    assert summary.count("done") == 1
    assert [f"sub-0{n}.h5" for n in (1, 2)] == [failure.label for failure in summary.failures]
    assert "No space left on device. The file system is full: free space" in summary.failures[0].error
    cohort = open_cohort(tmp_path / "c")
    report = verify(cohort)
    assert report.ok
    assert report.volumes == 1
    assert not report.orphans
    assert convert([tmp_path], tmp_path / "c", progress=False).ok
    assert len(cohort) == 3
    assert cohort.failures() == []


def test_a_newer_cohort_is_refused(tmp_path):
    cohort = create_cohort(tmp_path / "c")
    file = cohort.path / "cohort.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": "2.0"}))
    source = write_nifti(tmp_path / "a.nii", np.ones((3, 3, 3), np.float32))
    with pytest.raises(VersionError, match=r"written with store version 2\.0, .* reads up to 1\.x"):
        convert([source], cohort.path, progress=False)


CONVERTER = """
import os, signal, sys
import zarr
from mri_io.convert import convert
from mri_io.formats import table

table.isolated = lambda reader: reader  # the readers' own process would take longer to start than the kill to come
table.format_names()

# A process per line of input, forked from one that has imported everything: the kill meets the work. The system ends
# it, with no chance to tidy up, when it has computed for so many seconds, however long that takes on a busy machine.
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, float(line))
        os._exit(0 if convert([sys.argv[1]], sys.argv[2], progress=False).ok else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_at_random_moments(tmp_path):
    """Each volume is absent or whole after every one of 20 kills, and a rerun completes."""
    raw, cohort_path = tmp_path / "raw", tmp_path / "c"
    raw.mkdir()
    expected = {f"sub-{n:02d}": random_kspace((2, 2, 32, 32), n) for n in range(24)}
    for stem, kspace in expected.items():
        write_fastmri(raw / f"{stem}.h5", kspace)
    rng = np.random.default_rng(0)
    counts: list[int] = []
    longest, before = 0.2, 0
    command = [sys.executable, "-c", CONVERTER, str(raw), str(cohort_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while len(counts) < 20:
            print(rng.uniform(0.001, longest), file=process.stdin, flush=True)
            ended = int(process.stdout.readline())
            report = verify(cohort_path) if (cohort_path / "cohort.json").exists() else None
            assert report is None or report.ok, report.problems
            assert ended in (0, -signal.SIGPROF)
            volumes = report.volumes if report else 0
            if ended == 0:  # it was quicker than the kill
                longest /= 1.3
            else:
                counts.append(volumes)
                if volumes == before:
                    longest *= 1.3  # a slow processor gets nothing new done in that time
            if volumes > 18:
                for volume_id in open_cohort(cohort_path).volume_ids()[::2]:
                    open_cohort(cohort_path).remove_volume(volume_id)
            before = len(open_cohort(cohort_path)) if report else 0
    assert len(set(counts)) >= 5  # the kills fell into different moments of the work
    assert convert([raw], cohort_path, progress=False).ok
    cohort = open_cohort(cohort_path)
    assert [volume.subject_id for volume in cohort.volumes()] == sorted(expected)
    for volume in cohort.volumes():
        np.testing.assert_array_equal(volume["kspace"].numpy(), expected[volume.subject_id])
    collect_garbage(cohort)
    assert not verify(cohort).orphans
