"""The cache of what is read from afar: no requests for what is there, a bound, damage, several processes."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from mri_io import create_cohort, open_cohort, options, verify
from mri_io.errors import ConfigError, CorruptElementError
from mri_io.store.remote import cache as caches
from mri_io.store.remote import reading
from mri_io.store.remote.cache import DEFAULT_BYTES, Cache
from mri_io.store.remote.paths import store_path

ID = "sub-01_acq-t1_run-1"
SHAPE = (12, 2, 64, 64)


def data() -> np.ndarray:
    return np.random.default_rng(5).standard_normal(SHAPE).astype(np.complex64)


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch):
    monkeypatch.setattr(reading, "_open", type(reading._open)())
    for name in ("_added", "_counted"):
        monkeypatch.setattr(caches, name, {})
    monkeypatch.delenv("MRI_IO_CACHE", raising=False)
    monkeypatch.delenv("MRI_IO_CACHE_SIZE", raising=False)


@pytest.fixture(scope="module")
def url(s3_server):
    from mri_io.schema import Provenance

    made = Provenance(method="test", package="mri-io", version="0")
    cohort = create_cohort(f"{s3_server.bucket()}/c")
    with cohort.create_volume(ID, subject_id="sub-01") as volume:
        volume.write("kspace", data(), provenance=made)
        volume.write("image/a", np.abs(data()[:, 0]), provenance=made)
    return str(cohort.path)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_hit_makes_no_request(url, s3_server, tmp_path, monkeypatch):
    """Chunks that are in the cache are not asked for; in another process only whether the objects are the same."""
    element = open_cohort(url, cache=tmp_path)[ID]["kspace"]
    np.testing.assert_array_equal(element[3], data()[3])
    before = len(s3_server.requests())
    np.testing.assert_array_equal(element[3, 1], data()[3, 1])
    assert s3_server.requests()[before:] == []
    np.testing.assert_array_equal(element[0:6], data()[0:6])
    monkeypatch.setattr(reading, "_open", type(reading._open)())
    again = open_cohort(url, cache=tmp_path)[ID]["kspace"]
    before = len(s3_server.requests())
    np.testing.assert_array_equal(again[5], data()[5])
    np.testing.assert_array_equal(again[0:6], data()[0:6])
    assert [method for method, _, _ in s3_server.requests()[before:]] == ["HEAD", "HEAD"]
    before = len(s3_server.requests())
    np.testing.assert_array_equal(again[7], data()[7])
    assert len(s3_server.requests()) == before + 1


def test_an_option_has_the_whole_command_use_a_cache(url, tmp_path, monkeypatch):
    monkeypatch.delenv("MRI_IO_CACHE", raising=False)
    monkeypatch.setenv("MRI_IO_CACHE_SIZE", "3G")
    app, found = typer.Typer(), []

    @app.command()
    def read(cohort: options.Cohort, cache: options.Cache = None) -> None:
        found.append(open_cohort(cohort).path.cache)
        command = [sys.executable, "-c", "import os; print(os.environ['MRI_IO_CACHE'])"]  # as workers are started
        found.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())

    given = f"{tmp_path}/kept:7G"
    assert CliRunner().invoke(app, [url, "--cache", given], catch_exceptions=False).exit_code == 0
    assert found == [Cache(tmp_path / "kept", 7 * 2**30), given]
    assert "MRI_IO_CACHE" not in os.environ
    assert os.environ["MRI_IO_CACHE_SIZE"] == "3G"
    with pytest.raises(ConfigError, match="size of the cache"):  # whatever the cohort is
        CliRunner().invoke(app, [str(tmp_path), "--cache", "cch:foo"], catch_exceptions=False)


def test_the_environment_names_the_cache(url, tmp_path, monkeypatch):
    monkeypatch.setenv("MRI_IO_CACHE", str(tmp_path / "kept"))
    assert open_cohort(url).path.cache == Cache(tmp_path / "kept", DEFAULT_BYTES)
    assert DEFAULT_BYTES == 10 * 2**30
    monkeypatch.setenv("MRI_IO_CACHE_SIZE", "1.5M")
    cohort = open_cohort(url)
    assert cohort.path.cache == Cache(tmp_path / "kept", 3 * 2**19)
    assert cohort[ID]["kspace"][0].shape == SHAPE[1:]
    assert entries(tmp_path / "kept")
    assert open_cohort(url, cache=f"{tmp_path}/b:7G").path.cache == Cache(tmp_path / "b", 7 * 2**30)
    assert open_cohort(url, cache=tmp_path, cache_bytes=5).path.cache.max_bytes == 5
    monkeypatch.setenv("MRI_IO_CACHE_SIZE", "much")
    with pytest.raises(ConfigError, match="size of the cache"):
        open_cohort(url)
    assert Cache.parse("rel:1K") == Cache(Path("rel").absolute(), 1024)
    assert Cache.parse("/a:b/") == Cache(Path("/a:b"))
    assert Cache.parse("/a:b/c:2K") == Cache(Path("/a:b/c"), 2048)
    assert open_cohort(url, cache=tmp_path / "a:b").path.cache == Cache(tmp_path / "a:b")
    for wrong in ("cch:foo", "/a:200GG", "/a:"):
        with pytest.raises(ConfigError, match=r"size of the cache: expected bytes, or a number with K, M, G or T, got"):
            Cache.parse(wrong)


def test_the_bound_is_kept_and_the_least_recent_go(url, tmp_path, monkeypatch):
    """Never more bytes than the bound; what was used last stays."""
    chunk = data()[0].nbytes
    bound = 5 * chunk
    element = open_cohort(url, cache=tmp_path, cache_bytes=bound)[ID]["kspace"]
    for number in (0, 1, 2, 3, 0, 4, 5, 0, 6, 7):
        np.testing.assert_array_equal(element[number], data()[number])
        assert sum(path.stat().st_size for path in entries(tmp_path)) <= bound
        for path in entries(tmp_path):  # times that differ, whatever the file system's resolution
            stat = path.stat()
            os.utime(path, (stat.st_atime - 10, stat.st_mtime - 10))
    reads = []
    fetch = reading.RemoteChunkFile._fetch
    monkeypatch.setattr(reading.RemoteChunkFile, "_fetch", lambda *a: reads.append(a[1]) or fetch(*a))
    for number in (0, 7, 1):
        element[number]
    assert len(reads) == 1  # chunk 1 alone was gone
    small = Cache(tmp_path / "small", 100)
    small.put("u", "t", 0, b"x" * 200)
    assert entries(tmp_path / "small") == []


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "other"])
def test_a_damaged_entry_is_read_again(url, tmp_path, monkeypatch, damage):
    """Data from the cache are as good as the server's, also when an entry has the right checksum of wrong data."""
    element = open_cohort(url, cache=tmp_path)[ID]["kspace"]
    for number in range(4):
        element[number]
    before = len(entries(tmp_path))
    for path in entries(tmp_path):
        content = bytearray(path.read_bytes())
        if damage == "other":
            content[10] ^= 1
            body = bytes(content[:-4])
            content = body + caches.google_crc32c.value(body).to_bytes(4, "little")
        elif damage == "flipped":
            content[len(content) // 2] ^= 1
        path.write_bytes({"truncated": content[:-5], "empty": b""}.get(damage, content))
    monkeypatch.setattr(reading, "_open", type(reading._open)())
    again = open_cohort(url, cache=tmp_path)[ID]["kspace"]
    for number in range(4):
        np.testing.assert_array_equal(again[number], data()[number])
    np.testing.assert_array_equal(again[:], data())
    assert len(entries(tmp_path)) >= before
    monkeypatch.setattr(reading, "_open", type(reading._open)())
    np.testing.assert_array_equal(open_cohort(url, cache=tmp_path)[ID]["kspace"][:], data())


def test_damage_at_rest_is_found_in_spite_of_the_cache(s3_server, made, tmp_path):
    """Verification reads what is stored; so does a reader whose object is another than the one in the cache."""
    cohort = create_cohort(f"{s3_server.bucket()}/c")
    with cohort.create_volume(ID, subject_id="sub-01") as volume:
        volume.write("kspace", data(), provenance=made)
    opened = open_cohort(str(cohort.path), cache=tmp_path)
    opened[ID]["kspace"].numpy()
    file = store_path(f"{cohort.path}/volumes/{ID}.zarr/kspace/data/c/0/0/0/0")
    content = bytearray(file.read_bytes())
    content[100] ^= 4
    file.write(bytes(content))
    assert [problem.kind for problem in verify(opened).problems] == ["checksum"]
    reading._open.clear()
    with pytest.raises(CorruptElementError, match="chunk 0"):
        open_cohort(str(cohort.path), cache=tmp_path)[ID]["kspace"].numpy()


@pytest.mark.parametrize("cached", [False, True])
def test_damage_on_the_way_is_found_while_another_thread_reads_the_same_chunk(url, tmp_path, monkeypatch, cached):
    """The other thread got the bytes whole; the one that got them damaged asks again, and never returns them."""
    cohort = open_cohort(url, cache=tmp_path if cached else None)
    element = cohort[ID]["kspace"]
    take, damaged = reading.RemoteChunkFile._bytes, []

    def meeting(self, offset, length):
        found = take(self, offset, length).copy()
        if not damaged and length > data()[0].nbytes:
            damaged.append(length)
            found[100] ^= 4
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(lambda: self.chunk(5)).result()
            np.testing.assert_array_equal(other[0], data()[5])
        return found

    monkeypatch.setattr(reading.RemoteChunkFile, "_bytes", meeting)
    np.testing.assert_array_equal(element[5], data()[5])
    assert len(damaged) == 1


def test_an_unusable_folder_is_no_error(url, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    element = open_cohort(url, cache=tmp_path / "file" / "x")[ID]["kspace"]
    np.testing.assert_array_equal(element[2], data()[2])


READING = """
import sys
import numpy as np
from mri_io import open_cohort
url, volume, folder, file, seed = sys.argv[1:]
expected = np.load(file)
element = open_cohort(url, cache=folder, cache_bytes=4 * expected[0].nbytes)[volume]["kspace"]
for number in np.random.default_rng(int(seed)).integers(0, len(expected), 40):
    np.testing.assert_array_equal(element[int(number)], expected[number])
"""


def test_processes_share_a_cache(url, tmp_path_factory, tmp_path):
    """They evict each other's entries all the time; every chunk is right all the same."""
    expected = tmp_path_factory.mktemp("expected") / "data.npy"
    np.save(expected, data())
    read = [sys.executable, "-c", READING, url, ID, str(tmp_path), str(expected)]
    processes = [subprocess.Popen([*read, str(seed)]) for seed in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    total = sum(path.stat().st_size for path in entries(tmp_path))
    assert 0 < total <= 4 * data()[0].nbytes * 1.1 + data()[0].nbytes
