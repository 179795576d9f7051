"""The Calgary-Campinas layout: coils, conventions of k-space found from data, masks of zeros and of files, refusals."""

import re

import h5py
import numpy as np
import pytest

from mri_io import open_cohort, verify
from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items, find_sources, get_format
from mri_io.testing.hdf5_files import coil_images, write_cc359
from mri_io.testing.peak_memory import peak_growth
from mri_io.testing.raw_files import random_kspace

NAME = "e14089s3_P53248.7.h5"
SHAPE = (9, 24, 20)
COILS = 3


def images(shape=SHAPE, coils=COILS):
    return coil_images(shape, coils)


def plain(image):
    """Return k-space as the set has it: its own images are abs(ifft2(kspace)), zero frequency lies in the middle."""
    return np.fft.fftshift(np.fft.fft2(image), axes=(-2, -1))


def read(path):
    (item,) = find_items([path])
    assert item.format == "cc359"
    raw = get_format("cc359").read(item)
    return raw, {e.path: np.concatenate(list(e.blocks())) for e in raw.elements}


def centred_image(kspace):
    """Return the image that the store's convention gives, written out."""
    moved = np.fft.ifftshift(kspace, axes=(-2, -1))
    return np.fft.fftshift(np.fft.ifft2(moved, norm="ortho"), axes=(-2, -1))


def test_a_volume_of_the_set(tmp_path):
    image = images()
    path = write_cc359(tmp_path / NAME, plain(image))
    assert h5py.File(path)["kspace"].shape == (*SHAPE, 2 * COILS)
    raw, arrays = read(path)
    element = raw.elements[0]
    assert (element.shape, element.dtype) == ((9, COILS, 24, 20), np.complex64)
    assert element.dims == ("slice", "coil", "ky", "kx")
    found = centred_image(arrays["kspace"]) * element.attributes["scale_to_file_images"]
    # What the set's own example shows: numpy's inverse transform of the file, without any shift.
    parts = h5py.File(path)["kspace"][:]
    theirs = np.fft.ifft2(parts[..., ::2] + 1j * parts[..., 1::2], axes=(1, 2)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(np.abs(found), np.abs(theirs), atol=1e-6)
    np.testing.assert_allclose(np.abs(found), np.abs(image), atol=1e-6)
    assert element.attributes["zero_frequency_in_file"] == ["middle", "middle"]
    assert element.attributes["transform_in_file"] == ["plain", "plain"]
    assert raw.header.recon_matrix == (20, 24, 9)
    assert (raw.header.padding_left, raw.header.padding_right) == (0, 20)


CONVENTIONS = {
    "plain, middle": (plain, ["middle"] * 2, ["plain"] * 2),
    "plain, corner": (np.fft.fft2, ["corner"] * 2, ["plain"] * 2),
    "centred, middle": (lambda i: plain(np.fft.ifftshift(i, axes=(-2, -1))), ["middle"] * 2, ["centred"] * 2),
    "centred, corner": (lambda i: np.fft.fft2(np.fft.ifftshift(i, axes=(-2, -1))), ["corner"] * 2, ["centred"] * 2),
    "rows otherwise": (
        lambda i: np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(i, axes=-1)), axes=-2),
        ["middle", "corner"],
        ["plain", "centred"],
    ),
}


@pytest.mark.parametrize("shape", [SHAPE, (5, 23, 21)])
@pytest.mark.parametrize("case", CONVENTIONS)
def test_any_convention_gives_the_same_images(tmp_path, case, shape):
    transform, zero_frequency, used = CONVENTIONS[case]
    image = images(shape)
    raw, arrays = read(write_cc359(tmp_path / NAME, transform(image)))
    found = centred_image(arrays["kspace"]) * raw.elements[0].attributes["scale_to_file_images"]
    np.testing.assert_allclose(np.abs(found), np.abs(image), atol=1e-5)
    assert raw.elements[0].attributes["zero_frequency_in_file"] == zero_frequency
    assert raw.elements[0].attributes["transform_in_file"] == used


def test_coil_phases_stay_relative_to_each_other(tmp_path):
    image = images()
    _, arrays = read(write_cc359(tmp_path / NAME, plain(image)))
    found = centred_image(arrays["kspace"])
    expected = image[:, 0] * image[:, 1].conj()
    got = found[:, 0] * found[:, 1].conj()
    np.testing.assert_allclose(got / np.abs(got).max(), expected / np.abs(expected).max(), atol=1e-5)


