"""Cohorts by URL: in S3 (a real server that speaks it), in memory through fsspec, on a web server."""

import base64
import functools
import http.server
import json
import pickle
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from zarr.storage import FsspecStore, ObjectStore

import mri_io
from mri_io import create_cohort, open_cohort, open_volume, verify
from mri_io.convert.running import _Convert
from mri_io.errors import (
    ConfigError,
    CorruptElementError,
    ElementExistsError,
    ElementNotFoundError,
    MissingPackageError,
    StoreError,
)
from mri_io.store import build_index, collect_garbage, compute_statistics, make_split, query_index
from mri_io.store.remote import backends
from mri_io.store.remote.object_store import ObjectStoreBackend
from mri_io.store.remote.paths import StorePath, local_place, store_path
from mri_io.testing import tiny_cohort

SIZES = {"subjects": 3, "slices": 3, "coils": 2, "matrix": (10, 8)}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return tiny_cohort(tmp_path_factory.mktemp("local") / "tiny", **SIZES)


@pytest.fixture(scope="module")
def in_s3(s3_server):
    """A cohort that the tests of this module only read."""
    return tiny_cohort(f"{s3_server.bucket()}/a/cohort", **SIZES)


@pytest.fixture(params=["s3", "memory"])
def place(request):
    """A URL below which there is nothing."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/cohort"
    pytest.importorskip("fsspec")
    return f"memory://{request.node.name.replace('[', '-').strip(']')}/cohort"


def same_elements(found, expected):
    """Compare data, metadata and sizes of all elements of two volumes."""
    assert list(found.elements()) == list(expected.elements())
    for path, element in expected.elements().items():
        there = found[path]
        assert (there.shape, there.dtype, there.dims) == (element.shape, element.dtype, element.dims)
        assert (there.labels, there.stored_bytes) == (element.labels, element.stored_bytes)
        for name, array in element.arrays.items():
            for index in (..., -1, slice(None, None, -2)):
                np.testing.assert_array_equal(there.arrays[name][index], array[index])
        if element.affine is not None:
            np.testing.assert_array_equal(there.affine, element.affine)


def test_every_element_comes_back(place, local, made, rng):
    """Volumes written to a URL hold what those in a folder hold, also types with several arrays and all codecs."""
    tiny_cohort(place, **SIZES)
    cohort = open_cohort(place)
    extra = {
        "prompts/a": {"slice": np.array([0, 2], np.int32), "label": np.array([1, 2], np.int32),
                      "boxes": np.arange(8, dtype=np.float32).reshape(2, 4)},
        "mask/lines": np.array([1, 0, 1, 1, 0, 0, 1, 1], np.uint8),
        "emb/vit/block": {"data": rng.integers(-9, 9, (3, 4, 5, 5), np.int8), "scales": np.ones((3, 4), np.float32)},
        "image/whole": rng.integers(0, 99, (3, 10, 8), np.int16),
    }  # fmt: skip
    reference = mri_io.open_cohort(local.path)
    volume, beside = cohort.volumes()[0], reference.volumes()[0]
    for path, data in extra.items():
        for target in (volume, beside):
            if path not in target:
                dims = {"mask/lines": ("kx",)}.get(path)
                target.write(path, data, provenance=made, dims=dims)
    for found, expected in zip(open_cohort(place).volumes(), reference.volumes(), strict=True):
        same_elements(found, expected)
    np.testing.assert_array_equal(cohort[volume.id]["prompts/a"].array("boxes"), extra["prompts/a"]["boxes"])
    report = verify(cohort)
    assert (report.ok, report.orphans, report.stale, report.volumes) == (True, [], [], 3)
    assert report.bytes == verify(reference).bytes
    assert verify(place, fast=True).ok


def test_elements_join_are_replaced_and_removed(place, made):
    cohort = create_cohort(place)
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01") as volume:
        volume.write("recon/a", np.zeros((2, 4, 4), np.float32), provenance=made)
    volume = open_volume(f"{place}/volumes/sub-01_acq-t1_run-1.zarr")
    volume.write("recon/b", np.ones((2, 4, 4), np.float32), provenance=made)
    with pytest.raises(ElementExistsError, match="immutable"):
        volume.write("recon/b", np.ones((2, 4, 4), np.float32), provenance=made)
    with pytest.raises(ElementExistsError):
        cohort.create_volume(volume.id, subject_id="sub-01").__enter__()
    former = volume["recon/b"].commit
    volume.write("recon/b", np.full((3, 4, 4), 2, np.float32), provenance=made, replace=True)
    assert volume["recon/b"].commit != former
    assert (volume["recon/b"].numpy() == 2).all()
    volume.remove("recon/a")
    assert list(volume.elements()) == ["recon/b"]
    assert "recon/a" not in volume
    with pytest.raises(ElementNotFoundError, match="recon/b"):
        volume["recon/a"]
    report = verify(cohort)
    assert (report.ok, report.orphans, report.stale) == (True, [], [])
    keys = {key for key, _ in volume.path.backend.walk(f"{volume.path.key}/")}
    assert not any("/recon/a/" in key for key in keys)
    with cohort.create_volume(volume.id, subject_id="sub-01", attributes={"n": 2}, replace=True) as again:
        again.write("image/c", np.ones((2, 4, 4), np.float32), provenance=made)
    assert list(cohort[volume.id].elements()) == ["image/c"]
    with pytest.raises(StoreError, match="replaced while the element"):
        volume.write("recon/d", np.ones((2, 4, 4), np.float32), provenance=made)
    assert list(cohort[volume.id].elements()) == ["image/c"]
    assert verify(cohort).ok
    cohort.remove_volume(volume.id)
    assert len(cohort) == 0
    assert [key for key, _ in cohort.path.backend.walk(f"{cohort.path.key}/volumes/")] == []


def test_documents(place, local):
    """Splits, statistics, index, evaluations and failures are the same as in a folder."""
    cohort, reference = tiny_cohort(place, **SIZES), open_cohort(local.path)
    split = make_split(cohort, "other", counts=(1, 1, 1), seed=3)
    assert split == make_split(reference, "other", counts=(1, 1, 1), seed=3)
    cohort.write_split(split)
    assert cohort.split("other") == split
    with pytest.raises(ElementNotFoundError, match="default, other"):
        cohort.split("none")
    stored = compute_statistics(cohort, ["image/t1"])
    assert stored["fields"] == compute_statistics(reference, ["image/t1"])["fields"]
    assert [row.id for row in build_index(cohort)] == cohort.volume_ids()
    assert [row.id for row in query_index(cohort, element="image/t1", part="test")] == ["sub-03_acq-tiny_run-1"]
    row = {"volume_id": "v", "subject_id": "s", "method": "m", "psnr": 30.0}
    cohort.write_evaluation("quality", task="recon", rows=[row])
    assert cohort.evaluations()["quality"]["rows"] == [row]
    cohort.record_failure("a.h5", "broken", "convert")
    cohort.record_failure("b.h5", "broken", "convert")
    cohort.clear_failure("a.h5")
    assert [row["item"] for row in cohort.failures()] == ["b.h5"]
    assert verify(cohort).ok


def test_zarr_and_xarray_open_volumes_without_us(in_s3, local):
    """Rule R8, through zarr's own stores, with the copy of metadata in the root and without it."""
    from obstore.store import S3Store

    volume = in_s3.volumes()[0]
    expected = local.volumes()[0]
    backend = volume.path.backend
    assert isinstance(backend, ObjectStoreBackend)
    store = ObjectStore(backend.store, read_only=True)
    for consolidated in (True, False):
        group = zarr.open_group(store, path=volume.path.key, mode="r", use_consolidated=consolidated)
        np.testing.assert_array_equal(group["kspace/data"][1], expected["kspace"][1])
    store = ObjectStore(S3Store.from_url(str(volume.path), client_options={"allow_http": True}), read_only=True)
    tree = xarray.open_datatree(store, engine="zarr", consolidated=True)
    np.testing.assert_array_equal(tree["recon/reference/data"].values, expected["recon/reference"].numpy())
    np.testing.assert_array_equal(volume["kspace"].xarray().isel(slice=2).values, expected["kspace"][2])


