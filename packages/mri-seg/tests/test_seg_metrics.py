"""Overlap and surface distance against analytic cases, MONAI and identities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_seg.errors import ShapeError
from mri_seg.metrics import average_surface_distance, dice, hausdorff95, iou, volume_metrics
from mri_seg.metrics.volume import voxel_size_mm


def blob(shape: tuple[int, ...], seed: int, level: float = 0.5) -> np.ndarray:
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 2)
    return noise > np.quantile(noise, level)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), level=st.floats(0.05, 0.95))
def test_dice_and_iou_belong_to_the_same_masks(seed: int, level: float) -> None:
    p, r = blob((12, 10), seed, level), blob((12, 10), seed + 1)
    d, i = dice(p, r), iou(p, r)
    assert d is not None
    assert i is not None
    assert d == pytest.approx(2 * i / (1 + i), abs=1e-12)


def test_dice_counts() -> None:
    p, r = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    p[:2], r[1:3] = True, True
    assert dice(p, r) == 0.5
    assert iou(p, r) == pytest.approx(1 / 3)


def test_rule_for_empty_classes() -> None:
    empty, full = np.zeros((3, 4, 4), np.uint8), np.ones((3, 4, 4), np.uint8)
    (both,) = volume_metrics(empty, empty, {1: "a"}, (1, 1, 1))
    assert (both["dice"], both["iou"], both["hd95"], both["asd"]) == (None, None, None, None)
    (missed,) = volume_metrics(empty, full, {1: "a"}, (1, 1, 1))
    assert (missed["dice"], missed["hd95"], missed["asd"]) == (0, None, None)
    (invented,) = volume_metrics(full, empty, {1: "a"}, (1, 1, 1))
    assert (invented["dice"], invented["hd95"]) == (0, None)


def test_distance_of_shifted_planes_is_the_shift_in_millimetres() -> None:
    p, r = np.zeros((1, 20, 30), bool), np.zeros((1, 20, 30), bool)
    p[0, 4, 5:25], r[0, 7, 5:25] = True, True
    # Three rows of 2.5 mm; the columns' spacing must not matter.
    assert hausdorff95(p, r, (8.0, 2.5, 1.0)) == pytest.approx(7.5)
    assert average_surface_distance(p, r, (8.0, 2.5, 1.0)) == pytest.approx(7.5)
    through = np.zeros((4, 6, 6), bool), np.zeros((4, 6, 6), bool)
    through[0][0, 2, 2], through[1][3, 2, 2] = True, True
    assert hausdorff95(*through, (8.0, 2.5, 1.0)) == pytest.approx(24.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 1.2, 0.8)])
def test_distances_agree_with_monai(seed: int, spacing: tuple[float, float, float]) -> None:
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    p, r = blob((8, 24, 20), seed, 0.6), blob((8, 24, 20), seed + 50, 0.7)
    one_hot = [torch.from_numpy(m)[None, None].float() for m in (p, r)]
    theirs = compute_hausdorff_distance(*one_hot, include_background=True, percentile=95, spacing=list(spacing))
    assert hausdorff95(p, r, spacing) == pytest.approx(float(theirs), rel=1e-5)
    theirs = compute_average_surface_distance(*one_hot, include_background=True, symmetric=True, spacing=list(spacing))
    assert average_surface_distance(p, r, spacing) == pytest.approx(float(theirs), rel=1e-5)


def test_voxel_size_comes_from_the_affine_in_the_order_of_the_array() -> None:
    affine = np.diag([-0.8, 1.2, 5.0, 1.0])
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert voxel_size_mm(turn @ affine) == pytest.approx((5.0, 1.2, 0.8))
    assert voxel_size_mm(None) is None


def test_without_an_affine_distances_stay_within_slices() -> None:
    square = np.zeros((1, 20, 20), np.uint8)
    square[0, 4:12, 4:12] = 1
    moved = np.roll(square, 3, axis=2)
    empty = np.zeros_like(square)
    # In three dimensions the first slice's square would be one voxel from the equal one in the second.
    p, r = np.concatenate([square, moved, empty]), np.concatenate([moved, moved, square])
    (row,) = volume_metrics(p, r, {1: "one"}, None)
    masks = square[0] == 1, moved[0] == 1
    assert hausdorff95(*masks, (1.0, 1.0)) == pytest.approx(3.0)
    assert row["hd95"] == pytest.approx(3.0 / 2)
    assert row["asd"] == pytest.approx(average_surface_distance(*masks, (1.0, 1.0)) / 2)
    (nothing,) = volume_metrics(empty, square, {1: "one"}, None)
    assert nothing["hd95"] is None


def test_grids_must_agree() -> None:
    with pytest.raises(ShapeError, match="reference's shape"):
        dice(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
    with pytest.raises(ShapeError, match="spacing"):
        hausdorff95(np.ones((2, 2), bool), np.ones((2, 2), bool), (1.0,))
