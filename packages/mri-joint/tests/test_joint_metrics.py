"""Focused metrics against scikit-image and arithmetic."""

import inspect

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from mri_io.errors import ShapeError
from mri_joint.metrics import focused_metrics, image_metrics


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    reference = rng.uniform(0, 1, (2, 32, 40)).astype(np.float32)
    image = (reference + 0.1 * rng.standard_normal(reference.shape)).astype(np.float32)
    region = np.zeros(reference.shape, bool)
    region[0, 8:20, 10:30] = True
    region[1, 5:9, 6:12] = True
    return reference, image, region


def test_focused_error_by_hand(volume):
    reference, image, region = volume
    found = focused_metrics(reference, image, region)
    mse = np.mean((image[region].astype(float) - reference[region]) ** 2) / reference.max() ** 2
    assert found["f_mse"] == pytest.approx(mse, rel=1e-6)
    assert found["f_psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-6)


def test_focused_ssim_is_the_mean_of_scikit_images_map_within_the_region(volume):
    reference, image, region = volume
    peak = float(reference.max())
    values = [
        structural_similarity(r.astype(float), i.astype(float), data_range=peak, full=True)[1][inside].mean()
        for r, i, inside in zip(reference, image, region, strict=True)
    ]
    assert focused_metrics(reference, image, region)["f_ssim"] == pytest.approx(np.mean(values), rel=1e-6)


def test_errors_outside_the_labels_do_not_count(volume):
    reference, image, region = volume
    spoilt = np.where(region, image, image + 5).astype(np.float32)
    before, after = image_metrics(reference, image, region), image_metrics(reference, spoilt, region)
    assert before["f_mse"] == after["f_mse"]
    assert before["f_psnr"] == after["f_psnr"]
    assert before["psnr"] - after["psnr"] > 20


def test_without_labels_focused_metrics_are_undefined(volume):
    reference, image, region = volume
    assert focused_metrics(reference, image, np.zeros_like(region)) == {"f_mse": None, "f_psnr": None, "f_ssim": None}


def test_other_grids_are_refused(volume):
    reference, image, region = volume
    with pytest.raises(ShapeError, match="focused metrics"):
        # As without the shape checks of the tests, which would come first.
        inspect.unwrap(focused_metrics)(reference, image, region[:, :, :-1])