def test_fsspec_store_of_zarr_reads_it(made):
    pytest.importorskip("fsspec")
    cohort = create_cohort("memory://fsspec-store/c")
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01") as volume:
        volume.write("image/a", np.arange(32, dtype=np.float32).reshape(2, 4, 4), provenance=made)
    store = FsspecStore.from_url(str(volume.path), read_only=True)
    np.testing.assert_array_equal(zarr.open_array(store, path="image/a/data", mode="r")[1], volume["image/a"][1])


def test_foreign_layouts_go_through_zarr(bucket, made):
    """An array with other chunks than ours is read as well."""
    cohort = create_cohort(f"{bucket}/c")
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01"):
        pass
    path = cohort["sub-01_acq-t1_run-1"].path
    store = ObjectStore(path.backend.store)
    zarr.open_group(store, path=f"{path.key}/image", mode="w", zarr_format=3)
    group = zarr.open_group(store, path=f"{path.key}/image/x", mode="w", zarr_format=3)
    data = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    group.create_array("data", data=data, chunks=(2, 3, 7), dimension_names=("slice", "y", "x"))
    group.attrs["mri"] = {"type": "image", "type_version": 1, "name": "x", "provenance": {}, "commit": ""}
    element = cohort["sub-01_acq-t1_run-1"]["image/x"]
    np.testing.assert_array_equal(element[1:4, ::-1], data[1:4, ::-1])
    path.backend.delete([f"{path.key}/image/x/data/c/0/0/0"])
    with pytest.raises(CorruptElementError, match="files of data"):
        cohort["sub-01_acq-t1_run-1"]["image/x"].numpy()