def undersampled(patterns):
    kspace = plain(images())
    return kspace * (patterns[:, None] if patterns.ndim == 3 else patterns)


def poisson(rng, n=None, shape=SHAPE[1:]):
    masks = rng.random((n or 1, *shape)) < 0.3
    masks[:, shape[0] // 2 - 3 : shape[0] // 2 + 3, shape[1] // 2 - 3 : shape[1] // 2 + 3] = True
    masks[..., int(np.ceil(0.85 * shape[1])) :] = False  # partial sampling of the slice encoding
    return masks if n else masks[0]


@pytest.mark.parametrize("corner", [False, True])
def test_what_was_acquired_is_found_from_zeros(tmp_path, rng, corner):
    mask = poisson(rng)
    kspace = undersampled(mask)
    if corner:
        kspace = np.fft.ifftshift(kspace, axes=(-2, -1))
    raw, arrays = read(write_cc359(tmp_path / NAME, kspace))
    np.testing.assert_array_equal(arrays["mask/acquired"], mask)
    np.testing.assert_array_equal(arrays["kspace"][:, :, ~mask], 0)
    assert (arrays["kspace"][:, :, mask] != 0).all()
    assert raw.elements[1].dims == ("ky", "kx")
    assert raw.elements[1].attributes["acceleration"] == mask.size / mask.sum()
    assert (raw.header.padding_left, raw.header.padding_right) == (0, 17)


def test_patterns_that_change_from_slice_to_slice(tmp_path, rng):
    masks = poisson(rng, SHAPE[0])
    raw, arrays = read(write_cc359(tmp_path / NAME, undersampled(masks)))
    assert raw.elements[1].dims == ("slice", "ky", "kx")
    np.testing.assert_array_equal(arrays["mask/acquired"], masks)


def test_empty_slices_say_nothing_of_the_pattern(tmp_path, rng):
    mask = poisson(rng)
    kspace = undersampled(mask)
    kspace[0] = 0
    np.testing.assert_array_equal(read(write_cc359(tmp_path / NAME, kspace))[1]["mask/acquired"], mask)


@pytest.mark.parametrize("place", ["Train", "Train/poisson_sampling", "poisson_sampling"])
@pytest.mark.parametrize("corner", [False, True])
def test_masks_of_the_set_go_with_the_volumes_on_their_grid(tmp_path, rng, place, corner):
    for folder in ("Train", place):
        (tmp_path / folder).mkdir(exist_ok=True)
    write_cc359(tmp_path / "Train" / NAME, plain(images()))
    write_cc359(tmp_path / "Train" / "e1.h5", plain(images((5, 24, 18))))
    masks = {factor: poisson(rng, 4) for factor in (5, 10)}
    for factor, patterns in masks.items():
        stored = np.fft.ifftshift(patterns, axes=(1, 2)) if corner else patterns
        np.save(tmp_path / place / f"R{factor}_24x20.npy", stored)
    np.save(tmp_path / place / "R5_24x16.npy", poisson(rng, 4, (24, 16)))
    found = find_sources([tmp_path])
    assert found.passed_over == []
    assert [(item.path.name, len(item.files)) for item in found.items] == [("e1.h5", 1), (NAME, 3)]
    assert convert([tmp_path], tmp_path / "c", progress=False).ok
    small, large = sorted(open_cohort(tmp_path / "c").volumes(), key=lambda volume: volume["kspace"].shape[-1])
    assert set(small.elements()) == {"kspace", "mask/acquired"}
    for factor, patterns in masks.items():
        element = large[f"mask/poisson-{factor}x"]
        assert element.dims == ("set", "ky", "kx")
        np.testing.assert_array_equal(element.numpy(), patterns)
    assert verify(open_cohort(tmp_path / "c")).ok


def test_thirty_two_coils_and_compressed_chunks(tmp_path):
    image = images(coils=32)
    options = {"chunks": (1, 24, 20, 64), "compression": "gzip", "shuffle": True}
    _, arrays = read(write_cc359(tmp_path / NAME, plain(image), **options))
    assert arrays["kspace"].shape == (9, 32, 24, 20)
    assert convert([tmp_path / NAME], tmp_path / "c", progress=False).ok
    (volume,) = open_cohort(tmp_path / "c").volumes()
    np.testing.assert_array_equal(volume["kspace"].numpy(), arrays["kspace"])


def test_names_of_files_are_hidden(tmp_path):
    convert([write_cc359(tmp_path / NAME, plain(images()))], tmp_path / "c", progress=False)
    (volume,) = open_cohort(tmp_path / "c").volumes()
    assert re.fullmatch(r"name-[0-9a-f]{12}\.h5", volume.source.uri)
    content = b"".join(str(f).encode() + f.read_bytes() for f in (tmp_path / "c").rglob("*") if f.is_file())
    for part in (b"e14089", b"P53248"):
        assert part not in content.replace(str(tmp_path).encode(), b"")


def displaced(image):
    return np.roll(plain(image), 6, axis=-2)


REFUSED = {
    "odd parts": (
        lambda p: write_real(p, (4, 8, 8, 5)),
        r"kspace: expected float32 \(slices, .*, got float32 \(4, 8, 8, 5\)",
    ),
    "double": (lambda p: write_real(p, (4, 8, 8, 6), "f8"), r"kspace: expected float32 .*, got float64 \(4, 8, 8, 6\)"),
    "no slice": (lambda p: write_real(p, (0, 8, 8, 6)), r"kspace: expected float32 .*, got float32 \(0, 8, 8, 6\)"),
    "zeros": (lambda p: write_real(p, (4, 8, 8, 6)), "kspace: expected signal, got zeros or no numbers"),
    "not centred": (
        lambda p: write_cc359(p, displaced(images())),
        r"position of the largest energy of k-space: expected the middle \(12, 10\) or the corner \(0, 0\), got \(18",
    ),
    "nothing written": (lambda p: unwritten(p), r"kspace: expected \d+ bytes of data, got 0 bytes"),
}


def write_real(path, shape, dtype="f4"):
    with h5py.File(path, "w") as file:
        file["kspace"] = np.zeros(shape, dtype)


def unwritten(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", (25600, 218, 17000, 24), "f4")


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    make, message = REFUSED[case]
    make(tmp_path / NAME)
    with pytest.raises(FormatError, match=message):
        read(tmp_path / NAME)
    assert get_format("cc359").memory(find_items([tmp_path / NAME])[0]) > 0


def truncated(path, masks):
    np.save(path, masks)
    path.write_bytes(path.read_bytes()[:-100])


BAD_MASKS = {
    "truncated": (truncated, "masks: expected a numpy array, got an error"),
    "no array": (lambda path, masks: path.write_bytes(b"no numbers"), "masks: expected a numpy array, got an error"),
    "objects": (lambda path, masks: np.save(path, np.array([{}])), "masks: expected a numpy array, got an error"),
    "another grid": (
        lambda path, masks: np.save(path, masks[:, :-1]),
        r"masks: expected an array \(patterns, 24, 20\), as its name says, got bool \(2, 23, 20\)",
    ),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_masks_are_named(tmp_path, rng, case):
    make, message = BAD_MASKS[case]
    write_cc359(tmp_path / NAME, plain(images()))
    make(tmp_path / "R5_24x20.npy", poisson(rng, 2))
    with pytest.raises(FormatError, match=r"R5_24x20\.npy: " + message):
        read(tmp_path / NAME)


def test_masks_alone_are_no_data(tmp_path, rng):
    np.save(tmp_path / "R5_24x20.npy", poisson(rng, 2))
    with pytest.raises(FormatError, match="expected one of the formats"):
        find_items([tmp_path])


def test_memory_stays_below_what_is_claimed(tmp_path):
    shape = (64, 218, 170)
    noise = random_kspace((1, 12, *shape[1:]))
    noise[..., shape[1] // 2, shape[2] // 2] = 1e4
    path = write_cc359(tmp_path / NAME, np.broadcast_to(noise, (64, *noise.shape[1:])))
    claimed = get_format("cc359").memory(find_items([path])[0])
    imports = "from mri_io.convert import convert\nimport mri_io.formats.cc359, mri_io.store.volume"
    work = "assert convert([sys.argv[1]], sys.argv[2], progress=False).ok"
    used = peak_growth(imports, work, [path, tmp_path / "c"])
    assert used < claimed < 600 * 2**20
