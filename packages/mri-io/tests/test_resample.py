"""Images on other grids against nibabel, SimpleITK and analytic functions, and the step on a cohort."""

import tracemalloc

import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nibabel.eulerangles import euler2mat
from nibabel.processing import resample_from_to
from scipy import ndimage

from mri_io import create_cohort, open_cohort
from mri_io.errors import ConfigError, ElementNotFoundError
from mri_io.resampling import (
    Grid,
    ResampleConfig,
    grids,
    parse_spacing,
    resample,
    resampled_image,
    resampled_labels,
    spaced_grid,
)
from mri_io.resampling import cohort as resampling
from mri_io.resampling.images import smoothing
from mri_io.resampling.labels import LabelResult
from mri_io.schema import Provenance

sitk = pytest.importorskip("SimpleITK")


def grid(shape, spacing, angles=(0, 0, 0), centre=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(*angles) @ np.diag(spacing)
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return Grid(tuple(shape), affine)


def world(of):
    indices = np.stack(np.meshgrid(*map(np.arange, of.shape), indexing="ij"), -1)[..., ::-1]
    return apply_affine(of.affine, indices)


def smooth(points):
    return 100 + 40 * np.sin(points[..., 0] / 9) * np.cos(points[..., 1] / 11) + 20 * np.cos(points[..., 2] / 13)


SOURCE = grid((22, 40, 36), (1.3, 1.1, 1.9), (0.2, -0.1, 0.3), (3, -2, 5))
WITHIN = grid((20, 24, 26), (1.0, 0.9, 0.8), (-0.1, 0.2, 0.4), (3, -2, 5))  # oblique to it, inside, finer


def on_grid(array, source, target, method, **options):
    blocks = resampled_image(lambda part: array[part], array.dtype, source, target, method, **options)
    return np.concatenate(list(blocks))


@pytest.mark.parametrize(("method", "order"), [("bspline", 3), ("linear", 1), ("nearest", 0)])
def test_values_are_those_of_nibabel(rng, method, order, monkeypatch):
    monkeypatch.setattr(grids, "BLOCK_VOXELS", 3000)  # several slabs
    array = rng.standard_normal(SOURCE.shape)
    found = on_grid(array, SOURCE, WITHIN, method)
    image = nibabel.Nifti1Image(array.T, SOURCE.affine)
    peer = resample_from_to(image, (WITHIN.shape[::-1], WITHIN.affine), order=order, mode="mirror").get_fdata().T
    np.testing.assert_allclose(found, peer, atol=1e-6 if method == "bspline" else 1e-10)


def test_values_are_those_of_simpleitk(rng):
    array = rng.standard_normal(SOURCE.shape)

    def as_itk(data, of):
        image = sitk.GetImageFromArray(data)
        lps = np.diag([-1.0, -1, 1]) @ of.affine[:3]
        spacing = np.linalg.norm(lps[:, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:, 3].tolist())
        return image

    reference = as_itk(np.zeros(WITHIN.shape), WITHIN)
    for method, kind, tolerance in (("linear", sitk.sitkLinear, 1e-6), ("bspline", sitk.sitkBSpline, 1e-4)):
        peer = sitk.GetArrayFromImage(sitk.Resample(as_itk(array, SOURCE), reference, sitk.Transform(), kind))
        np.testing.assert_allclose(on_grid(array, SOURCE, WITHIN, method), peer, atol=tolerance)


@pytest.mark.parametrize(("method", "error"), [("bspline", 0.02), ("linear", 0.6)])
def test_a_smooth_function_is_reproduced(method, error):
    found = on_grid(smooth(world(SOURCE)), SOURCE, WITHIN, method)
    assert np.abs(found - smooth(world(WITHIN))).max() < error


def test_the_same_grid_gives_the_same_values(rng):
    array = rng.standard_normal(SOURCE.shape).astype(np.float32)
    for method in ("bspline", "linear", "nearest"):
        np.testing.assert_allclose(on_grid(array, SOURCE, SOURCE, method), array, atol=1e-6)
    assert not smoothing(SOURCE, SOURCE).any()


def test_grids_that_are_flipped_and_permuted_give_the_values_themselves(rng):
    array = rng.standard_normal(SOURCE.shape)
    turned = SOURCE.affine.copy()
    turned[:3, :3] = -SOURCE.affine[:3, [2, 0, 1]]
    turned[:3, 3] = apply_affine(SOURCE.affine, np.array(SOURCE.shape[::-1]) - 1)
    other = Grid((SOURCE.shape[1], SOURCE.shape[2], SOURCE.shape[0]), turned)
    expected = array[::-1, ::-1, ::-1].transpose(1, 2, 0)
    np.testing.assert_allclose(on_grid(array, SOURCE, other, "bspline"), expected, atol=1e-9)
    np.testing.assert_array_equal(on_grid(array, SOURCE, other, "nearest"), expected)


def test_what_the_coarser_grid_cannot_hold_is_filtered_out():
    fine = grid((8, 96, 96), (1.0, 1.0, 4.0))
    coarse = grid((8, 24, 24), (4.0, 4.0, 4.0))
    stripes = np.cos(world(fine)[..., 0] * 2 * np.pi / 4.4)  # aliases to a period of 44 mm
    waves = np.cos(world(fine)[..., 0] * 2 * np.pi / 40)
    assert np.abs(on_grid(stripes, fine, coarse, "nearest")).max() > 0.9
    assert np.abs(on_grid(stripes, fine, coarse, "bspline")[:, :, 2:-2]).max() < 0.07
    kept = on_grid(waves, fine, coarse, "bspline")
    np.testing.assert_allclose(kept, np.cos(world(coarse)[..., 0] * 2 * np.pi / 40), atol=0.07)
    np.testing.assert_allclose(smoothing(fine, coarse), [0, *[np.sqrt(15 / (8 * np.log(2)))] * 2])


def test_the_mean_of_an_image_survives_a_coarser_grid(rng):
    array = rng.random((12, 60, 60))
    fine = grid(array.shape, (1.0, 1.0, 2.0))
    coarse = spaced_grid(fine, (3, 3, 6))
    assert coarse.shape == (4, 20, 20)
    found = on_grid(array, fine, coarse, "bspline")
    assert found.mean() == pytest.approx(array.mean(), rel=0.01)
    assert found.std() < array.std() / 4  # noise of 54 voxels each


def test_complex_images_and_what_lies_outside(rng):
    array = (rng.standard_normal(SOURCE.shape) + 1j * rng.standard_normal(SOURCE.shape)).astype(np.complex64)
    wide = grid((30, 60, 60), (1.3, 1.1, 1.9), (0.2, -0.1, 0.3), (3, -2, 5))
    found = on_grid(array, SOURCE, wide, "bspline")
    for part in ("real", "imag"):
        expected = on_grid(getattr(array, part).astype(np.float64), SOURCE, wide, "bspline")
        np.testing.assert_allclose(getattr(found, part), expected, atol=1e-5)
    outside = np.ones(wide.shape, bool)
    outside[4:-4, 10:-10, 12:-12] = False
    assert not found[outside].any()
    np.testing.assert_allclose(found[4:-4, 10:-10, 12:-12], array, atol=1e-5)


def test_the_outer_half_of_border_voxels_is_in_the_field_of_view():
    array = np.full((2, 8, 8), 7.0)
    coarse = grid(array.shape, (2.0, 2.0, 2.0))
    found = on_grid(array, coarse, spaced_grid(coarse, (1, 1, 1)), "bspline")
    np.testing.assert_allclose(found, np.full((4, 16, 16), 7.0))


def test_maps_keep_their_gaps(rng):
    array = smooth(world(SOURCE))
    gap = np.linalg.norm(world(SOURCE) - [3, -2, 5], axis=-1) < 6
    array[gap] = np.nan
    found = on_grid(array, SOURCE, WITHIN, "bspline", gaps=True)
    distance = np.linalg.norm(world(WITHIN) - [3, -2, 5], axis=-1)
    assert np.isnan(found[distance < 4]).all()
    assert np.isfinite(found[distance > 8]).all()
    far = distance > 10
    assert np.abs(found - smooth(world(WITHIN)))[far].max() < 0.3  # no ringing from the gap
    assert np.abs(found - smooth(world(WITHIN)))[np.isfinite(found)].max() < 15
    coarse = spaced_grid(SOURCE, (4, 4, 4))
    down = on_grid(array, SOURCE, coarse, "bspline", gaps=True)
    known = np.isfinite(down)
    assert 0 < (~known).sum() < 60
    assert np.abs(down - smooth(world(coarse)))[known].max() < 15
    np.testing.assert_array_equal(np.isnan(on_grid(array, SOURCE, SOURCE, "nearest", gaps=True)), gap)


def test_grids_of_other_voxel_sizes_cover_the_field_of_view():
    finer = spaced_grid(SOURCE, (0.65, 0.55, 1.9))
    assert finer.shape == (22, 80, 72)
    np.testing.assert_allclose(finer.spacing, [1.9, 0.55, 0.65])
    corners = [apply_affine(g.affine, np.array([-0.5, -0.5, -0.5])) for g in (SOURCE, finer)]
    np.testing.assert_allclose(corners[0], corners[1], atol=1e-9)
    sheared = SOURCE.affine @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    straight = spaced_grid(Grid(SOURCE.shape, sheared), (1, 1, 2))
    axes = straight.affine[:3, :3] / np.linalg.norm(straight.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    corner = np.array([-0.5, -0.5, -0.5]), np.array(SOURCE.shape[::-1]) - 0.5
    inverse = np.linalg.inv(straight.affine)
    for x, y, z in np.stack(np.meshgrid(*np.transpose(corner)), -1).reshape(-1, 3):
        inside = apply_affine(inverse, apply_affine(sheared, [x, y, z]))
        assert (inside >= -0.5 - 1e-2).all()
        assert (inside <= np.array(straight.shape[::-1]) - 0.5 + 1e-2).all()
    assert parse_spacing("1,0.5, 3") == (1.0, 0.5, 3.0)


# The step on a cohort

T2 = grid((6, 32, 32), (0.5, 0.5, 3.0), (0.1, 0, 0.2))
ADC = grid((8, 20, 18), (1.5, 1.5, 2.5), (0, 0.1, 0), (1, 0, -1))


@pytest.fixture
def cohort(tmp_path, rng):
    """Two volumes as Prostate158 has them: T2 and ADC on grids of their own; a third without ADC."""
    made = Provenance(method="test", package="mri-io", version="0")
    cohort = create_cohort(tmp_path / "c")
    for number in (1, 2, 3):
        with cohort.create_volume(f"sub-{number}_acq-x_run-1", subject_id=f"sub-{number}") as volume:
            t2 = smooth(world(T2)).astype(np.int16)
            volume.write("image/t2", t2, provenance=made, affine=T2.affine)
            if number == 3:
                continue
            adc = smooth(world(ADC)).astype(np.float32)
            adc[0, :3] = np.nan
            volume.write("qmap/adc", adc, provenance=made, affine=ADC.affine, attributes={"unit": "mm2/s", "fit": "a"})
            lesion = (np.linalg.norm(world(ADC), axis=-1) < 5).astype(np.uint8) * 2
            volume.write("seg/lesion", lesion, provenance=made, affine=ADC.affine, labels={2: "lesion"})
            cine = np.stack([smooth(world(T2)), -smooth(world(T2))]).astype(np.float32)
            dims = ("frame", "slice", "y", "x")
            volume.write("image/cine", cine, provenance=made, affine=T2.affine, dims=dims)
            volume.write("image/nowhere", t2, provenance=made)
            volume.write("sens/x", np.ones((6, 1, 2, 32, 32), np.complex64), provenance=made)
    return cohort


def test_a_map_and_its_labels_come_to_the_grid_of_another_image(cohort):
    summary = resample(cohort.path, "qmap/adc", to="image/t2")
    assert str(summary) == "resample qmap/adc-to-t2: 2 done, 0 skipped, 0 failed"
    volume = cohort["sub-1_acq-x_run-1"]
    element = volume["qmap/adc-to-t2"]
    np.testing.assert_allclose(element.affine, T2.affine)
    assert (element.shape, element.dtype) == (T2.shape, np.float32)
    assert (element.attributes["unit"], element.attributes["fit"]) == ("mm2/s", "a")
    assert [ref["path"] for ref in element.provenance["inputs"]] == ["qmap/adc", "image/t2"]
    indices = apply_affine(np.linalg.inv(ADC.affine), world(T2))
    inside = (np.abs(indices - (np.array(ADC.shape[::-1]) - 1) / 2) < np.array(ADC.shape[::-1]) / 2).all(axis=-1)
    assert 0.9 < inside.mean() < 1
    details = {"from": "qmap/adc", "method": "bspline", "coverage": pytest.approx(inside.mean())}
    assert element.attributes["resampled"] == details
    assert np.isnan(element.numpy()[~inside]).all()
    known = np.isfinite(element.numpy())
    assert known.mean() > 0.95
    assert np.abs(element.numpy() - smooth(world(T2)))[known].max() < 1
    assert resample(cohort.path, "seg/lesion", to="image/t2").ok
    labels = volume["seg/lesion-to-t2"]
    assert labels.labels == {2: {"name": "lesion"}}
    before, after = labels.attributes["resampled"]["volume_mm3"]["2"]
    assert after == pytest.approx(before, rel=0.01)
    assert after == pytest.approx((labels.numpy() == 2).sum() * T2.voxel_volume, rel=1e-4)


def test_it_continues_where_it_stopped(cohort):
    assert resample(cohort.path, "qmap/adc", to="image/t2", volumes=["sub-2_acq-x_run-1"]).count("done") == 1
    again = resample(cohort.path, "qmap/adc", to="image/t2")
    assert (again.count("done"), again.count("skipped")) == (1, 1)
    taken = r"none of 2 volumes can be worked on.* made in another way or from other data\. Choose another --name"
    with pytest.raises(ConfigError, match=taken):
        resample(cohort.path, "qmap/adc", to="image/t2", method="linear")
    assert resample(cohort.path, "qmap/adc", to="image/t2", method="linear", replace=True).ok
    assert cohort["sub-1_acq-x_run-1"]["qmap/adc-to-t2"].attributes["resampled"]["method"] == "linear"


def test_voxel_sizes_and_series(cohort):
    assert resample(cohort.path, "image/cine", spacing=(1, 1, 3)).ok
    cine = cohort["sub-1_acq-x_run-1"]["image/cine-1x1x3mm"]
    assert (cine.dims, cine.shape) == (("frame", "slice", "y", "x"), (2, 6, 16, 16))
    np.testing.assert_allclose(cine[1], -cine[0], atol=1e-4)
    points = world(spaced_grid(T2, (1, 1, 3)))
    assert np.abs(cine[0] - smooth(points))[:, 1:-1, 1:-1].max() < 1
    assert resample(cohort.path, "image/t2", spacing=(1, 1, 3), name="coarse").count("done") == 3
    assert cohort["sub-3_acq-x_run-1"]["image/coarse"].dtype == np.float32  # splines of integers are none
    assert resample(cohort.path, "image/t2", spacing=(1, 1, 3), name="near", method="nearest").ok
    assert cohort["sub-3_acq-x_run-1"]["image/near"].dtype == np.int16


REFUSED = {
    "both": ({"to": "image/t2", "spacing": (1, 1, 1)}, "grid: expected one of --to and --spacing, got both"),
    "neither": ({}, "expected one of --to and --spacing, got neither"),
    "method": (
        {"to": "image/t2", "method": "label"},
        "--method of qmap/adc: expected bspline, linear, nearest, got label",
    ),
    "unknown": ({"to": "image/t2", "method": "cubic"}, "method: Input should be 'bspline'"),
    "own name": ({"to": "qmap/t2", "name": "t2"}, "--name: expected one of its own, got that of qmap/t2"),
    "bad name": ({"to": "image/t2", "name": "a b"}, "--name: element path"),
    "spacing": ({"spacing": (1, 0, 1)}, "spacing: expected three positive numbers of mm"),
    "other": (
        {"to": "image/dwi"},
        r"resample qmap/adc-to-dwi: none of 2 volumes can be worked on\. The first: .* there is no element 'image/dwi'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_at_once(cohort, case):
    options, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        resample(cohort.path, "qmap/adc", **options)
    assert not open_cohort(cohort.path).failures()


def test_elements_that_have_no_grid(cohort):
    with pytest.raises(ConfigError, match="element: expected an image, recon, qmap or seg, got sens/x"):
        resample(cohort.path, "sens/x", to="image/t2")
    with pytest.raises(ElementNotFoundError, match="no volume has an element 'image/dwi'"):
        resample(cohort.path, "image/dwi", to="image/t2")
    with pytest.raises(ConfigError, match=r"expected voxel sizes x,y,slice in mm, .* got '1,1'"):
        parse_spacing("1,1")
    with pytest.raises(ConfigError, match="image/nowhere: affine: expected a known one, got none"):
        resample(cohort.path, "image/nowhere", to="image/t2")
    assert not cohort.failures()


def test_label_maps_need_an_image_on_their_grid(cohort):
    way = r"image/t2 --spacing 1,1,3 --name iso, then seg/lesion --to image/iso"
    with pytest.raises(ConfigError, match=way):
        resample(cohort, "seg/lesion", spacing=(1, 1, 3))
    with pytest.raises(ConfigError, match=way):
        resample(cohort, "seg/lesion", spacing=(1, 1, 3), volumes=["sub-1_acq-x_run-1"])
    assert not cohort.failures()
    assert resample(cohort, "image/t2", spacing=(1, 1, 3), name="iso").ok
    assert resample(cohort, "seg/lesion", to="image/iso").count("done") == 2
    # Of one volume alone it is known only where it is worked on.
    assert resample(cohort, "qmap/adc", spacing=(1, 1, 3), name="iso", volumes=["sub-1_acq-x_run-1"]).ok
    (failure,) = resample(cohort, "seg/lesion", spacing=(1, 1, 3), name="own").failures
    assert (failure.label, "Resample an image first" in failure.error) == ("sub-2_acq-x_run-1", True)
    assert [row["item"] for row in cohort.failures()] == ["sub-2_acq-x_run-1"]


def test_fields_of_view_that_do_not_meet(cohort, made):
    volume = cohort["sub-1_acq-x_run-1"]
    far = T2.affine + np.array([[0, 0, 0, 500.0], [0] * 4, [0] * 4, [0] * 4])
    volume.write("image/far", np.ones(T2.shape, np.float32), provenance=made, affine=far)
    (failure,) = resample(cohort.path, "qmap/adc", to="image/far", volumes=[volume.id]).failures
    assert "field of view: expected one that meets" in failure.error


@pytest.mark.parametrize("spacing", [(0.0001, 0.0001, 0.0001), (1e-300, 1, 1), (0.002, 0.002, 60)])
def test_grids_that_no_machine_holds_are_refused(spacing):
    with pytest.raises(ConfigError, match=r"spacing: expected a grid of at most 2147483648 voxels, .*larger voxels"):
        spaced_grid(SOURCE, spacing)


def parcellated(tmp_path, made, shape, spacing, labels):
    """Return a volume with a parcellation ``seg/p`` without gaps."""
    noise = np.random.default_rng(5).standard_normal((labels, *shape))
    array = np.stack([ndimage.gaussian_filter(one, (1, 3, 3)) for one in noise]).argmax(axis=0).astype(np.uint8)
    cohort = create_cohort(tmp_path / "p")
    names = {n: f"region {n}" for n in range(1, labels)}
    with cohort.create_volume("sub-01_acq-p_run-1", subject_id="sub-01") as volume:
        volume.write("image/t1", array.astype(np.float32), provenance=made, affine=np.diag([*spacing, 1]))
        volume.write("seg/p", array, provenance=made, affine=np.diag([*spacing, 1]), labels=names)
    return cohort.volumes()[0]


@pytest.mark.parametrize(("spacing", "labels"), [((1, 1, 1), 12), ((2, 2, 2), 12), ((1, 1, 1), 2)])
def test_the_memory_that_labels_take_is_stated(tmp_path, made, monkeypatch, spacing, labels):
    for module in (grids, resampling):
        monkeypatch.setattr(module, "BLOCK_VOXELS", 2**15)  # so that blocks are a small part of it
    volume = parcellated(tmp_path, made, (12, 56, 56), (1, 1, 4), labels)
    work = resampling._ResampleVolume("seg/p", ResampleConfig(spacing=spacing), "seg/q", replace=False)
    source = volume["seg/p"]
    target = spaced_grid(Grid.of(source), spacing)
    array = source.numpy()
    tracemalloc.start()
    resampled_labels(lambda part: array[part], array.dtype, Grid.of(source), target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < work.memory(volume) < 10 * peak


def test_labels_whose_volume_cannot_be_kept_are_named(cohort, monkeypatch):
    monkeypatch.setattr(LabelResult, "missed", property(lambda self: [1]))
    summary = resample(cohort, "seg/lesion", to="image/t2")
    first, _ = summary.notes
    assert first == "sub-1_acq-x_run-1: labels 1: volumes are off by more than half a voxel"
    assert cohort["sub-1_acq-x_run-1"]["seg/lesion-to-t2"].attributes["resampled"]["volume_missed"] == [1]


def test_the_command(cohort, cli):
    done = cli("resample", cohort.path, "image/t2", "--spacing", "1,1,3", "--name", "iso", "--method", "linear")
    assert (done.status, done.out) == (0, "resample image/iso: 3 done, 0 skipped, 0 failed\n")
    assert cohort["sub-3_acq-x_run-1"]["image/iso"].shape == (6, 16, 16)
    some = cli("resample", cohort.path, "seg/lesion", "--to", "image/t2", "--volume", "sub-2_acq-x_run-1")
    assert some.out == "resample seg/lesion-to-t2: 1 done, 0 skipped, 0 failed\n"
    failed = cli("resample", cohort.path, "image/t2", "--to", "image/cine")
    assert (failed.status, failed.out.splitlines()[0]) == (1, "resample image/t2-to-cine: 2 done, 0 skipped, 1 failed")
    assert cli("resample", cohort.path, "image/t2", "--spacing", "1;1;3").status == 2