def test_commands(cli, bucket, tmp_path):
    """Every data command takes a URL; a second conversion skips what is there."""
    raw, url = tmp_path / "raw", f"{bucket}/c"
    assert cli("simulate", "phantom", raw, "--subjects", 2, "--slices", 2, "--matrix", 32, 32, "--coils", 2).status == 0
    done = cli("convert", raw, url, "--labels", raw / "labels")
    assert (done.status, "2 done" in done.out) == (0, True), done.out + done.err
    again = cli("convert", raw, url, "--labels", raw / "labels")
    assert (again.status, "2 skipped" in again.out) == (0, True), again.out
    rows = json.loads(cli("ls", url, "--json").out)
    assert [row["subject"] for row in rows] == ["sub-01", "sub-02"]
    assert rows[0]["bytes"] > 10_000
    content = json.loads(cli("info", url, "--json").out)
    assert (content["volumes"], content["path"]) == (2, url)
    volume = json.loads(cli("info", f"{url}/volumes/{rows[0]['volume']}.zarr", "--json").out)
    assert volume["elements"][0]["path"] == "kspace"
    assert cli("split", url, "--train", 1, "--val", 1, "--test", 0).status == 0
    assert "2 volumes indexed" in cli("index", url).out
    kept = tmp_path / "kept"
    label = next(path for path in rows[0]["elements"] if path.startswith("seg/"))
    assert cli("export", url, label, tmp_path / "out", "--cache", f"{kept}:10M").status == 0
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 2
    assert any(kept.rglob("*"))
    assert "all whole" in cli("verify", url).out
    assert "all whole" in cli("verify", "--fast", f"{url}/volumes/{rows[0]['volume']}.zarr").out
    assert "0 removed" in cli("gc", url).out
    assert cli("report", url).status == 2


def damaged(path: StorePath, change) -> None:
    path.write(change(bytearray(path.read_bytes())))


