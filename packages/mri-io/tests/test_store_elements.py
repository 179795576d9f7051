"""Elements: what is written is what is read, element by element; what must not be written is refused."""

import json
import pickle

import numpy as np
import pytest
import zarr

from mri_io import open_volume, verify
from mri_io.errors import (
    ElementExistsError,
    ElementNotFoundError,
    NonFiniteError,
    SchemaError,
    ShapeError,
    StoreError,
)
from mri_io.schema import Provenance
from mri_io.store import mask_array

AFFINE = np.array([[0.9, 0.1, 0, -90], [-0.1, 0.9, 0, -126], [0, 0, 5, -72.5], [0, 0, 0, 1]])
GRID = ("slice", "y", "x")
CASES = [
    ("kspace", (3, 4, 7, 5), "complex64", ("slice", "coil", "ky", "kx"), None),
    ("kspace", (3, 4, 7, 5), "complex64", ("kz", "coil", "ky", "kx"), ("kz", "coil", "ky", "kx")),
    ("kspace", (2, 3, 4, 7, 5), "complex64", *2 * (("frame", "slice", "coil", "ky", "kx"),)),
    ("kspace", (2, 3, 4, 7, 5), "complex64", *2 * (("echo", "kz", "coil", "ky", "kx"),)),
    ("kspace", (2, 3, 4, 7, 5), "complex64", *2 * (("slice", "kz", "coil", "ky", "kx"),)),
    ("kspace", (2, 2, 3, 1, 4, 3, 5), "complex64", *2 * (("set", "frame", "echo", "slice", "coil", "ky", "kx"),)),
    ("kspace", (2, 3, 4, 7, 5), "complex64", *2 * (("frame", "slice", "coil", "shot", "sample"),)),
    ("trajectory", (7, 5, 2), "float32", ("shot", "sample", "axis"), None),
    ("trajectory", (2, 3, 7, 5, 3), "float32", *2 * (("frame", "slice", "shot", "sample", "axis"),)),
    ("noise", (4, 33), "complex64", ("coil", "sample"), None),
    ("mask/acquired", (5,), "uint8", ("kx",), ("kx",)),
    ("mask/acquired", (7,), "uint8", ("ky",), ("ky",)),
    ("mask/poisson", (7, 5), "uint8", ("ky", "kx"), None),
    ("mask/per-slice", (3, 7, 5), "uint8", *2 * (("slice", "ky", "kx"),)),
    ("mask/kt", (4, 7), "uint8", *2 * (("frame", "ky"),)),
    ("mask/plane", (4, 7, 5), "uint8", *2 * (("kz", "ky", "kx"),)),
    ("sens/espirit", (3, 2, 4, 7, 5), "complex64", ("slice", "map", "coil", "y", "x"), None),
    ("sens/three-d", (3, 2, 4, 7, 5), "complex64", *2 * (("z", "map", "coil", "y", "x"),)),
    ("recon/rss", (3, 7, 5), "float32", GRID, None),
    ("recon/cg-sense-r4", (3, 7, 5), "complex64", GRID, None),
    ("recon/three-d", (3, 7, 5), "complex64", ("z", "y", "x"), ("z", "y", "x")),
    ("recon/cine", (4, 3, 7, 5), "complex64", *2 * (("frame", *GRID),)),
    ("image/echoes", (2, 4, 3, 7, 5), "int16", *2 * (("frame", "echo", *GRID),)),
    ("image/t1", (3, 7, 5), "float32", GRID, None),
    ("image/t2", (3, 7, 5), "int16", GRID, None),
    ("seg/tissue", (3, 7, 5), "uint8", GRID, None),
    ("seg/regions", (3, 7, 5), "uint16", GRID, None),
    ("image/dwi", (2, 3, 7, 5), "float32", *2 * (("set", "z", "y", "x"),)),
    ("seg/cine", (4, 3, 7, 5), "uint8", *2 * (("frame", *GRID),)),
    ("qmap/t1", (3, 7, 5), "float32", GRID, None),
    ("qmap/three-d", (3, 7, 5), "float32", *2 * (("z", "y", "x"),)),
    ("emb/sam/block-3", (3, 6, 2, 4), "float16", ("slice", "channel", "ey", "ex"), None),
]
MORE = {
    "trajectory": {"attributes": {"unit": "1/pixel"}},
    "qmap": {"attributes": {"unit": "s"}},
    "seg": {"labels": {1: "grey matter", 2: {"name": "white", "code": "X"}}},
}


