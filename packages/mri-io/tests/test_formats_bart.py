"""BART pairs: Fortran order, sizes, which dimension is which, the sampling pattern found from the data."""

import numpy as np
import pytest

from mri_io.errors import ConfigError, FormatError
from mri_io.formats import ReadOptions, find_items, get_format
from mri_io.formats.array_files import axes, sources
from mri_io.testing.raw_files import random_kspace, write_cfl

MAPS = ("x", "y", "-", "coil", "map")


def read(path):
    (item,) = find_items([path])
    raw = get_format("bart").read(item)
    return {e.path: e for e in raw.elements}, np.concatenate(list(raw.elements[0].blocks()))


def test_readout_phase_coil_slice(tmp_path):
    array = random_kspace((6, 5, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2))
    elements, kspace = read(write_cfl(tmp_path / "a", array))
    # Rows are dimension 1, columns dimension 0, coils 3, slices 13.
    assert kspace.shape == (2, 3, 5, 6)
    for s, c, ky, kx in np.ndindex(kspace.shape):
        assert kspace[s, c, ky, kx] == array[kx, ky, 0, c, 0, 0, 0, 0, 0, 0, 0, 0, 0, s]
    assert list(elements) == ["kspace"]


def test_a_readout_of_length_one_means_two_phase_encodings(tmp_path):
    array = random_kspace((1, 6, 5, 3))
    _, kspace = read(write_cfl(tmp_path / "a", array))
    np.testing.assert_array_equal(kspace[0], array[0].transpose(2, 0, 1))


@pytest.mark.parametrize("suffixes", [(".cfl",), (".hdr",), (".cfl", ".hdr")])
def test_either_file_of_the_pair_or_both_are_one_item(tmp_path, suffixes):
    write_cfl(tmp_path / "a", random_kspace((4, 4, 1, 2)))
    items = find_items([tmp_path / f"a{suffix}" for suffix in suffixes])
    assert [item.path.name for item in items] == ["a.cfl"]
    assert len(items[0].files) == 2


@pytest.mark.parametrize(("axis", "dim", "lines"), [(1, "ky", 5), (0, "kx", 6)])
def test_separable_patterns_are_one_dimensional(tmp_path, axis, dim, lines):
    array = random_kspace((6, 5, 1, 3))
    sampled = np.arange(lines) % 2 == 0
    array *= sampled.reshape([-1 if a == axis else 1 for a in range(4)])
    elements, _ = read(write_cfl(tmp_path / "a", array))
    mask = elements["mask/acquired"]
    assert mask.dims == (dim,)
    np.testing.assert_array_equal(next(mask.blocks()), sampled)
    assert mask.attributes == {"acceleration": pytest.approx(lines / sampled.sum()), "found_from_data": True}


def test_other_patterns_are_two_dimensional(tmp_path):
    rng = np.random.default_rng(1)
    array, sampled = random_kspace((1, 12, 10, 3)), rng.random((12, 10)) < 0.4
    elements, _ = read(write_cfl(tmp_path / "a", array * sampled[None, :, :, None]))
    assert elements["mask/acquired"].dims == ("ky", "kx")
    np.testing.assert_array_equal(np.concatenate([*elements["mask/acquired"].blocks()]), sampled)


def test_one_silent_coil_does_not_make_a_pattern(tmp_path):
    array = random_kspace((6, 5, 1, 3))
    array[..., 1] = 0
    assert list(read(write_cfl(tmp_path / "a", array))[0]) == ["kspace"]


@pytest.mark.parametrize("change", [-8, 8])
def test_a_size_that_contradicts_the_header_is_refused(tmp_path, change):
    path = write_cfl(tmp_path / "a", random_kspace((6, 5, 1, 3)))
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with pytest.raises(FormatError, match=rf"a\.cfl: size: expected 720 bytes .* got {720 + change} bytes"):
        read(path)


def test_partitions_and_series(tmp_path):
    lengths = {0: 6, 1: 5, 2: 4, 3: 2, 5: 3, 10: 2, 11: 2, 13: 2}
    array = random_kspace([lengths.get(axis, 1) for axis in range(14)])
    elements, kspace = read(write_cfl(tmp_path / "a", array))
    assert elements["kspace"].dims == ("set", "frame", "echo", "slice", "kz", "coil", "ky", "kx")
    expected = array.squeeze().transpose(6, 5, 4, 7, 2, 3, 1, 0)  # of kx, ky, kz, coil, echo, frame, set, slice
    np.testing.assert_array_equal(kspace.reshape(expected.shape), expected)


def test_every_frame_and_partition_has_its_pattern(tmp_path, rng):
    sampled = rng.random((3, 4, 6, 5)) < 0.5  # frame, kz, ky, kx
    array = random_kspace((5, 6, 4, 2, 1, 1, 1, 1, 1, 1, 3))
    array *= sampled.transpose(3, 2, 1, 0).reshape(5, 6, 4, 1, 1, 1, 1, 1, 1, 1, 3)
    elements, _ = read(write_cfl(tmp_path / "a", array))
    mask = elements["mask/acquired"]
    assert mask.dims == ("frame", "kz", "ky", "kx")
    np.testing.assert_array_equal(np.concatenate([*mask.blocks()]), sampled)
    # Lines that are the same in all partitions, other ones in each frame.
    lines = np.array([[1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 1, 1], [1, 0, 1, 0, 0, 1]], bool)
    array = random_kspace(array.shape) * lines.T.reshape(1, 6, 1, 1, 1, 1, 1, 1, 1, 1, 3)
    mask = read(write_cfl(tmp_path / "b", array))[0]["mask/acquired"]
    assert mask.dims == ("frame", "ky")
    np.testing.assert_array_equal(np.concatenate([*mask.blocks()]), lines)