def flip(content):
    content[len(content) // 2] ^= 1
    return bytes(content)


@pytest.mark.parametrize("element", ["kspace", "seg/tissue"])
def test_damage_is_found(bucket, element):
    """One flipped bit, a truncated and a missing object, in data and metadata."""
    cohort = tiny_cohort(f"{bucket}/c", subjects=2, slices=2, coils=2, matrix=(8, 8))
    volume = cohort.volumes()[0]
    file = volume.path / element / "data" / "c/0/0/0"
    file = next(path for path in (volume.path / element).rglob("*") if path.name != "zarr.json")
    content = file.read_bytes()
    for change, fast in ((flip, False), (lambda data: bytes(data[:-3]), True), (lambda data: b"", True)):
        damaged(file, change)
        with pytest.raises(CorruptElementError, match="c/0"):
            open_cohort(cohort.path)[volume.id][element].numpy()
        for quickly in {fast, False}:
            assert {p.element for p in verify(cohort, fast=quickly).problems} == {element}
        file.write(content)
    file.backend.delete([file.key])
    with pytest.raises(CorruptElementError, match="found no file"):
        cohort[volume.id][element].numpy()
    assert [p.kind for p in verify(cohort, fast=True).problems] == ["missing"]
    file.write(content)
    damaged(volume.path / element / "zarr.json", flip)
    with pytest.raises(CorruptElementError):
        cohort[volume.id][element]
    assert not verify(cohort, fast=True).ok


def test_an_open_element_is_replaced(bucket, made):
    """A reader gets the old data or StoreError, never a mixture."""
    cohort = create_cohort(f"{bucket}/c")
    shape = (6, 2, 64, 64)
    data = np.random.default_rng(0).standard_normal(shape).astype(np.complex64)
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01") as volume:
        volume.write("kspace", data, provenance=made)
    opened, unread = volume["kspace"], volume["kspace"]
    np.testing.assert_array_equal(opened[0], data[0])
    volume.write("kspace", 2 * data, provenance=made, replace=True)
    for element in (opened, unread):
        with pytest.raises(StoreError, match="Open it again"):
            element[1]
    np.testing.assert_array_equal(volume["kspace"][1], 2 * data[1])
    again = volume["kspace"]
    volume.remove("kspace")
    with pytest.raises(StoreError, match="Open it again"):
        again[0:3]


def test_requests_are_few(bucket, s3_server, made):
    """Elements are found by one listing; a selection of chunks is read by joined ranges, not chunk by chunk."""
    cohort = create_cohort(f"{bucket}/c")
    data = np.random.default_rng(0).standard_normal((24, 2, 64, 64)).astype(np.complex64)
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01") as volume:
        volume.write("kspace", data, provenance=made)
        for n in range(4):
            volume.write(f"image/{n}", np.ones((24, 64, 64), np.float32), provenance=made)
    opened = open_volume(str(volume.path))
    before = len(s3_server.requests())
    assert len(opened.elements()) == 5
    done = s3_server.requests()[before:]
    assert sum("list-type" in path for _, path, _ in done) == 1
    assert len(done) == 1 + 2 + 2 * 5  # the listing; the root and the group of images; elements and arrays
    kspace = opened["kspace"]
    before = len(s3_server.requests())
    np.testing.assert_array_equal(kspace[3:20], data[3:20])
    done = s3_server.requests()[before:]
    assert [method for method, _, _ in done] == ["GET", "HEAD", "GET"]  # the index, the guard, seventeen chunks
    assert done[-1][2] == 206


def test_what_travels_to_other_processes(in_s3, local, tmp_path):
    """Cohorts, volumes and elements are pickled by their URLs, with the place of the cache."""
    cohort = open_cohort(str(in_s3.path), cache=tmp_path, cache_bytes=10**6)
    volume = cohort.volumes()[0]
    element = volume["kspace"]
    for thing in (cohort, volume, element):
        copy = pickle.loads(pickle.dumps(thing))
        place = copy.folder if hasattr(copy, "folder") else copy.path
        assert place.cache.max_bytes == 10**6
        assert place.is_live
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(element))[1], local.volumes()[0]["kspace"][1])
    work = pickle.loads(pickle.dumps(_Convert(cohort.path.resolve(), False)))
    assert work.cohort == cohort.path


