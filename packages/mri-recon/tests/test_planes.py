"""Volumes as planes: slices, series, and three-dimensional encodings, against transforms of the whole by numpy."""

import numpy as np
import pytest
import torch

from mri_io.schema import Provenance
from mri_io.store import create_cohort
from mri_recon.calibrate import calibrate
from mri_recon.calibration import EspiritConfig
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics import fft2c, fftc
from mri_recon.planes import Planes
from mri_recon.run import run

MADE = Provenance.of("test", "test")
SHAPE = (6, 3, 10, 8)  # kz, coil, ky, kx


def noise(*shape):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def centred_inverse(x, axes):
    shifted = np.fft.ifftn(np.fft.ifftshift(x, axes), axes=axes, norm="ortho")
    return np.fft.fftshift(shifted, axes).astype(np.complex64)


@pytest.fixture
def make(tmp_path):
    cohort = create_cohort(tmp_path / "c")

    def volume(kspace, dims, mask=None, mask_dims=None):
        name = f"sub-01_acq-t1_run-{1 + len(cohort)}"
        with cohort.create_volume(name, subject_id="sub-01") as made:
            made.write("kspace", kspace, dims=dims, provenance=MADE)
            if mask is not None:
                made.write("mask/acquired", mask.astype(np.uint8), dims=mask_dims, provenance=MADE)
        return cohort[name]

    return volume


@pytest.mark.parametrize(
    ("mask_dims", "across"), [(None, "kz"), (("ky", "kx"), "kz"), (("kz", "ky", "kx"), "kx"), (("kx",), "kz")]
)
def test_a_volume_is_transformed_along_a_full_axis(make, mask_dims, across):
    kspace, mask, sampled = noise(*SHAPE), None, np.ones((6, 10, 8), bool)
    if mask_dims is not None:
        shape = [dict(kz=6, ky=10, kx=8)[name] for name in mask_dims]
        mask = np.random.default_rng(1).random(shape) < 0.6
        if across == "kx":
            mask = np.broadcast_to(mask[..., :1], mask.shape)
        sampled = np.broadcast_to(mask, sampled.shape)
    kspace = kspace * sampled[:, None]
    volume = make(kspace, ("kz", "coil", "ky", "kx"), mask, mask_dims)
    planes = Planes(volume, volume["kspace"])
    assert planes.across == across
    images = []
    for plane in planes:
        images.append(centred_inverse(plane.kspace.numpy(), (-2, -1))[:, 1])
        assert plane.mask.shape[:2] == (1, 1)
    found, dims = planes.images(images)
    assert dims == ("z", "y", "x")
    np.testing.assert_allclose(found, centred_inverse(kspace, (0, 2, 3))[:, 1], atol=2e-6)
    full = np.broadcast_to(planes.plane(2).mask.numpy()[0, 0], planes.shape[1:])
    np.testing.assert_array_equal(full, sampled[:, :, 2] if across == "kx" else sampled[2])


def test_sampling_along_all_axes_is_refused(make):
    mask = np.random.default_rng(1).random((6, 10, 8)) < 0.5
    volume = make(noise(*SHAPE) * mask[:, None], ("kz", "coil", "ky", "kx"), mask, ("kz", "ky", "kx"))
    with pytest.raises(ConfigError, match="expected an axis that is fully sampled, got a mask that varies along kz"):
        Planes(volume, volume["kspace"])


def test_trajectories_and_slabs_are_refused(make):
    for names in (("slice", "coil", "shot", "sample"), ("slice", "kz", "coil", "ky", "kx")):
        volume = make(noise(*range(2, 2 + len(names))), names)
        with pytest.raises(ConfigError, match=r"expected \(slice or kz, coil, ky, kx\)"):
            Planes(volume, volume["kspace"])


def test_a_mask_for_each_frame(make):
    kspace = noise(4, 2, 3, 10, 8)
    mask = np.random.default_rng(1).random((4, 8)) < 0.5
    volume = make(kspace, ("frame", "slice", "coil", "ky", "kx"), mask, ("frame", "kx"))
    planes = Planes(volume, volume["kspace"])
    assert (len(planes), planes.shape, planes.series) == (2, (3, 10, 8), ("frame",))
    plane = planes.plane(1)
    np.testing.assert_array_equal(plane.mask.numpy()[:, 0, 0], mask)
    np.testing.assert_array_equal(plane.kspace.numpy(), kspace[:, 1] * mask[:, None, None])
    images, dims = planes.images([np.abs(p.kspace.numpy()).sum(1) for p in planes])
    assert (images.shape, dims) == ((4, 2, 10, 8), ("frame", "slice", "y", "x"))


def test_a_mask_of_another_series_is_refused(make):
    mask = np.ones((2, 8))
    volume = make(noise(4, 2, 3, 10, 8), ("frame", "slice", "coil", "ky", "kx"), mask, ("echo", "kx"))
    with pytest.raises(ShapeError, match="dimensions of"):
        Planes(volume, volume["kspace"])


