"""Exports to a disk that is full, and how much room files of HDF5 are given."""

import errno
import os
import shutil
import subprocess
import sys

import h5py
import ismrmrd
import numpy as np
import pytest

from mri_io import create_cohort
from mri_io.errors import StoreError
from mri_io.export import export, hdf5
from mri_io.export import ismrmrd as exporter
from mri_io.schema import Source
from mri_io.testing import tiny_cohort

FORMATS = {"bart": "kspace", "ismrmrd": "kspace", "fastmri": "recon/rss", "nifti": "recon/rss"}
ALONE = """
import sys
from pathlib import Path
from mri_io import open_cohort
from mri_io.errors import StoreError
from mri_io.export import export
disk, (volume,) = Path(sys.argv[2]), open_cohort(sys.argv[1]).volumes()
for name in sys.argv[3:]:
    format, _, path = name.partition(":")
    try:
        export(volume[path], disk / "out", format)
    except StoreError as error:
        print(format, "is full" in str(error), sum(file.is_file() for file in (disk / "out").rglob("*")))
"""


@pytest.fixture
def cohort(tmp_path, made, rng):
    """One volume whose k-space has 400 kB, with a reconstruction of 50 kB that nothing compresses."""
    (like,) = tiny_cohort(tmp_path / "tiny", subjects=1, slices=3, coils=4, matrix=(64, 64))
    cohort = create_cohort(tmp_path / "c")
    source = Source(uri="file1.h5", sha256="0" * 64, format="fastmri")
    with cohort.create_volume(like.id, subject_id=like.subject_id, source=source, header=like.header) as volume:
        volume.write("kspace", like["kspace"].numpy(), provenance=made)
        volume.write("recon/rss", rng.random((3, 64, 64)).astype(np.float32), provenance=made)
    return cohort


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no namespaces")
@pytest.mark.parametrize("room", ["8k", "32k"])
def test_a_full_disk_is_said_and_left_clean(tmp_path, cohort, room):
    disk = tmp_path / "disk"
    disk.mkdir()
    space = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f'mount -t tmpfs -o size={room} tmpfs "$0" || exit 77; exec "$@"'
    names = [f"{name}:{path}" for name, path in FORMATS.items()]
    command = [*space, mount, str(disk), sys.executable, "-c", ALONE, str(cohort.path), str(disk), *names]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode in (1, 77) and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} True 0" for name in FORMATS]


@pytest.mark.parametrize("format", ["ismrmrd", "fastmri"])
def test_without_room_hdf5_is_not_begun(tmp_path, cohort, monkeypatch, format):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    with pytest.raises(StoreError, match="The file system is full"):
        export(cohort.volumes()[0][FORMATS[format]], tmp_path / "out", format)
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


@pytest.mark.parametrize("supported", ["by the system", "not by the file system", "not by the system"])
def test_room_is_taken_on_every_system(tmp_path, monkeypatch, supported):
    def fail(*arguments):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if supported == "not by the system":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif supported == "not by the file system":
        monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    path, size = tmp_path / "x.h5", 3 * 2**20 + 17
    with hdf5.hdf5_file(path, size) as file:
        assert path.stat().st_size >= size
        assert path.stat().st_blocks * 512 >= size
        file["x"] = np.arange(1000)
    assert path.stat().st_size < 20000
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["x"][()], np.arange(1000))


@pytest.mark.parametrize("axes", [0, 2, 3])
@pytest.mark.parametrize("samples", [1, 13, 100, 168, 254, 256, 500, 508, 511, 1030])
def test_the_room_for_acquisitions_is_enough_and_little_more(tmp_path, samples, axes):
    readouts, paths = np.zeros((1000, 1, samples), np.complex64), np.zeros((1000, samples, axes), np.float32)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        kind = ismrmrd.hdf5.acquisition_dtype
        data = file.create_dataset("data", (0,), maxshape=(None,), chunks=(exporter.CHUNK,), dtype=kind)
        for start in range(0, 1000, 100):
            some = slice(start, start + 100)
            exporter._append(data, exporter._block(readouts[some], paths[some] if axes else None))
    taken, given = path.stat().st_size, exporter._size(1000, 8 * samples, 4 * axes * samples)
    assert taken < given < 2 * taken
