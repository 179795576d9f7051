"""A volume is plain zarr: other readers find the same values without this project, and a hand-written one does too."""

import hashlib
import json
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import xarray
import zarr
from zarr.codecs import Crc32cCodec

from mri_io import create_cohort, open_cohort, verify
from mri_io.schema import Provenance
from mri_io.store import collect_garbage
from mri_io.store.arrays import StoredArray

# Runs without this project: importing it is an error there.
FOREIGN = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mri_io":
            raise ImportError("mri_io must not be needed")

sys.meta_path.insert(0, Refuse())
"""
WITH_ZARR = """
import numpy, zarr
root = zarr.open_group(sys.argv[1], mode="r", **OPTIONS)
assert root.attrs["mri"]["subject_id"] == "sub-01", dict(root.attrs)
found = {}
for path, node in root.members(max_depth=None):
    if isinstance(node, zarr.Array):
        found[path] = node[...]
        found["dims/" + path] = numpy.array(node.metadata.dimension_names)
numpy.savez(sys.argv[2], **found)
"""
WITH_DATATREE = """
import numpy, xarray
tree = xarray.open_datatree(sys.argv[1], engine="zarr", chunks={}, **OPTIONS)
assert tree.attrs["mri"]["subject_id"] == "sub-01", tree.attrs
found = {}
for node in tree.subtree:
    for name, array in node.data_vars.items():
        path = (node.path + "/" + name).lstrip("/")
        found[path] = array.values
        found["dims/" + path] = numpy.array(array.dims)
numpy.savez(sys.argv[2], **found)
"""
WITH_OPEN_ZARR = """
import numpy, xarray, zarr
found = {}
for path, node in zarr.open_group(sys.argv[1], mode="r").members(max_depth=None):
    if isinstance(node, zarr.Array):
        group, _, name = path.rpartition("/")
        array = xarray.open_zarr(sys.argv[1], group=group, **OPTIONS)[name]
        found[path], found["dims/" + path] = array.values, numpy.array(array.dims)
numpy.savez(sys.argv[2], **found)
"""
READERS = {"zarr": WITH_ZARR, "open_datatree": WITH_DATATREE, "open_zarr": WITH_OPEN_ZARR}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A volume with every codec, and the arrays that were written by path; tests leave it as it is."""
    rng, made = np.random.default_rng(3), Provenance(method="test", package="mri-io", version="0")
    cohort = create_cohort(tmp_path_factory.mktemp("interop") / "c")
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01") as volume:
        written = _fill(volume, made, rng)
    return cohort[volume.id], written


def _fill(volume, made, rng):
    complex64 = lambda *shape: (rng.random(shape) + 1j * rng.random(shape)).astype(np.complex64)  # noqa: E731
    labels = rng.integers(0, 3, (3, 7, 5)).astype(np.uint16)
    written = {
        "kspace": complex64(3, 2, 7, 5),
        "noise": complex64(2, 11),
        "sens/espirit": complex64(3, 1, 2, 7, 5),
        "recon/reference": complex64(3, 7, 5),
        "image/t1": rng.integers(-500, 500, (3, 7, 5)).astype(np.int16),
        "qmap/t2": np.where(labels == 2, np.nan, 1).astype(np.float32),
        "seg/tissue": labels,
        "emb/vit/block-1": rng.random((3, 4, 2, 2)).astype(np.float16),
        "mask/acquired": np.array([1, 0, 1, 1, 0], np.uint8),
    }
    more = {
        "mask/acquired": {"dims": ("kx",)},
        "seg/tissue": {"labels": {1: "grey", 2: "white"}, "affine": np.diag([1, 2, 3, 1.0])},
        "qmap/t2": {"attributes": {"unit": "s"}},
    }
    for path, data in written.items():
        volume.write(path, data, provenance=made, **more.get(path, {}))
    prompts = {"slice": np.arange(4), "label": np.ones(4, np.int32), "points": rng.random((4, 2)).astype(np.float32)}
    volume.write("prompts/clicks", prompts, provenance=made)
    arrays = {f"{path}/data": data for path, data in written.items()}
    return {**arrays, **{f"prompts/clicks/{name}": data for name, data in prompts.items()}}


