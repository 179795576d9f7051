"""Arrays of NumPy and MATLAB whose axes the user names: every order of axes, complex pairs, and what is refused."""

import itertools
import struct
from contextlib import suppress

import h5py
import numpy as np
import pytest
import scipy.io

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import ReadOptions, find_items, get_format
from mri_io.formats.array_files import axes, sources
from mri_io.simulate.fourier import ifft2c
from mri_io.testing.raw_files import random_kspace

SHAPE = (3, 2, 6, 5)  # slice, coil, ky, kx
NAMES = ("slice", "coil", "ky", "kx")


def read(path, axes=None, variable=None):
    choices = ReadOptions(axes=axes.split(",") if axes else None, variable=variable)
    (item,) = find_items([path], choices=choices)
    assert item.format == "arrays"
    raw = get_format("arrays").read(item)
    arrays = {e.path: np.concatenate([*e.blocks()]).reshape(e.shape) for e in raw.elements}
    for e in raw.elements:
        assert arrays[e.path].dtype == e.dtype
    return {e.path: e for e in raw.elements}, arrays


def save_npy(path, array):
    np.save(path, array)
    return path.with_suffix(".npy")


def save_mat5(path, array):
    scipy.io.savemat(path.with_suffix(".mat"), {"data": array}, do_compression=True)
    return path.with_suffix(".mat")


def save_mat7(path, array, **others):
    """Write as MATLAB -v7.3 does: a block of text in front, dimensions in reverse order, pairs of real and imag."""
    path = path.with_suffix(".mat")
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in {"data": array, **others}.items():
            turned = np.asarray(value).T
            if turned.dtype.kind == "c":
                pairs = np.empty(turned.shape, [("real", turned.real.dtype), ("imag", turned.real.dtype)])
                pairs["real"], pairs["imag"] = turned.real, turned.imag
                turned = pairs
            file[name] = turned
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
        file.create_group("#refs#")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Sat Nov 21 00:00:00 2026 HDF5".ljust(124))
        raw.write(struct.pack("<8xHH", 0x0200, 0x4D49)[8:])
    return path


WRITERS = {"npy": save_npy, "mat5": save_mat5, "mat7": save_mat7}


@pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 1, 0), (1, 3, 0, 2)])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_axes_in_any_order_are_k_space(tmp_path, save, order, dtype):
    kspace = random_kspace(SHAPE)
    path = save(tmp_path / "a", kspace.transpose(order).astype(dtype))
    elements, arrays = read(path, ",".join(NAMES[i] for i in order))
    assert [*elements] == ["kspace"]
    assert elements["kspace"].dims == NAMES
    np.testing.assert_array_equal(arrays["kspace"], kspace)


@pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)
def test_series_and_partitions(tmp_path, save):
    names = ("set", "frame", "echo", "slice", "kz", "coil", "ky", "kx")
    kspace = random_kspace((2, 3, 2, 2, 4, 2, 6, 5))
    order = np.random.default_rng(0).permutation(len(names))
    path = save(tmp_path / "a", kspace.transpose(order))
    elements, arrays = read(path, ",".join(names[i] for i in order))
    assert elements["kspace"].dims == names
    np.testing.assert_array_equal(arrays["kspace"], kspace)


def test_fortran_order_other_byte_orders_and_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 200)
    monkeypatch.setattr(axes, "BLOCK_BYTES", 1000)
    kspace = random_kspace(SHAPE)
    for number, order in enumerate(itertools.permutations(range(4))):
        array = kspace.transpose(order)
        stored = np.asfortranarray(array) if number % 2 else np.ascontiguousarray(array).astype(">c8")
        elements, arrays = read(save_npy(tmp_path / f"{number}", stored), ",".join(NAMES[i] for i in order))
        np.testing.assert_array_equal(arrays["kspace"], kspace)
        assert [block.shape for block in elements["kspace"].blocks()] == [(2, 2, 6, 5), (1, 2, 6, 5)]


@pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("axis", [0, 2, 4])
def test_an_axis_of_real_and_imaginary_parts(tmp_path, save, axis):
    kspace = random_kspace(SHAPE)
    pairs = np.stack([kspace.real, kspace.imag], axis=axis)
    names = list(NAMES)
    names.insert(axis, "complex")
    _, arrays = read(save(tmp_path / "a", pairs), ",".join(names))
    np.testing.assert_array_equal(arrays["kspace"], kspace)


@pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)
def test_absent_and_dropped_axes(tmp_path, save):
    plane = random_kspace((6, 5))
    _, arrays = read(save(tmp_path / "a", plane), "ky,kx")
    np.testing.assert_array_equal(arrays["kspace"], plane[None, None])
    _, arrays = read(save(tmp_path / "b", plane[None, :, None]), "-,ky,_,kx")
    np.testing.assert_array_equal(arrays["kspace"], plane[None, None])


@pytest.mark.parametrize("save", [save_mat5, save_mat7])
def test_matlab_leaves_away_lengths_of_one_at_the_end(tmp_path, save):
    kspace = random_kspace((6, 5, 2))
    _, arrays = read(save(tmp_path / "a", kspace), "ky,kx,coil,slice,frame")
    np.testing.assert_array_equal(arrays["kspace"], kspace.transpose(2, 0, 1)[None, None])


def test_coil_maps_images_and_reconstructions(tmp_path, rng):
    maps = random_kspace((6, 5, 3, 2))
    elements, arrays = read(save_npy(tmp_path / "sub-01_espirit", maps), "y,x,coil,map")
    assert elements["sens/espirit"].dims == ("slice", "map", "coil", "y", "x")
    np.testing.assert_array_equal(arrays["sens/espirit"][0], maps.transpose(3, 2, 0, 1))
    elements, arrays = read(save_npy(tmp_path / "DOE_JOHN", maps), "z,x,coil,y")  # the file's name stays out
    assert elements["sens/maps"].dims == ("z", "map", "coil", "y", "x")
    np.testing.assert_array_equal(arrays["sens/maps"][:, 0], maps.transpose(0, 2, 3, 1))
    elements, arrays = read(save_mat5(tmp_path / "b", maps), "y,x,slice,echo")
    assert elements["recon/data"].dims == ("echo", "slice", "y", "x")
    np.testing.assert_array_equal(arrays["recon/data"], maps.transpose(3, 2, 0, 1))
    for dtype, stored in ((np.int16, np.int16), (np.uint8, np.int16), (np.uint16, np.float32), (float, np.float32)):
        image = (1000 * rng.random((4, 6, 5))).astype(dtype)
        elements, arrays = read(save_npy(tmp_path / "c", image), "slice,y,x")
        assert elements["image/image"].dtype == stored
        np.testing.assert_array_equal(arrays["image/image"], image.astype(np.float32))


def test_shots_off_the_grid(tmp_path):
    shots = random_kspace((7, 2, 30))
    elements, arrays = read(save_npy(tmp_path / "a", shots), "shot,coil,sample")
    assert elements["kspace"].dims == ("slice", "coil", "shot", "sample")
    np.testing.assert_array_equal(arrays["kspace"][0], shots.transpose(1, 0, 2))


def test_the_mask_is_found_from_zeros(tmp_path, rng):
    sampled = rng.random((6, 5)) < 0.5
    elements, arrays = read(save_npy(tmp_path / "a", random_kspace((2, 6, 5)) * sampled), "coil,ky,kx")
    assert elements["mask/acquired"].dims == ("ky", "kx")
    np.testing.assert_array_equal(arrays["mask/acquired"], sampled)
    assert elements["mask/acquired"].attributes == {
        "acceleration": pytest.approx(30 / sampled.sum()),
        "found_from_data": True,
    }


@pytest.mark.parametrize("kind", ["mat5", "mat7"])
def test_one_of_several_variables(tmp_path, kind):
    first, second = random_kspace((2, 6, 5)), random_kspace((2, 6, 5), seed=1)
    content = {"kspace_full": first, "traj": second, "note": "of a person"}
    path = tmp_path / "a.mat"
    if kind == "mat5":
        scipy.io.savemat(path, {**content, "cells": np.array([1, "a"], object), "s": {"x": 1}})
    else:
        save_mat7(path, first, traj=second)
        with h5py.File(path, "r+") as file:
            file.move("data", "kspace_full")
            file["note"] = np.frombuffer(b"of a person", np.uint8).astype(np.uint16)
            file["note"].attrs["MATLAB_class"] = np.bytes_("char")
    with pytest.raises(FormatError, match=r"a\.mat: arrays: expected one, got kspace_full \(2, 6, 5\), traj .*Choose"):
        read(path, "coil,ky,kx")
    with pytest.raises(FormatError, match=r"--variable: expected one of kspace_full \(2, 6, 5\), traj .*, got other"):
        read(path, "coil,ky,kx", "other")
    for name, array in (("kspace_full", first), ("traj", second)):
        np.testing.assert_array_equal(read(path, "coil,ky,kx", name)[1]["kspace"][0], array)


