"""Series (sets, frames, echoes) as NIfTI and PNG, the sidecars of BIDS, and elements larger than a block."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from mri_io import create_cohort
from mri_io.errors import ConfigError
from mri_io.export import base, export, png
from mri_io.schema import Header

OBLIQUE = np.array([[1.9, 0.3, -0.5, 10], [-0.4, 1.8, 0.9, -20], [0.5, -0.6, 4.0, 30], [0, 0, 0, 1]])
GRID = (3, 7, 5)  # slice, y, x


def volume_of(tmp_path, **header):
    cohort = create_cohort(tmp_path / "c")
    with cohort.create_volume("sub-1_acq-x_run-1", subject_id="sub-1", header=Header(**header)):
        pass
    return cohort["sub-1_acq-x_run-1"]


def write_series(volume, made, rng, series, path="image/x", dtype=np.float32):
    array = rng.integers(0, 1000, (*series.values(), *GRID)).astype(dtype)
    volume.write(path, array, provenance=made, dims=(*series, "slice", "y", "x"), affine=OBLIQUE)
    return array


@pytest.mark.parametrize("fourth", ["set", "frame", "echo"])
def test_one_dimension_of_a_series_is_the_fourth_of_a_nifti(tmp_path, made, rng, fourth):
    volume = volume_of(tmp_path)
    array = write_series(volume, made, rng, {fourth: 4})
    (file,) = export(volume["image/x"], tmp_path, "nifti")
    image = nibabel.load(file)
    assert image.shape == (5, 7, 3, 4)
    np.testing.assert_array_equal(image.get_fdata(), array.transpose(3, 2, 1, 0))
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-6)


def test_frames_are_the_fourth_dimension_and_others_make_files(tmp_path, made, rng):
    volume = volume_of(tmp_path, te_s=(0.005, 0.015), tr_s=(2.0,), flip_angle_rad=(np.pi / 6,), field_T=3.0)
    array = write_series(volume, made, rng, {"set": 3, "frame": 4, "echo": 2})
    files = export(volume["image/x"], tmp_path, "nifti")
    stem = "sub-1_acq-x_run-1_image-x"
    assert [file.name for file in files] == [
        f"{stem}_set-{s}_echo-{e}{ending}" for s in (1, 2, 3) for e in (1, 2) for ending in (".nii.gz", ".json")
    ]
    for number, (s, e) in enumerate(np.ndindex(3, 2)):
        values = np.asarray(nibabel.load(files[2 * number]).dataobj)
        np.testing.assert_array_equal(values, array[s, :, e].transpose(3, 2, 1, 0))
        assert json.loads(files[2 * number + 1].read_text()) == {
            "EchoTime": (0.005, 0.015)[e],
            "RepetitionTime": 2.0,
            "FlipAngle": 30.0,
            "MagneticFieldStrength": 3.0,
        }


@pytest.mark.parametrize(
    ("times", "series", "expected"),
    [
        ((0.01, 0.02), {"echo": 2}, [0.01, 0.02]),
        ((0.01, 0.02, 0.03), {"echo": 2}, None),  # which two of the three they are is not known
        ((0.01,), {"frame": 2}, 0.01),
        ((0.01, 0.02), {"frame": 2}, None),
        ((0.01,), {"echo": 2}, None),
        (None, {"echo": 2}, None),
    ],
)
def test_echo_times_stand_only_where_they_are_known(tmp_path, made, rng, times, series, expected):
    volume = volume_of(tmp_path, te_s=times, tr_s=(1.0, 2.0), vendor="GE")
    write_series(volume, made, rng, series)
    _, sidecar = export(volume["image/x"], tmp_path, "nifti")
    content = json.loads(sidecar.read_text())
    assert content.pop("EchoTime", None) == expected
    assert content == {"Manufacturer": "GE"}  # no single repetition time


def test_units_of_maps_and_names_of_labels(tmp_path, made, rng):
    volume = volume_of(tmp_path, te_s=(0.01,))
    volume.write("qmap/t2", np.ones(GRID, np.float32), provenance=made, attributes={"unit": "s"})
    volume.write(
        "seg/x",
        rng.integers(0, 3, (2, *GRID)).astype(np.uint8),
        provenance=made,
        dims=("frame", "slice", "y", "x"),
        labels={1: "a", 2: {"name": "b", "code": "SCT 1"}},
    )
    _, of_map = export(volume["qmap/t2"], tmp_path, "nifti")
    image, of_labels = export(volume["seg/x"], tmp_path, "nifti")
    assert json.loads(of_map.read_text()) == {"Units": "s"}
    assert json.loads(of_labels.read_text()) == {"Labels": {"1": {"name": "a"}, "2": {"name": "b", "code": "SCT 1"}}}
    assert nibabel.load(image).get_data_dtype() == np.uint8


def test_large_elements_are_written_in_blocks(tmp_path, made, rng, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 2 * 7 * 5 * 8)  # two slices
    monkeypatch.setattr(png, "SAMPLES", 50)
    volume = volume_of(tmp_path)
    array = (rng.standard_normal((2, *GRID)) + 1j * rng.standard_normal((2, *GRID))).astype(np.complex64)
    volume.write("recon/x", array, provenance=made, dims=("frame", "slice", "y", "x"))
    monkeypatch.setattr(type(volume["recon/x"]), "numpy", lambda self: pytest.fail("the element is read whole"))
    (file,) = export(volume["recon/x"], tmp_path, "nifti", part="complex")
    np.testing.assert_array_equal(np.asarray(nibabel.load(file).dataobj).T, array)
    assert len(export(volume["recon/x"], tmp_path, "png")) == 6


def test_a_size_that_nifti_1_cannot_hold(tmp_path, made):
    volume = volume_of(tmp_path)
    array = np.arange(2**15 + 3, dtype=np.float32).reshape(1, 1, -1)
    volume.write("image/x", array, provenance=made, affine=OBLIQUE)
    (file,) = export(volume["image/x"], tmp_path, "nifti")
    image = nibabel.load(file)
    assert isinstance(image, nibabel.Nifti2Image)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, array)
    np.testing.assert_array_equal(image.affine, OBLIQUE)


def test_pngs_of_a_series_have_one_window(tmp_path, made, rng):
    volume = volume_of(tmp_path)
    array = write_series(volume, made, rng, {"frame": 2, "echo": 2})
    files = export(volume["image/x"], tmp_path, "png")
    names = [f"_frame-{f:03d}_echo-{e:03d}_{s:03d}.png" for f in range(2) for e in range(2) for s in range(3)]
    assert [file.name.removeprefix("sub-1_acq-x_run-1_image-x") for file in files] == names
    low, high = np.percentile(array, (0.5, 99.5))
    expected = 255 * np.clip((array.reshape(12, 7, 5) - low) / (high - low), 0, 1)
    for file, plane in zip(files, expected, strict=True):
        assert np.abs(np.asarray(Image.open(file)) - plane).max() <= 0.51


def test_elements_that_are_no_images_are_refused(tmp_path, made):
    volume = volume_of(tmp_path)
    volume.write("sens/x", np.ones((2, 1, 3, 4, 5), np.complex64), provenance=made)
    for format in ("nifti", "png"):
        with pytest.raises(
            ConfigError, match=rf"element for {format}: expected an image, .* or a series of it, got sens/x"
        ):
            export(volume["sens/x"], tmp_path / "out", format)
    assert not (tmp_path / "out").exists()
