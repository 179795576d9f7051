"""Sampling masks: what each promises, counted on the mask itself; the stored masks of commands."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from mri_io import create_cohort
from mri_io.schema import Provenance
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.mask_options import Mask
from mri_recon.physics.masks import (
    MASKS,
    acceleration,
    caipirinha_mask,
    calibration_region,
    equispaced_2d_mask,
    equispaced_mask,
    gaussian_2d_mask,
    gaussian_mask,
    kt_equispaced_mask,
    kt_gaussian_mask,
    partial_fourier,
    poisson_mask,
    poisson_radius,
    prospective_mask,
    radial_mask,
    spiral_mask,
)
from mri_recon.run import run
from mri_recon.stored_masks import MaskConfig, stored_mask

MADE = Provenance.of("mri-io", "test")
SIZES = {"frame": 6, "ky": 81, "kx": 64}
LINES = [name for name, kind in MASKS.items() if kind.dims == ("line",) and name != "partial-fourier"]
FAST_MRI = ["equispaced", "equispaced-fraction", "random"]
EXACT = {"gaussian", "gaussian-2d", "poisson"}


@pytest.mark.parametrize("name", sorted(MASKS))
def test_every_kind_has_its_centre_its_acceleration_and_its_seed(name):
    kind = MASKS[name]
    if name == "partial-fourier":
        mask = kind.make(SIZES, kind.config())
        assert mask.sum() == 48
        assert mask[-48:].all()
        return
    made = [kind.make(SIZES, kind.config(acceleration=4, seed=seed)) for seed in (1, 1, 2, 3)]
    mask = made[0]
    assert mask.dtype == np.uint8
    assert mask.shape == tuple(SIZES[dim] for dim in kind.dims_of(kind.config()))
    assert set(np.unique(mask)) == {0, 1}
    np.testing.assert_array_equal(mask, made[1])
    assert any((mask != other).any() for other in made[2:])
    middle = tuple(
        slice(n // 2 - 1, n // 2 + 2) for dim, n in zip(kind.dims, mask.shape, strict=True) if dim != "frame"
    )
    assert mask[(..., *middle)].all()
    assert 2.5 < acceleration(mask) < 6
    if name in EXACT:
        assert mask.sum() == round(mask.size / 4)
    assert name in Mask.__metadata__[0].help


@pytest.mark.parametrize("name", sorted(set(MASKS) - {"partial-fourier"}))
def test_every_kind_refuses_what_it_cannot_reach(name):
    shape = [SIZES[dim] for dim in MASKS[name].dims_of(MASKS[name].config())]
    given_shape = shape[0] if len(shape) == 1 else tuple(shape)
    with pytest.raises(ConfigError, match="acceleration >= 1"):
        MASKS[name](given_shape, 0.5, 0.08, 0)
    if name in EXACT | {"radial", "spiral", "kt-gaussian", "equispaced-fraction"}:
        with pytest.raises(ConfigError, match=r"smaller cent"):
            MASKS[name](given_shape, 8, 0.9, 0)


@pytest.mark.parametrize("kind", FAST_MRI)
def test_fastmri_masks_of_lines(kind: str) -> None:
    mask = MASKS[kind](160, 4, 0.08, 3)
    assert mask[74:87].all()  # 13 lines around the centre
    assert 2.5 < acceleration(mask) < 5


def test_only_lattices_need_an_integer_acceleration() -> None:
    """Cut to an integer, 4.7 would be stored under a name that says 4.7."""
    for kind in ("equispaced", "equispaced-2d", "caipirinha", "kt-equispaced"):
        with pytest.raises(ConfigError, match=rf"acceleration: expected an integer for {kind}.*got 4\.7"):
            MASKS[kind](160 if kind == "equispaced" else (160, 160), 4.7, 0.08, 0)
    np.testing.assert_array_equal(equispaced_mask(160, 4.0, 0.08, 0), equispaced_mask(160, 4, 0.08, 0))
    for kind in ("equispaced-fraction", "random"):
        achieved = np.mean([acceleration(MASKS[kind](160, 4.7, 0.08, seed)) for seed in range(40)])
        assert achieved == pytest.approx(4.7, rel=0.06)


def test_gaussian_lines_with_exactly_eight_at_the_centre() -> None:
    """The setting of Acar 2022, at 4x and 8x."""
    for r in (4, 8):
        density = np.mean([gaussian_mask(256, r, seed=seed, center_lines=8) for seed in range(200)], axis=0)
        assert density.sum() == pytest.approx(256 / r)
        assert (density == 1).sum() == 8
        assert (density[124:132] == 1).all()
        outer, inner = density[[20, 235]].mean(), density[[100, 155]].mean()
        assert outer < 0.2 * inner
    with pytest.raises(ConfigError, match="9 of 72 samples"):
        gaussian_mask(72, 8, center_lines=10)


def test_gaussian_density_has_the_width_that_is_asked_for() -> None:
    """Few of many points are drawn, so that frequencies are proportional to the density."""
    for fwhm in (0.2, 0.4):
        seen = np.sum([gaussian_2d_mask((101, 101), 60, 0, seed, fwhm=fwhm) for seed in range(150)], axis=0)
        offset = np.arange(101) - 50
        spread = np.sqrt(np.average(offset**2, weights=seen.sum(axis=0)))
        # The standard deviation of the density itself, which ends with the axis.
        weights = np.exp(-4 * np.log(2) * (offset / (fwhm * 101)) ** 2)
        assert spread == pytest.approx(np.sqrt(np.average(offset**2, weights=weights)), rel=0.06)


@settings(max_examples=12, deadline=None)
@given(st.integers(24, 70), st.integers(24, 70), st.floats(1.5, 12), st.integers(0, 99), st.booleans(), st.booleans())
def test_poisson_samples_keep_their_distance(ky, kx, r, seed, uniform, elliptical) -> None:
    fraction = 0.1
    mask = poisson_mask((ky, kx), r, fraction, seed, uniform=uniform, elliptical=elliptical)
    assert mask.sum() == round(mask.size / r)
    if elliptical:
        assert not mask[0, 0]
    points = np.argwhere(mask)
    if uniform or r < 2:
        return
    # The radius at the edge that such a density has at least; a slope of zero would leave neighbours everywhere.
    near = cKDTree(points).query(points, k=2)[0][:, 1]
    outside = poisson_radius((ky, kx), fraction, 1.0) > 1.7
    far = outside[tuple(points.T)]
    if r > 4 and far.sum() > 3:
        assert near[far].min() >= np.sqrt(2) - 1e-9


@pytest.mark.parametrize(("shape", "r"), [((96, 80), 3), ((96, 80), 6), ((64, 120), 10)])
def test_the_radius_of_poisson_discs_is_kept_exactly(shape, r, monkeypatch) -> None:
    """Every pair outside the centre is apart by the smaller of its radii, for the slope that was found."""
    from mri_recon.physics.masks import poisson

    slopes = []
    throw = poisson._throw
    monkeypatch.setattr(
        poisson, "_squared", lambda slope, d, inner=poisson._squared: slopes.append(slope) or inner(slope, d)
    )
    counts = {}

    def watched(points, squared, shape, rng):
        taken = throw(points, squared, shape, rng)
        counts[len(taken)] = slopes[-1]
        return taken

    monkeypatch.setattr(poisson, "_throw", watched)
    mask = poisson_mask(shape, r, 0.1, 5)
    drawn = int(mask.sum()) - round(shape[0] * 0.1) * round(shape[1] * 0.1)
    count = min(n for n in counts if n >= drawn)
    assert drawn <= count <= 1.03 * drawn
    radius = poisson_radius(shape, 0.1, counts[count])
    mask[radius == 1] = 0
    points = np.argwhere(mask)
    pairs = cKDTree(points).query_pairs(radius.max() + 1.5, output_type="ndarray")
    distance = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    allowed = np.minimum(*(radius[tuple(points[pairs[:, side]].T)] for side in (0, 1)))
    assert len(pairs) > 20
    assert (distance >= allowed - 1e-9).all()


def test_lattices() -> None:
    mask = equispaced_2d_mask((12, 18), 6, 0, 3)
    assert acceleration(mask) == 6
    assert (mask.any(axis=1).sum(), mask.any(axis=0).sum()) == (6, 6)  # every 2nd of 12, every 3rd of 18
    sheared = caipirinha_mask((12, 16), 4, 0, 0)
    assert acceleration(sheared) == 4
    rows = np.flatnonzero(sheared.any(axis=1))
    assert (np.diff(rows) == 2).all()
    first, second = (np.flatnonzero(sheared[row])[0] % 2 for row in rows[:2])
    assert first != second  # moved by half a step
    assert np.array_equal(sheared[rows[0]], sheared[rows[2]])
    one = caipirinha_mask((9, 9), 3, 0, 0, shift=1)
    assert (one.sum(axis=0) == 3).all()
    assert (one.sum(axis=1) == 3).all()
    with pytest.raises(ConfigError, match="step_y: expected a divisor of the acceleration 4, got 3"):
        caipirinha_mask((9, 9), 4, 0, 0, step_y=3)


@pytest.mark.parametrize("angles", ["golden", "uniform"])
def test_spokes_and_spirals_reach_the_acceleration(angles) -> None:
    for r in (3, 6, 10):
        mask = radial_mask((96, 80), r, 0.04, 2, angles=angles)
        assert abs(int(mask.sum()) - mask.size / r) <= 96  # a spoke
        arms = spiral_mask((96, 80), r, 0.04, 2)
        assert acceleration(arms) == pytest.approx(r, rel=0.02)
    assert not mask[0, 0]
    with pytest.raises(ConfigError, match="Choose"):
        radial_mask((96, 80), 1.1, 0.04, 2, angles=angles)
    with pytest.raises(ConfigError, match="Choose"):
        spiral_mask((96, 80), 1.1, 0.04, 2)


def test_spokes_meet_in_the_centre() -> None:
    mask = radial_mask((65, 65), 20, 0, 0)
    y, x = np.indices(mask.shape) - 32
    ring = np.hypot(y, x)
    near, far = (mask[(ring > low) & (ring <= low + 6)].mean() for low in (2, 24))
    assert mask[32, 32]
    assert near > 3 * far


def test_frames_complement_each_other() -> None:
    mask = kt_equispaced_mask((4, 30), 4, 0, 1)
    assert (mask.sum(axis=0) == 1).all()
    shifted = kt_equispaced_mask((3, 40), 5, 0, 1, shift=2)
    assert (np.flatnonzero(shifted[1])[0] - np.flatnonzero(shifted[0])[0]) % 5 == 2
    varied = kt_gaussian_mask((400, 128), 8, 0.04, 3)
    assert (varied.sum(axis=1) == 16).all()
    assert varied[:, 62:67].all()
    density = varied.mean(axis=0)
    assert density[64 - 16] > 2.5 * density[64 - 40] > 0
    # Even in time: after 8 frames the lines of half the peak's density were sampled about as often as the density says.
    counted = np.lib.stride_tricks.sliding_window_view(varied[:, 40:60], 20, axis=0).sum(axis=-1)
    assert np.abs(counted - 20 * density[40:60]).max() < 2


def test_partial_fourier_keeps_one_side_of_any_mask() -> None:
    lines = partial_fourier(np.ones(40, np.uint8), 0.625)
    assert lines.tolist() == [0] * 15 + [1] * 25
    assert partial_fourier(np.ones((5, 40), np.uint8), 0.625, keep="first")[:, :25].all()
    points = poisson_mask((40, 30), 3, 0.1, 0)
    cut = partial_fourier(points, 0.75, axis=0)
    assert not cut[:10].any()
    np.testing.assert_array_equal(cut[10:], points[10:])
    assert partial_fourier(np.ones(9), 0.51).sum() == 5  # the centre is kept
    with pytest.raises(ConfigError, match=r"0\.5 < fraction <= 1"):
        partial_fourier(lines, 0.5)


def test_the_mask_of_data_is_where_they_are_not_zero() -> None:
    rng = np.random.default_rng(0)
    kspace = rng.standard_normal((3, 2, 12, 10)) + 0j
    lines = equispaced_mask(10, 2, 0.2, 0)
    np.testing.assert_array_equal(prospective_mask(kspace * lines), np.broadcast_to(lines, (3, 1, 10)))
    np.testing.assert_array_equal(prospective_mask(torch.from_numpy(kspace * lines), shared=0), lines[None, None])
    points = poisson_mask((12, 10), 3, 0.2, 0)
    np.testing.assert_array_equal(prospective_mask(kspace * points)[1], points)
    assert prospective_mask(kspace[0]).shape == (1, 10)
    for bad, message in ((0 * kspace, "zeros only"), (kspace * np.nan, "finite")):
        with pytest.raises(ConfigError, match=message):
            prospective_mask(bad)
    with pytest.raises(ShapeError, match="coil, ky, kx"):
        prospective_mask(points)


def test_a_mask_of_nothing_has_no_acceleration() -> None:
    assert acceleration(np.array([0, 2, 0, 1])) == 2
    with pytest.raises(ConfigError, match="none of 4 positions"):
        acceleration(np.zeros((2, 2)))


def test_calibration_region_is_the_fully_sampled_rectangle() -> None:
    mask = equispaced_mask(160, 4, 0.08, offset=1)
    rows, columns = calibration_region(mask[None])
    assert rows == slice(None)
    assert mask[columns].all()
    assert not mask[columns.start - 1]
    assert not mask[columns.stop]
    grid = np.zeros((40, 30), np.uint8)
    grid[::2, ::2] = 1
    grid[12:26, 9:21] = 1
    assert calibration_region(grid) == (slice(12, 26), slice(9, 21))
    with pytest.raises(ConfigError, match="centre of k-space"):
        calibration_region(np.zeros((4, 4)))


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A volume of slices, and a series."""
    cohort = create_cohort(tmp_path_factory.mktemp("masks") / "cohort")
    rng = np.random.default_rng(0)
    for name, shape, dims in (
        ("still", (1, 2, 40, 32), ("slice", "coil", "ky", "kx")),
        ("cine", (6, 1, 2, 40, 32), ("frame", "slice", "coil", "ky", "kx")),
    ):
        kspace = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
        with cohort.create_volume(f"sub-{name}_acq-x_run-1", subject_id=f"sub-{name}") as volume:
            volume.write("kspace", kspace, dims=dims, provenance=MADE)
    return cohort