def values(rng: np.random.Generator, path: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if path.startswith(("mask", "seg")):
        return rng.integers(0, 2 if path.startswith("mask") else 3, shape).astype(dtype)
    if dtype == "int16":
        return rng.integers(-(2**15), 2**15, shape).astype(dtype)
    real = rng.standard_normal(shape)
    return (real + 1j * rng.standard_normal(shape)).astype(dtype) if dtype == "complex64" else real.astype(dtype)


def as_gzip(element) -> None:
    """Store an element's data anew with codecs that only zarr knows, as another writer might."""
    data, dims = element.numpy(), element.dims
    zarr.create_array(
        element.folder / "data",
        data=data,
        chunks=(2, *data.shape[1:-1], 3),
        compressors=zarr.codecs.GzipCodec(),
        dimension_names=dims,
        config={"write_empty_chunks": True},
        overwrite=True,
    )
    file = element.folder / "zarr.json"
    content = json.loads(file.read_text())
    del content["attributes"]["mri"]["metadata_sha256"]
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(("path", "shape", "dtype", "dims", "given"), CASES, ids=lambda case: str(case))
def test_round_trip(volume, made, rng, path, shape, dtype, dims, given):
    data = values(rng, path, shape, dtype)
    before = data.copy()
    volume.write(path, data, provenance=made, dims=given, **MORE.get(path.partition("/")[0], {}))
    element = open_volume(volume.path)[path]
    assert (element.shape, element.dtype, element.dims) == (shape, np.dtype(dtype), dims)
    assert element.arrays["data"].is_mapped
    np.testing.assert_array_equal(element.numpy(), before)
    np.testing.assert_array_equal(zarr.open_array(element.folder / "data", mode="r")[...], before)
    assert verify(volume).problems == []


@pytest.mark.parametrize("fall_back", [False, True], ids=["mapped", "zarr"])
@pytest.mark.parametrize("path", ["kspace", "recon/rss"])
def test_slicing_equals_numpy(volume, made, rng, path, fall_back):
    shape = (2, 3, 4, 7, 5) if path == "kspace" else (6, 7, 5)
    data = values(rng, path, shape, "complex64")
    dims = ("frame", "slice", "coil", "ky", "kx") if path == "kspace" else None
    element = volume.write(path, data, provenance=made, dims=dims)
    if fall_back:
        as_gzip(element)
        element = open_volume(volume.path)[path]
        assert not element.arrays["data"].is_mapped
    indices = [0, -1, ..., slice(None), slice(1, 2), slice(None, None, -1), slice(5, 2, -2), slice(9, 9), np.int64(1)]
    indices += [(0, 1), (1, slice(0, 2)), (..., 2), (..., slice(1, -1)), (0, ..., 3), (-1, slice(None, None, 2), 1)]
    indices += [(slice(None, None, -1), slice(None, None, -2), slice(4, None, -1)), ()]
    for _ in range(30):
        index = []
        for size in shape[: rng.integers(1, len(shape) + 1)]:
            a, b = (int(n) for n in rng.integers(-size, size, 2))
            index.append(a if rng.random() < 0.5 else slice(a, b, int(rng.choice([-2, -1, 1, 2]))))
        indices.append(tuple(index))
    for index in indices:
        np.testing.assert_array_equal(element[index], data[index], err_msg=str(index))
        assert element[index].shape == data[index].shape


@pytest.mark.parametrize("index", [(0,) * 4, 6, -7, (..., ...), True, [0, 1], 1.0, None, np.array([True] * 6)])
@pytest.mark.parametrize("fall_back", [False, True], ids=["mapped", "zarr"])
def test_other_indices_are_errors(volume, made, rng, index, fall_back):
    element = volume.write("recon/rss", values(rng, "recon", (6, 7, 5), "float32"), provenance=made)
    if fall_back:
        as_gzip(element)
        element = volume["recon/rss"]
    with pytest.raises(IndexError):
        element[index]


def test_reading_gives_writable_copies(volume, made, rng):
    for path, shape in (("kspace", (3, 2, 7, 5)), ("recon/a", (3, 7, 5))):
        data = values(rng, path, shape, "complex64")
        element = volume.write(path, data, provenance=made)
        for index in (0, slice(None), ..., (0, slice(1, 3))):
            part = element[index]
            part[...] = 0
            np.testing.assert_array_equal(element[index], data[index])
    assert verify(volume).ok


@pytest.mark.parametrize("dtype", ["complex64", ">c8"])
def test_input_of_any_layout(volume, made, rng, dtype):
    data = values(rng, "kspace", (5, 7, 2, 3), "complex64").astype(dtype).transpose(3, 2, 1, 0)[:, ::-1]
    element = volume.write("kspace", data, provenance=made)
    assert element.dtype == np.complex64
    np.testing.assert_array_equal(element.numpy(), data)


def test_booleans_become_a_mask(volume, made):
    mask = np.array([True, False, True, True, False])
    element = volume.write("mask/a", mask, provenance=made, dims=("kx",))
    assert element.dtype == np.uint8
    assert element.numpy().tolist() == [1, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("dims", "shape", "wanted"),
    [
        (("kx",), (5,), (1, 5)),
        (("ky",), (7,), (7, 1)),
        (("ky", "kx"), (7, 5), (7, 5)),
        (("slice", "ky", "kx"), (3, 7, 5), (3, 7, 5)),
    ],
)
def test_mask_array_broadcasts_against_kspace(volume, made, rng, dims, shape, wanted):
    mask = values(rng, "mask", shape, "uint8")
    found = mask_array(volume.write("mask/a", mask, provenance=made, dims=dims))
    assert found.shape == wanted
    assert np.broadcast_shapes(found.shape, (3, 7, 5)) == (3, 7, 5)
    np.testing.assert_array_equal(found.ravel(), mask.ravel())


def test_mask_array_of_another_type_is_refused(volume, made):
    element = volume.write("recon/a", np.ones((3, 7, 5), np.float32), provenance=made)
    with pytest.raises(ShapeError, match="element type: expected mask, got recon"):
        mask_array(element)


SHAPES = {"kspace": (3, 5, 2, 7, 5), "sens/a": (3, 2, 2, 7, 5), "seg/a": (11, 7, 5)}  # chunks of 560, 1120, 35 bytes


@pytest.mark.parametrize(
    ("path", "limit", "files"),
    [
        *[("kspace", 1, 15), ("kspace", 2300, 6), ("kspace", 10**9, 1)],
        *[("sens/a", 1, 3), ("sens/a", 2300, 2), ("sens/a", 10**9, 1)],
        *[("seg/a", 1, 11), ("seg/a", 100, 6), ("seg/a", 10**9, 1)],
    ],
)
def test_many_shards(volume, made, rng, monkeypatch, path, limit, files):
    monkeypatch.setattr("mri_io.schema.elements.SHARD_BYTES", limit)
    shape = SHAPES[path]
    data = values(rng, path, shape, "uint8" if path == "seg/a" else "complex64")
    dims = ("frame", "slice", "coil", "ky", "kx") if path == "kspace" else None
    volume.write(path, data, provenance=made, dims=dims, **MORE.get(path.partition("/")[0], {}))
    element = open_volume(volume.path)[path]
    assert sum(1 for file in (element.folder / "data" / "c").rglob("*") if file.is_file()) == files
    np.testing.assert_array_equal(element.numpy(), data)
    np.testing.assert_array_equal(element[1, ..., ::2], data[1, ..., ::2])
    np.testing.assert_array_equal(zarr.open_array(element.folder / "data", mode="r")[...], data)
    assert verify(volume).problems == []


def test_attributes_come_back(volume, made, rng):
    first = volume.write("recon/a", values(rng, "recon", (3, 7, 5), "float32"), provenance=made, affine=AFFINE)
    config = {"lambda": 0.01, "iterations": 10, "nested": {"list": [1, None, "é"]}}
    result = Provenance.of("mri-io", "segment", config, [first], seed=7, weights_sha256="a" * 64)
    labels = {1: "grey matter", 2: {"name": "white matter", "code": "SCT 389081007"}}
    data = rng.integers(0, 3, (3, 7, 5)).astype(np.uint8)
    more = {"threshold": 0.5, "text": "größer"}
    volume.write("seg/b", data, provenance=result, affine=AFFINE.tolist(), labels=labels, attributes=more)
    element = open_volume(volume.path)["seg/b"]
    np.testing.assert_array_equal(element.affine, AFFINE)
    assert element.affine.dtype == np.float64
    assert element.labels == {1: {"name": "grey matter"}, 2: {"name": "white matter", "code": "SCT 389081007"}}
    assert {key: element.attributes[key] for key in more} == more
    assert (element.type, element.name, element.path, element.volume_id) == ("seg", "b", "seg/b", volume.id)
    stored = element.provenance
    assert stored["config"] == config
    assert stored["inputs"] == [{"path": "recon/a", "commit": first.commit}]
    assert (stored["method"], stored["package"], stored["seed"]) == ("segment", "mri-io", 7)
    assert stored["weights_sha256"] == "a" * 64
    assert stored["config_hash"] == result.config_hash
    assert len({first.commit, element.commit}) == 2
    header = open_volume(volume.path).header
    assert (header.recon_matrix, header.te_s, header.vendor) == ((5, 7, 3), (0.03,), "SIEMENS")


def test_prompts_have_several_arrays(volume, made, rng):
    arrays = {
        "slice": np.array([0, 2], np.int64),
        "label": np.array([1, 2], np.int32),
        "boxes": rng.random((2, 4)).astype(np.float32),
    }
    volume.write("prompts/clicks", arrays, provenance=made)
    element = open_volume(volume.path)["prompts/clicks"]
    assert set(element.arrays) == set(arrays)
    for name, data in arrays.items():
        np.testing.assert_array_equal(element.array(name), data)
        assert element.array(name).dtype == data.dtype
    with pytest.raises(ElementNotFoundError, match="array: expected boxes, label, slice, got 'points'"):
        element.array("points")
    with pytest.raises(ShapeError, match=r"name one of boxes, label, slice in \.array\(name\)"):
        element.numpy()
    assert verify(volume).ok


def test_prompts_of_points_in_either_integer(volume, made, rng):
    arrays = {
        "slice": np.array([0, 0, 2], np.int32),
        "label": np.array([1, 1, 2], np.int64),
        "points": rng.random((3, 2)).astype(np.float32),
        "point_label": np.array([1, 0, 1], np.int32),
    }
    volume.write("prompts/points", arrays, provenance=made)
    element = open_volume(volume.path)["prompts/points"]
    assert element.arrays["points"].dims == ("prompt", "xy")
    for name, data in arrays.items():
        np.testing.assert_array_equal(element.array(name), data)
        assert element.array(name).dtype == data.dtype
    assert verify(volume).ok


def test_a_map_keeps_what_did_not_converge(volume, made, rng):
    data = values(rng, "qmap", (3, 7, 5), "float32")
    data[0, 1, 2], data[2, 6, 4] = np.nan, np.inf
    element = volume.write("qmap/t2", data, provenance=made, attributes={"unit": "s"})
    np.testing.assert_array_equal(element.numpy(), data)
    assert element.attributes["unit"] == "s"
    assert verify(volume).ok


def test_committed_elements_are_immutable(volume, made, rng):
    data = values(rng, "recon", (3, 7, 5), "float32")
    old = volume.write("recon/a", data, provenance=made)
    with pytest.raises(ElementExistsError, match=r"recon/a: is committed already, and committed data are immutable"):
        volume.write("recon/a", data + 1, provenance=made)
    np.testing.assert_array_equal(volume["recon/a"].numpy(), data)
    new = volume.write("recon/a", data + 1, provenance=made, replace=True)
    assert new.commit != old.commit
    np.testing.assert_array_equal(new.numpy(), data + 1)
    with pytest.raises(StoreError, match=rf"was replaced or removed after it was opened \(commit {old.commit}\)"):
        old[0]
    volume.remove("recon/a")
    assert "recon/a" not in volume
    with pytest.raises(StoreError, match="was replaced or removed"):
        new[0]
    with pytest.raises(ElementNotFoundError, match=r"no element 'recon/a'\. Elements of this volume: none"):
        volume["recon/a"]
    assert [path.name for path in (volume.path.parent / ".staging").iterdir()] == []


def test_opened_elements_stay_readable_when_others_come(volume, made, rng):
    data = values(rng, "recon", (3, 7, 5), "float32")
    element = volume.write("recon/a", data, provenance=made)
    volume.write("recon/b", data, provenance=made)
    volume.remove("recon/b")
    np.testing.assert_array_equal(element.numpy(), data)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(element))[1], data[1])