def read_elsewhere(reader: str, volume, out, *, consolidated: bool | None) -> dict[str, np.ndarray]:
    """Return all arrays as another reader finds them, in a process where this project cannot be imported."""
    options = "" if consolidated is None else f"consolidated={consolidated}"
    script = FOREIGN + f"OPTIONS = dict({options})\n" + READERS[reader]
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", script, str(volume.path), str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    with np.load(out) as found:
        return dict(found)


@pytest.mark.parametrize(
    ("reader", "consolidated"),
    [("zarr", None), ("open_datatree", None), ("open_datatree", False), ("open_zarr", False)],
)
def test_other_readers_find_the_same(filled, tmp_path, reader, consolidated):
    volume, written = filled
    found = read_elsewhere(reader, volume, tmp_path / "found.npz", consolidated=consolidated)
    arrays = {path: data for path, data in found.items() if not path.startswith("dims/")}
    assert arrays.keys() == written.keys()
    for path, data in written.items():
        np.testing.assert_array_equal(arrays[path], data, err_msg=path)
        assert arrays[path].dtype == data.dtype
        element, _, name = path.rpartition("/")
        assert tuple(found[f"dims/{path}"]) == volume[element].arrays[name].dims


def test_a_killed_writer_leaves_plain_readers_with_consolidated_false(volume, made, monkeypatch):
    """The copy of metadata in the root lags after a kill; reading past it finds all, and gc renews it."""
    data = np.ones((3, 7, 5), np.float32)
    volume.write("recon/a", data, provenance=made)
    with monkeypatch.context() as patch:
        patch.setattr("mri_io.store.roots.refresh_root", lambda *_: None)
        volume.write("recon/b", data, provenance=made)
    names = lambda **options: set(xarray.open_datatree(volume.path, engine="zarr", **options)["recon"])  # noqa: E731
    assert names() == {"a"}
    assert names(consolidated=False) == {"a", "b"}
    report = verify(volume.path.parents[1])
    assert (report.ok, report.stale) == (True, [volume.path])
    collect_garbage(open_cohort(volume.path.parents[1]))
    assert names() == {"a", "b"}
    assert verify(volume.path.parents[1]).stale == []


def test_a_root_without_the_copy_needs_consolidated_false(filled, tmp_path):
    volume, written = filled
    copied = shutil.copytree(volume.path, tmp_path / volume.path.name)
    root = copied / "zarr.json"
    content = json.loads(root.read_text())
    del content["consolidated_metadata"], content["attributes"]["mri"]["metadata_sha256"]
    root.write_text(json.dumps(content))
    with pytest.warns(RuntimeWarning, match="consolidated"):
        xarray.open_datatree(copied, engine="zarr").close()
    tree = xarray.open_datatree(copied, engine="zarr", consolidated=False)
    np.testing.assert_array_equal(tree["kspace/data"].values, written["kspace/data"])


CASTAGNOLI = 0x82F63B78