@pytest.mark.parametrize("name", sorted(MASKS))
def test_every_kind_is_stored_where_it_fits(scans, name):
    config = MaskConfig(name=name)
    cine, still = scans.volumes()
    for volume in (cine, still):
        if volume is still and name.startswith("kt-"):
            with pytest.raises(ConfigError, match=r"no frame\. Choose another kind"):
                stored_mask(volume, config)
            continue
        made = stored_mask(volume, config)
        assert made.path == f"mask/{config.stored_name}"
        assert made.attributes["acceleration"] == acceleration(made.numpy())
        assert stored_mask(volume, config).commit == made.commit
        summary = run(scans.path, method="zero-filled", maps="none", mask=config, name=f"x-{name}")
        assert f"recon/x-{name}" in volume, summary.failures


def test_names_of_stored_masks_tell_what_is_not_a_default():
    named = {
        "equispaced-r4": {"name": "equispaced"},
        "random-r2-c0.25-s3": {"name": "random", "acceleration": 2, "center_fraction": 0.25, "seed": 3},
        "gaussian-r8-center_lines8": {"name": "gaussian", "acceleration": 8, "settings": {"center_lines": 8}},
        "poisson-r6.5-uniformtrue": {"name": "poisson", "acceleration": 6.5, "settings": {"uniform": True}},
        "partial-fourier": {"name": "partial-fourier"},
        "random-r4-axisky-partial_fourier0.75": {"name": "random", "settings": {"partial_fourier": 0.75, "axis": "ky"}},
    }
    for name, fields in named.items():
        assert MaskConfig(**fields).stored_name == name
    assert MaskConfig(name="random").model_copy(update={"seed": 2}).stored_name == "random-r4-s2"