@pytest.mark.parametrize(("axis", "name"), [(4, "maps"), (6, "coefficients"), (12, "level"), (14, "average")])
def test_other_dimensions_are_refused_by_name(tmp_path, axis, name):
    array = random_kspace([2 if a in (0, 1, 3, axis) else 1 for a in range(15)])
    with pytest.raises(
        FormatError, match=rf"a\.cfl: dimension {axis} \({name}.*expected length 1.*--format bart --axes x,y,-,coil,map"
    ):
        read(write_cfl(tmp_path / "a", array))


def test_named_dimensions_are_coil_maps_or_images(tmp_path):
    array = random_kspace((6, 5, 1, 3, 2))
    (item,) = find_items(
        [write_cfl(tmp_path / "sub-01_espirit", array)], format="bart", choices=ReadOptions(axes=tuple(MAPS))
    )
    (maps,) = get_format("bart").read(item).elements
    assert (maps.path, maps.dims) == ("sens/espirit", ("slice", "map", "coil", "y", "x"))
    np.testing.assert_array_equal(np.concatenate([*maps.blocks()])[0], array[:, :, 0].transpose(3, 2, 1, 0))
    (item,) = find_items(
        [write_cfl(tmp_path / "b", array[..., 0, 0])], format="bart", choices=ReadOptions(axes=("x", "y"))
    )
    (image,) = get_format("bart").read(item).elements
    assert (image.path, image.dims, image.dtype) == ("recon/image", ("slice", "y", "x"), np.complex64)
    with pytest.raises(FormatError, match=r"--axes: expected length 1 of the axis '-', got 3"):
        get_format("bart").read(
            find_items([tmp_path / "sub-01_espirit.cfl"], format="bart", choices=ReadOptions(axes=("x", "y")))[0]
        )


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 4096)
    array = random_kspace((32, 24, 8, 2))
    elements, kspace = read(write_cfl(tmp_path / "a", array))
    np.testing.assert_array_equal(kspace, array.transpose(2, 3, 1, 0))
    parts = []
    memmap = np.memmap
    monkeypatch.setattr(np, "memmap", lambda *a, **k: _Watched(memmap(*a, **k), parts))
    monkeypatch.setattr(axes, "BLOCK_BYTES", 32 * 24 * 2 * 8)
    assert len([*elements["kspace"].blocks()]) == 8
    assert max(parts) <= 2 * 4096 + 32 * 24 * 8


class _Watched:
    """A memory map that notes how much of it is read at a time."""

    def __init__(self, array, parts):
        self.array, self.parts = array, parts

    def __getitem__(self, index):
        found = np.array(self.array[index])
        self.parts.append(found.nbytes)
        return found


def test_half_a_pair_is_refused(tmp_path):
    path = write_cfl(tmp_path / "a", random_kspace((4, 4, 1, 2)))
    path.unlink()
    with pytest.raises(FormatError, match=r"a\.cfl: expected beside a\.hdr, found no file"):
        read(tmp_path / "a.hdr")


def test_a_header_without_dimensions_is_refused(tmp_path):
    path = write_cfl(tmp_path / "a", random_kspace((4, 4, 1, 2)))
    path.with_suffix(".hdr").write_text("# Dimensions\nfour four\n")
    with pytest.raises(FormatError, match=r"a\.hdr: header: expected a line '# Dimensions'"):
        read(path)


@pytest.mark.parametrize("dims", ["4 4 0 2", "4 -4 1 2", "9" * 30, "4 4 " * 9, "9" * 5000, "1 2 x"])
def test_dimensions_without_sense_are_refused(tmp_path, dims):
    path = write_cfl(tmp_path / "a", random_kspace((4, 4, 1, 2)))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dims}\n")
    with pytest.raises(FormatError, match=r"a\.(hdr|cfl): (header|size): expected"):
        read(path)


def test_axes_are_meant_for_others_unless_the_format_is_named(tmp_path):
    kspace = random_kspace((8, 6, 1, 2))
    write_cfl(tmp_path / "a", kspace)
    np.save(tmp_path / "b.npy", random_kspace((2, 8, 6)))
    items = {item.format: item for item in find_items([tmp_path], choices=ReadOptions(axes=("coil", "ky", "kx")))}
    assert (items["bart"].choices.axes, items["arrays"].choices.axes) == (None, ("coil", "ky", "kx"))
    with pytest.raises(ConfigError, match=r"--axes: expected sources .*arrays, bart \(named by --format\)"):
        find_items([tmp_path / "a.cfl"], choices=ReadOptions(axes=("x", "y")))