@pytest.mark.parametrize("across", ["kz", "kx"])
def test_maps_of_a_volume_come_back_as_planes(make, across):
    mask = np.ones((6, 10, 8))
    mask[:, ::2] = 0
    mask[0, 1] = 0
    kept, dims = (mask, ("kz", "ky", "kx")) if across == "kx" else (mask[1], ("ky", "kx"))
    volume = make(noise(*SHAPE), ("kz", "coil", "ky", "kx"), kept, dims)
    planes = Planes(volume, volume["kspace"])
    assert planes.across == across
    coils, rows, columns = planes.shape
    maps = [noise(2, coils, rows, columns) * (1 + n) for n in range(len(planes))]
    whole = np.concatenate(list(planes.blocks_of_maps(maps)))
    shape, names = planes.shape_of_maps(2)
    assert names == ("z", "map", "coil", "y", "x")
    assert whole.shape == shape == (6, 2, 3, 10, 8)
    volume.write("sens/a", whole, dims=names, provenance=MADE)
    for number, plane in enumerate(maps):
        np.testing.assert_array_equal(planes.maps(volume["sens/a"], number).numpy(), plane)


def test_the_command_reconstructs_series_and_volumes(make, tmp_path):
    truth = noise(2, 3, 16, 16)
    sens = np.ones((1, 3, 16, 16), np.complex64) / np.sqrt(np.float32(3))
    image = truth[0, 0]
    kspace = torch.from_numpy(sens[0] * image)
    coils = fft2c(kspace).numpy()
    series = make(np.stack([coils[None], 2 * coils[None]]), ("echo", "slice", "coil", "ky", "kx"))
    series.write("sens/true", sens[None], provenance=MADE)
    whole = make(coils[None].repeat(5, 0), ("kz", "coil", "ky", "kx"))
    whole.write("sens/true", sens[None].repeat(5, 0), dims=("z", "map", "coil", "y", "x"), provenance=MADE)
    assert run(series.path.parents[1], method="cg-sense", maps="true").ok
    found = series["recon/cg-sense"]
    assert found.dims == ("echo", "slice", "y", "x")
    np.testing.assert_allclose(found.numpy()[:, 0], np.stack([image, 2 * image]), rtol=0.02, atol=0.02)
    assert found.attributes["stopped"] == {"converged": 1}
    assert found.attributes["iterations"] >= 1
    volume = whole["recon/cg-sense"]
    assert volume.dims == ("z", "y", "x")
    expected = np.zeros((5, 16, 16), np.complex64)
    expected[2] = image * np.sqrt(np.float32(5))  # equal partitions are a peak in the middle
    np.testing.assert_allclose(volume.numpy(), expected, rtol=0.02, atol=0.02)
    assert volume.attributes["planes_across"] == "kz"


def test_frames_are_averaged_for_calibration_and_echoes_are_not(make):
    kspace, mask = noise(3, 2, 1, 3, 10, 8), np.random.default_rng(1).random((3, 8)) < 0.6
    volume = make(kspace, ("frame", "echo", "slice", "coil", "ky", "kx"), mask, ("frame", "kx"))
    merged, sampled = Planes(volume, volume["kspace"]).merged(0)
    count = mask.sum(0)
    expected = (kspace[:, 0, 0] * mask[:, None, None]).sum(0) / np.maximum(count, 1)
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sampled, count[None] > 0)


@pytest.mark.parametrize("across", ["kz", "kx"])
def test_the_command_calibrates_volumes(make, across):
    """A volume that is the same in every partition has the maps of its slice."""
    y, x = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 20), indexing="ij")
    truth = np.stack([np.exp(-((y - a) ** 2) - (x - b) ** 2 + 1j * a * x) for a, b in ((1, 1), (-1, 1), (1, -1))])
    truth /= np.sqrt((np.abs(truth) ** 2).sum(0))
    image = (y**2 + x**2 < 0.8) * (1 + 0.3 * x)
    volume = np.repeat((truth * image).astype(np.complex64)[None], 12, axis=0)
    kspace = fftc(torch.from_numpy(volume), (0, 2, 3)).numpy()
    mask = np.ones((12, 24, 20), np.float32)
    if across == "kx":
        mask[0, :3] = 0
    made = make(kspace * mask[:, None], ("kz", "coil", "ky", "kx"), mask, ("kz", "ky", "kx"))
    assert calibrate(made.path.parents[1], config=EspiritConfig(calibration=12, kernel=4, crop=0.8)).ok
    maps = made["sens/espirit"]
    assert maps.dims == ("z", "map", "coil", "y", "x")
    assert maps.attributes["planes_across"] == across
    inside = y**2 + x**2 < 0.6
    overlap = np.abs((maps.numpy()[6, 0].conj() * truth).sum(0))[inside]
    assert overlap.min() > 0.99
    assert run(made.path.parents[1], method="cg-sense").ok
    found = made["recon/cg-sense"].numpy()[6]
    np.testing.assert_allclose(np.abs(found)[inside], image[inside], rtol=0.1)