def test_settings_of_a_mask_from_the_command(scans, cli):
    still = scans.volumes()[1]
    command = ("recon", "run", scans.path, "--method", "zero-filled", "--maps", "none", "--mask")
    options = ("random", "--mask-set", "axis=ky", "--mask-set", "partial_fourier=0.75")
    assert cli(*command, *options).status == 0
    mask = still["mask/random-r4-axisky-partial_fourier0.75"]
    assert mask.dims == ("ky",)
    assert not mask.numpy()[:10].any()
    for wrong, message in (
        (("poisson", "--mask-set", "shift=1"), "shift: unknown key"),
        (("poisson", "--mask-set", "shift"), "--mask-set 'shift': expected the form name=value"),
        (("none", "--mask-set", "shift=1"), "settings: expected only with a mask that is made"),
        (("partial-fourier", "--acceleration", "2"), "acceleration: expected none with partial-fourier"),
        (("random", "--acceleration", "2", "--mask-set", "acceleration=3"), "acceleration: expected once"),
        (("caipirinha", "--mask-set", "step_y=3"), "step_y: expected a divisor"),
        (("gaussian", "--center-fraction", "0.1", "--mask-set", "center_lines=8"), "got both"),
    ):
        done = cli(*command, *wrong)
        assert (done.status, message in done.err) == (2, True), done.err


def test_zeros_of_the_data_are_found_and_kept(tmp_path):
    cohort = create_cohort(tmp_path / "c")
    lines = equispaced_mask(24, 3, 0.2, 0)
    with cohort.create_volume("sub-1_acq-x_run-1", subject_id="sub-1") as volume:
        volume.write("kspace", (np.ones((2, 3, 16, 24)) * lines).astype(np.complex64), provenance=MADE)
    volume = cohort.volumes()[0]
    found = stored_mask(volume, MaskConfig(name="zeros"))
    np.testing.assert_array_equal(found.numpy(), lines)
    assert found.dims == ("kx",)
    assert stored_mask(volume, MaskConfig(name="zeros")).commit == found.commit