def test_replacing_with_a_bad_value_keeps_the_old(volume, made):
    good = np.ones((3, 7, 5), np.float32)
    volume.write("recon/a", good, provenance=made)
    with pytest.raises(NonFiniteError):
        volume.write("recon/a", good * np.nan, provenance=made, replace=True)
    np.testing.assert_array_equal(volume["recon/a"].numpy(), good)


def test_the_same_computation_is_current(volume, made, rng):
    data = values(rng, "recon", (3, 7, 5), "float32")
    element = volume.write("recon/a", data, provenance=made)
    of = lambda config, inputs=(), **more: Provenance.of("mri-io", "m", config, inputs, **more)  # noqa: E731
    volume.write("recon/b", data, provenance=of({"a": 1, "b": 2}, [element], seed=1))
    assert volume.is_current("recon/b", of({"b": 2, "a": 1}, [element], seed=1))
    assert not volume.is_current("recon/b", of({"a": 1, "b": 3}, [element], seed=1))
    assert not volume.is_current("recon/b", of({"a": 1, "b": 2}, [], seed=1))
    assert not volume.is_current("recon/b", of({"a": 1, "b": 2}, [element], seed=2))
    assert not volume.is_current("recon/c", of({"a": 1, "b": 2}, [element], seed=1))
    again = volume.write("recon/a", data, provenance=made, replace=True)
    assert not volume.is_current("recon/b", of({"a": 1, "b": 2}, [again], seed=1))