def test_big_endian_matlab_files(tmp_path):
    """A file as MATLAB wrote it on such machines, byte by byte: one element of class double."""
    array = np.arange(6.0).reshape(2, 3)

    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    body = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 2, 3)) + element(1, b"img")
    body += element(9, array.T.astype(">f8").tobytes())
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">HH", 0x0100, 0x4D49)
    (tmp_path / "a.mat").write_bytes(head + element(14, body))
    np.testing.assert_array_equal(read(tmp_path / "a.mat", "y,x")[1]["image/img"][0], array)


@pytest.mark.parametrize(
    ("array", "axes", "message"),
    [
        (random_kspace((2, 6, 5)), None, r"none for complex64 \(2, 6, 5\)\. .*convert a\.npy COHORT --axes coil,ky,kx"),
        (random_kspace((6, 5)), None, "--axes ky,kx"),
        (random_kspace((2, 6, 5)), "coil,ky", r"expected 3 names for complex64 \(2, 6, 5\), got 2: coil,ky"),
        (random_kspace((2, 6, 5)), "coil,ky,line", r"expected set, frame, .*, got line\."),
        (random_kspace((2, 6, 5)), "coil,ky,ky", "expected each name once, got ky twice"),
        (random_kspace((2, 6, 5)), "-,ky,kx", r"expected length 1 of the axis '-', got 2 in \(2, 6, 5\)"),
        (random_kspace((2, 6, 5)), "complex,ky,kx", "expected real numbers and length 2 of the axis 'complex'"),
        (np.zeros((3, 6, 5)), "complex,ky,kx", r"axis 'complex', got float64 \(3, 6, 5\)"),
        (random_kspace((2, 6, 5)), "coil,ky,x", r"expected k-space \(.. coil, ky, kx\), .*, got coil,ky,x"),
        (random_kspace((2, 6, 5)), "map,y,x", "expected k-space"),
        (random_kspace((2, 6, 5)), "z,ky,kx", "expected k-space"),
        (random_kspace((2, 6, 5)), "coil,kz,ky", "expected k-space"),
        (random_kspace((2, 2, 6, 5)), "slice,z,y,x", "expected k-space"),
        (random_kspace((2, 2, 6, 5)), "frame,coil,y,x", "expected k-space"),
        (np.zeros((2, 6, 5)), "coil,ky,kx", "kspace: expected complex numbers, got float64"),
        (np.zeros((2, 6, 5)), "coil,y,x", "sens/maps: expected complex numbers, got float64"),
        (np.ones((6, 5), np.uint8), "ky,kx", r"expected complex numbers, got a mask \(uint8\)\. Masks belong to"),
        (np.ones((6, 5), bool), "ky,kx", r"got a mask \(bool\)"),
        (np.zeros((0, 5), np.complex64), "ky,kx", r"expected an array with content, got \(0, 5\)"),
        (np.complex64(1), "ky,kx", r"expected 0 names for complex64 \(\), got 2"),
        (np.array([["a", "b"]]), "y,x", "dtype: expected real or complex numbers, got <U1"),
        (np.zeros((2, 2), "M8[s]"), "y,x", "dtype: expected real or complex numbers, got datetime64"),
        (np.zeros((2, 2), [("real", "f4"), ("imag", "f4")]), "y,x", "dtype: expected real or complex numbers"),
    ],
)
def test_what_is_refused(tmp_path, array, axes, message):
    with pytest.raises(FormatError, match=rf"a\.npy: .*{message}"):
        read(save_npy(tmp_path / "a", array), axes)
    with pytest.raises(FormatError, match=r"--variable: expected none, \.npy files hold one array"):
        read(tmp_path / "a.npy", axes, "data")


class _Harm:
    def __reduce__(self):
        return (pytest.fail, ("code in a file was run",))


def test_pickles_are_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([_Harm(), None], object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"a\.npy: dtype: expected numbers, got Python objects \(pickled\).*run code"):
        read(tmp_path / "a.npy", "ky")


@pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)
def test_truncated_files(tmp_path, save):
    path = save(tmp_path / "a", random_kspace((4, 2, 20, 20)))
    whole = path.read_bytes()
    for length in (30, 100, 130, 200, 600, 3000, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"a\.(npy|mat): .*"):
            read(path, "slice,coil,ky,kx")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<c8', 'fortran_order': False, 'shape': (1000000000, 1000000000, 8), }",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (-1, 8), }",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (" + "9" * 40 + ", 8), }",
        "{'descr': '<c8', 'fortran_order': False, 'shape': 8}",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (3, 'x')}",
        "{'descr': '|Z7', 'fortran_order': False, 'shape': (3, 8)}",
        "[" * 400,
        "__import__('os').abort()",
        "",
    ],
)
def test_npy_headers_without_sense(tmp_path, header):
    text = header.encode().ljust(118) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64))
    with pytest.raises(FormatError, match=r"a\.npy: array: expected"):
        read(tmp_path / "a.npy", "ky,kx")