@pytest.mark.slow
def test_loaders_read_from_other_processes(in_s3, local):
    torch = pytest.importorskip("torch")
    from mri_io.torch import SliceDataset

    dataset = SliceDataset(str(in_s3.path), ["kspace", "seg/tissue"], part=None)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    count = 0
    for sample in loader:
        expected = local[sample["volume_id"]]["kspace"][sample["slice"]]
        np.testing.assert_array_equal(np.asarray(sample["kspace"]), expected)
        count += 1
    assert count == 9


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files with ranges, as web servers give them, and without lists."""

    wanted = None

    def log_message(self, *_):
        pass

    def parse_request(self):
        known = super().parse_request()
        if known and self.wanted not in (None, self.headers.get("Authorization")):
            self.send_error(401)
            return False
        return known

    def list_directory(self, path):
        self.send_error(404)

    def send_head(self):
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        file = path.open("rb")
        file.seek(start)
        whole, file.read = file.read, lambda n=-1: whole(min(n, stop - file.tell()) if n > 0 else stop - file.tell())
        return file


class Web(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # connections beyond it are tried again after a second


@pytest.fixture
def web(local):
    handler = functools.partial(Quiet, directory=str(local.path.parent))
    with Web(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{local.path.name}"
        server.shutdown()
        thread.join()


def test_a_web_server_without_lists(web, local):
    """The index names the volumes, the copy of metadata in each root its elements; nothing can be written."""
    (local.path / "index.jsonl").unlink(missing_ok=True)
    with pytest.raises(StoreError, match=r"index\.jsonl"):
        open_cohort(web).volume_ids()
    build_index(local)
    cohort = open_cohort(web)
    for found, expected in zip(cohort.volumes(), local.volumes(), strict=True):
        assert list(found.elements()) == list(expected.elements())
        np.testing.assert_array_equal(found["kspace"][1:], expected["kspace"][1:])
        assert found["seg/tissue"].labels == expected["seg/tissue"].labels
    assert verify(web).ok
    with pytest.raises(StoreError, match="web servers are read-only"):
        cohort.write_split(cohort.split())
    with pytest.raises(StoreError, match="web servers are read-only"):
        cohort.record_failure("a", "b", "c")


USER, PASSWORD, DECODED = "alice", "hunter%2F2", "hunter/2"
LOGIN = f"{USER}:{PASSWORD}"


def hides_the_password(*texts: object) -> bool:
    return not any(secret in str(text) for text in texts for secret in (PASSWORD, DECODED, USER))


def test_a_password_in_a_url_is_for_connecting_only(cli, made):
    """It travels to other processes, but is in no text: of paths, errors and tracebacks, commands, and the store."""
    pytest.importorskip("fsspec")
    url = f"memory://{LOGIN}@host-of-passwords/c"
    cohort = create_cohort(url)
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01") as volume:
        volume.write("image/a", np.ones((2, 4, 4), np.float32), provenance=made)
    copy = pickle.loads(pickle.dumps(open_cohort(url)))
    assert copy[volume.id]["image/a"].shape == (2, 4, 4)
    assert (str(cohort.path), str(copy.path)) == ("memory://host-of-passwords/c",) * 2
    assert hides_the_password(*(show(thing) for show in (str, repr) for thing in (cohort, cohort.path, volume.path)))
    assert hides_the_password(repr(cohort.path.root), create_cohort(f"memory://{LOGIN}@host").name)
    for failing in (
        lambda: cohort["nothing"],
        lambda: open_cohort(f"{url}/nothing"),
        lambda: (cohort.path / "nothing").read_bytes(),
        lambda: (cohort.path / "cohort.json" / "below").write(b""),
        lambda: mri_io.store.migrate(url),
        lambda: store_path(f"memory://{LOGIN}@host/../x"),
        lambda: store_path(f"sftp://{USER}:{DECODED}@host/x"),
        lambda: local_place(url, "runs"),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011  (whatever it is, it is shown to somebody)
            failing()
        assert hides_the_password(*traceback.format_exception(caught.value))
        cohort.record_failure("item", caught.value, "test")
    build_index(cohort)
    cohort.write_split(make_split(cohort, counts=(1, 0, 0)))
    stored = [path.read_bytes().decode(errors="replace") for path in cohort.path.rglob("*")]
    assert len(stored) > 6
    assert hides_the_password(*stored)
    done = [cli(name, url) for name in ("info", "ls", "verify", "gc", "report")]
    assert [one.status for one in done] == [0, 0, 0, 0, 2]
    assert hides_the_password(*done)


def test_errors_of_libraries_do_not_tell_the_password(monkeypatch):
    pytest.importorskip("fsspec")
    place = store_path(f"memory://{LOGIN}@host-of-errors/c")

    def failing(self, path, **_):
        raise OSError(f"cannot reach {LOGIN}@host-of-errors nor {DECODED} nor {path}")

    monkeypatch.setattr(type(place.backend.fs), "info", failing)
    with pytest.raises(StoreError, match=r"cannot reach \*\*\*@host-of-errors") as caught:
        place.read_bytes()
    assert hides_the_password(*traceback.format_exception(caught.value))
    assert str(store_path("abfss://container@account.dfs.core.windows.net/a")).startswith("abfss://container@account")


def test_a_web_server_that_wants_a_password(web, local, monkeypatch):
    build_index(local)
    monkeypatch.setattr(Quiet, "wanted", "Basic " + base64.b64encode(f"{USER}:{DECODED}".encode()).decode())
    host = web.removeprefix("http://")
    with pytest.raises(StoreError, match="401"):
        open_cohort(web)
    with pytest.raises(StoreError, match="401") as caught:
        open_cohort(f"http://{LOGIN}wrong@{host}")
    assert hides_the_password(*traceback.format_exception(caught.value))
    cohort = open_cohort(f"http://{LOGIN}@{host}")
    np.testing.assert_array_equal(cohort.volumes()[0]["kspace"][1:], local.volumes()[0]["kspace"][1:])


def test_urls():
    path = store_path("s3://bucket/a//b/c.zarr/")
    assert isinstance(path, StorePath)
    assert (str(path), path.name, path.stem, path.suffix) == ("s3://bucket/a/b/c.zarr", "c.zarr", "c", ".zarr")
    assert (str(path.parent), str(path / "x" / "y"), path.parents[1].key) == (
        "s3://bucket/a/b", "s3://bucket/a/b/c.zarr/x/y", "a",
    )  # fmt: skip
    assert path.relative_to(path.parents[1]).as_posix() == "b/c.zarr"
    assert path.with_suffix(".csv").name == "c.csv"
    assert store_path("file:///a/b%20c") == Path("/a/b c")
    assert store_path("a/b") == Path("a/b")
    assert store_path("C:/a") == Path("C:/a")
    for wrong in ("s3://", "s3://bucket/../x", "://x", "zip::s3://bucket/x"):
        with pytest.raises(ConfigError, match="URL"):
            store_path(wrong)
    with pytest.raises(ConfigError, match="nosuch"):
        create_cohort("nosuch://host/x")


def test_what_is_not_there(bucket, monkeypatch):
    with pytest.raises(StoreError, match="no cohort here"):
        open_cohort(f"{bucket}/nothing")
    with pytest.raises(ElementNotFoundError):
        open_volume(f"{bucket}/c/volumes/v.zarr")
    monkeypatch.setattr(backends, "_open", {})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("mri_io.store.remote.object_store._RETRY", {"max_retries": 0})
    with pytest.raises(StoreError, match="credentials"):
        open_cohort(f"{bucket}/c")
    monkeypatch.setattr(backends, "_open", {})
    monkeypatch.setattr(backends, "import_module", lambda name: exec("raise ImportError('no')"))
    with pytest.raises(MissingPackageError, match=r"mri-io\[remote\]"):
        open_cohort(f"{bucket}/c")


def test_a_missing_bucket_and_missing_credentials_are_said_in_words(bucket, s3_server, monkeypatch):
    for use in (open_cohort, create_cohort):
        with pytest.raises(StoreError, match=r"there is no bucket 'not-made'\. Check its name") as refused:
            use("s3://not-made/c")
        assert "xml" not in str(refused.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", s3_server.address)  # where a machine with a role asks
    monkeypatch.setattr(backends, "_open", {})
    with pytest.raises(
        StoreError, match=r"there are no credentials, .* Set AWS_ACCESS_KEY_ID and AWS_SECRET"
    ) as refused:
        open_cohort(f"{bucket}/c")
    assert s3_server.address not in str(refused.value)


def test_garbage_of_nobody_is_none(in_s3):
    assert collect_garbage(in_s3, dry_run=True) == []