def test_a_missing_chunk_is_no_zeros_in_the_fall_back_either(volume, made, rng):
    as_gzip(volume.write("recon/a", values(rng, "recon", (3, 7, 5), "float32"), provenance=made))
    element = volume["recon/a"]
    assert element.numpy().all()
    next(file for file in (element.folder / "data" / "c").rglob("1") if file.is_file()).unlink()
    with pytest.raises(StoreError, match=r"recon/a/data: expected 4 files of data, found 3"):
        open_volume(volume.path)["recon/a"].numpy()


@pytest.mark.parametrize("path", [".", "..", "", "/", "recon/..", "recon/../kspace", "kspace/data", "recon", "x/../.."])
def test_odd_paths_are_no_elements(volume, made, path):
    volume.write("recon/a", np.ones((3, 7, 5), np.float32), provenance=made)
    volume.write("kspace", np.ones((3, 1, 7, 5), np.complex64), provenance=made)
    for odd in (path, str(volume.path / "kspace")):
        assert odd not in volume
        with pytest.raises(ElementNotFoundError, match=r"Elements of this volume: kspace, recon/a"):
            volume[odd]
        with pytest.raises(ElementNotFoundError):
            volume.remove(odd)
    with pytest.raises(SchemaError, match="element"):
        volume.write(path, np.ones((3, 7, 5), np.float32), provenance=made)
    assert set(open_volume(volume.path).elements()) == {"kspace", "recon/a"}


@pytest.mark.parametrize("path", ["kspace", "recon/a"])
def test_views_are_what_indexing_gives(volume, made, rng, path):
    shape = (3, 4, 7, 5) if path == "kspace" else (3, 7, 5)
    element = volume.write(path, values(rng, path, shape, "complex64"), provenance=made)
    for index in (1, -1, slice(1, 3), (2, ..., slice(1, 4)), ...):
        view = element.view(index)
        np.testing.assert_array_equal(view, element[index])
        assert not view.flags.writeable
    assert np.shares_memory(element.view(1), element.view(1)) == (path == "kspace")