def test_matlab_files_that_claim_more_than_they_hold(tmp_path):
    path = save_mat5(tmp_path / "a", np.zeros((2000, 2000)))  # packs a thousand times
    with pytest.raises(FormatError, match=r"a\.mat: array: expected at most 200 times the file's size"):
        read(path, "y,x")
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:
        file.create_dataset("data", (1 << 16, 1 << 16), "f8", chunks=(64, 64))
    with (tmp_path / "b.mat").open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(128))
    with pytest.raises(FormatError, match=r"b\.mat: data: expected 1048576 chunks of data, got 0"):
        read(tmp_path / "b.mat", "y,x")


@pytest.mark.parametrize("save", [save_mat5, lambda path, array: scipy.io.savemat(path, {"data": array})])
def test_damaged_parts_of_matlab_5_arrays(tmp_path, save):
    """SciPy crashes, process and all, on numbers of a type that there is not."""
    path = tmp_path / "a.mat"
    save(path, random_kspace((2, 6, 5)))
    assert "kspace" in read(path, "coil,ky,kx")[1]
    whole = path.read_bytes()
    for place in range(128, min(len(whole), 220)):
        for value in (0, 77, 255):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            with suppress(FormatError):  # else what the bytes stand for has changed, not how many there are
                assert read(path, "coil,ky,kx")[1]["kspace"].shape == (1, 2, 6, 5)


@pytest.mark.parametrize("name", ["a.npy", "a.mat"])
@pytest.mark.parametrize("content", [b"", b"MATLAB 4", b"\x93NUM", b"text " * 100])
def test_other_files_of_these_names_are_passed_over(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert not get_format("arrays").sniff(tmp_path / name)
    with pytest.raises(FormatError, match="got none of them"):
        find_items([tmp_path / name])


def test_the_memory_that_is_asked_for(tmp_path):
    array = random_kspace((4, 30, 30)).astype(np.complex128)
    files = [save_npy(tmp_path / "a", array), save_mat7(tmp_path / "b", array), save_mat5(tmp_path / "c", array)]
    asked = [get_format("arrays").memory(find_items([file])[0]) for file in files]
    assert asked[0] == asked[1] == asked[2] - 3 * array.nbytes == 2**29


def test_a_matlab_file_is_not_taken_for_another_layout_of_hdf5(tmp_path):
    path = save_mat7(tmp_path / "a", random_kspace(SHAPE))
    assert [name for name in ("fastmri", "ismrmrd") if get_format(name).sniff(path)] == []
    assert find_items([path])[0].format == "arrays"


def test_arrays_go_into_a_cohort(tmp_path):
    kspace = random_kspace((2, 3, 6, 5))
    for folder, save in (("1", save_npy), ("2", save_mat5), ("3", save_mat7)):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / f"sub-{folder}", kspace)
    options = ReadOptions(axes=("frame", "coil", "ky", "kx"))
    sources = [tmp_path / folder for folder in "123"]
    assert convert(sources, tmp_path / "c", options=options, progress=False).ok
    for volume, ending in zip(open_cohort(tmp_path / "c").volumes(), ("npy", "mat", "mat"), strict=True):
        assert volume["kspace"].dims == ("frame", "slice", "coil", "ky", "kx")
        np.testing.assert_array_equal(volume["kspace"].numpy()[:, 0], kspace)
        assert volume.source.uri == f"{volume.subject_id}.{ending}"


@pytest.mark.realdata
def test_a_real_undersampled_brain(real_data):
    elements, arrays = read(real_data / "kspace_brain8ch_poisson" / "cartesian_ksp.npy", "coil,ky,kx")
    assert elements["kspace"].shape == (1, 8, 230, 180)
    assert elements["mask/acquired"].dims == ("ky", "kx")
    assert arrays["mask/acquired"].mean() == pytest.approx(0.124, abs=0.0005)
    # The head is in the middle of the image, and air around it.
    image = np.sqrt((np.abs(ifft2c(arrays["kspace"][0])) ** 2).sum(0))
    assert image[60:170, 50:130].mean() > 3 * np.concatenate([image[:10].ravel(), image[-10:].ravel()]).mean()
