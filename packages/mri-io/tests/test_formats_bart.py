"""BART pairs: Fortran order, sizes, which dimension is which, the sampling pattern found from the data."""

import numpy as np
import pytest

from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.testing.raw_files import random_kspace, write_cfl


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


@pytest.mark.parametrize(("axis", "name"), [(4, "maps"), (5, "echo"), (10, "time"), (2, "phase 2")])
def test_other_dimensions_are_refused_by_name(tmp_path, axis, name):
    array = random_kspace([2 if a in (0, 1, 3, axis) else 1 for a in range(11)])
    with pytest.raises(FormatError, match=rf"a\.cfl: dimension {axis} \({name}.*expected length 1"):
        read(write_cfl(tmp_path / "a", array))


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