def crc32c(data: bytes) -> int:
    """Return the checksum as RFC 3720 defines it, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (CASTAGNOLI if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_kspace_decoded_by_hand(filled):
    """Read k-space with nothing but the specification: offsets, little-endian floats, checksums."""
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the polynomial
    volume, written = filled
    folder = volume.path / "kspace" / "data"
    metadata = json.loads((folder / "zarr.json").read_text())
    assert metadata["data_type"] == "complex64"
    assert [codec["name"] for codec in metadata["codecs"]] == ["sharding_indexed"]
    inner = metadata["codecs"][0]["configuration"]
    assert inner["chunk_shape"] == [1, 2, 7, 5]
    assert [codec["name"] for codec in inner["codecs"]] == ["bytes", "crc32c"]
    shard = (folder / "c" / "0" / "0" / "0" / "0").read_bytes()
    index, checksum = shard[-52:-4], struct.unpack("<I", shard[-4:])[0]
    assert crc32c(index) == checksum
    for number, (offset, length) in enumerate(struct.iter_unpack("<QQ", index)):
        chunk = shard[offset : offset + length]
        assert crc32c(chunk[:-4]) == struct.unpack("<I", chunk[-4:])[0]
        floats = np.frombuffer(chunk[:-4], "<f4").reshape(2, 7, 5, 2)
        np.testing.assert_array_equal(floats[..., 0] + 1j * floats[..., 1], written["kspace/data"][number])


CODECS = {"recon/reference": "blosc", "image/t1": "blosc", "seg/tissue": "zstd", "mask/acquired": "zstd"}


@pytest.mark.parametrize("path", CODECS)
def test_codecs_are_those_of_the_specification(filled, path):
    volume, _ = filled
    metadata = json.loads((volume.path / path / "data" / "zarr.json").read_text())
    codecs = metadata["codecs"]
    if codecs[0]["name"] == "sharding_indexed":
        codecs = codecs[0]["configuration"]["codecs"]
    compressor = codecs[1]["configuration"]
    assert codecs[1]["name"] == CODECS[path]
    if CODECS[path] == "zstd":
        assert compressor["checksum"] is True
    else:
        assert (compressor["cname"], compressor["shuffle"]) == ("zstd", "bitshuffle")
        assert compressor["typesize"] == {"recon/reference": 4, "image/t1": 2}[path]
        assert codecs[2]["name"] == "crc32c"
    assert metadata["fill_value"] in (0, [0.0, 0.0])


def test_the_seal_is_the_hash_of_the_documented_bytes(filled):
    volume, _ = filled
    for path, element in volume.elements().items():
        group = (element.folder / "zarr.json").read_bytes()
        stored = json.loads(group)["attributes"]["mri"]["metadata_sha256"]
        digest = hashlib.sha256(group.replace(stored.encode(), b"0" * 64))
        for name in sorted(element.arrays):
            digest.update(name.encode() + b"\0" + (element.folder / name / "zarr.json").read_bytes())
        assert digest.hexdigest() == stored, path
    root = (volume.path / "zarr.json").read_bytes()
    stored = json.loads(root)["attributes"]["mri"]["metadata_sha256"]
    head, _, tail = root.rpartition(stored.encode())
    assert hashlib.sha256(head + b"0" * 64 + tail).hexdigest() == stored


def test_the_lazy_tree_equals_the_one_of_xarray(filled):
    volume, written = filled
    ours = volume.to_datatree()
    theirs = xarray.open_datatree(volume.path, engine="zarr", chunks={})
    assert {node.path for node in ours.subtree} == {node.path for node in theirs.subtree}
    for path in written:
        element, _, name = path.rpartition("/")
        mine, other = ours[element].dataset[name], theirs[element].dataset[name]
        xarray.testing.assert_equal(mine, other)
        assert mine.chunks is not None  # lazy
        for key, value in theirs[element].attrs["mri"].items():
            assert ours[element].attrs["mri"][key] == value


def test_lazy_views_read_only_what_is_asked_for(filled, monkeypatch):
    volume, written = filled
    view = volume["kspace"].xarray()
    assert view.dims == ("slice", "coil", "ky", "kx")
    assert view.chunks == ((1, 1, 1), (2,), (7,), (5,))
    assert view.attrs["mri"]["type"] == "kspace"
    touched = []
    original = StoredArray.chunk
    monkeypatch.setattr(StoredArray, "chunk", lambda self, p: touched.append(p) or original(self, p))
    np.testing.assert_array_equal(view.isel(slice=2, coil=1).values, written["kspace/data"][2, 1])
    assert touched == [(2,)]


def test_an_element_written_by_plain_zarr_is_read(volume, made, rng):
    """What another writer makes by the specification is an element, without the protection of the seal."""
    data = rng.random((3, 7, 5)).astype(np.float32)
    mri = {"type": "recon", "type_version": 1, "name": "theirs", "commit": "12345678-1234-1234-1234-123456789abc"}
    stored = Provenance(method="theirs", package="other", version="3").to_attributes()
    root = zarr.open_group(volume.path, mode="r+")
    group = root.create_group("recon/theirs", attributes={"mri": {**mri, "provenance": stored}})
    group.create_array(
        "data",
        data=data,
        chunks=(1, 7, 5),
        shards=data.shape,
        compressors=[zarr.codecs.BloscCodec(cname="zstd", shuffle="bitshuffle", typesize=4), Crc32cCodec()],
        dimension_names=("slice", "y", "x"),
        config={"write_empty_chunks": True},
    )
    element = volume["recon/theirs"]
    assert element.arrays["data"].is_mapped
    np.testing.assert_array_equal(element.numpy(), data)
    assert element.provenance["package"] == "other"
    assert "recon/theirs" in volume.elements()
