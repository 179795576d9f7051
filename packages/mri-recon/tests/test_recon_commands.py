"""Calibrate and reconstruct a tiny cohort, by functions and by commands."""

import numpy as np
import pytest
import torch

from mri_io import create_cohort, verify
from mri_io.config import load_config
from mri_io.schema import Header, Provenance, Source
from mri_io.store import Split
from mri_io.testing import tiny_cohort
from mri_io.training import load_checkpoint
from mri_recon.calibrate import calibrate
from mri_recon.calibration import EspiritConfig
from mri_recon.classical import CgSenseConfig, ZeroFilledConfig
from mri_recon.config import RunConfig
from mri_recon.errors import ConfigError, ElementNotFoundError, ShapeError
from mri_recon.inference import load_network
from mri_recon.methods import METHODS
from mri_recon.networks import VarNet
from mri_recon.physics import MASKS, random_mask
from mri_recon.run import run
from mri_recon.sampling import Samples
from mri_recon.stored_masks import MaskConfig
from mri_recon.training import train

MADE = Provenance.of("mri-io", "test")
MATRIX = (32, 24)
EVERY = 2  # samples every other line


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny arrays: threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A cohort that tests only add to under names of their own."""
    return tiny_cohort(tmp_path_factory.mktemp("recon") / "cohort", subjects=3, matrix=MATRIX)


@pytest.fixture
def cohort(tmp_path):
    return tiny_cohort(tmp_path / "cohort", subjects=3, matrix=MATRIX)


@pytest.fixture(scope="module", params=["stored", "estimated"])
def checkpoint(shared, tmp_path_factory, request):
    settings = ["cascades=1", "channels=2", "pools=1", "sens_channels=2", "sens_pools=1"]
    settings = [f"model.{s}" for s in (*settings, f"coil_maps={request.param}")]
    settings += ["training.steps=2", "training.loggers=[csv]", "training.progress=false", "training.validate_every=0"]
    return train(shared.path, load_config(RunConfig, None, settings), tmp_path_factory.mktemp("run")).checkpoint


def coil_images(kspace):
    """Centred orthonormal inverse transform, by numpy alone."""
    shifted = np.fft.ifftshift(kspace, axes=(-2, -1))
    return np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))


def combined(kspace, maps):
    return np.sum(maps[:, 0].conj() * coil_images(kspace), axis=1)


def inputs_of(element):
    return {item["path"]: item["commit"] for item in element.provenance["inputs"]}


def test_calibration_finds_the_true_maps(shared):
    assert str(calibrate(shared.path, name="found")) == "calibrate found: 3 done, 0 skipped, 0 failed"
    for volume in shared.volumes():
        found, true = volume["sens/found"].numpy(), volume["sens/espirit"].numpy()
        assert (found.shape, found.dtype) == (true.shape, np.complex64)
        object_ = np.linalg.norm(true, axis=2) > 0
        agreement = np.abs(np.sum(found.conj() * true, axis=2))[object_]
        assert np.median(agreement) > 0.999
        assert np.mean(agreement > 0.98) > 0.97
        assert inputs_of(volume["sens/found"]) == {"kspace": volume["kspace"].commit}
        assert volume["sens/found"].provenance["config"] == EspiritConfig().model_dump()


def test_calibration_from_a_mask_sees_its_central_lines_only(cohort):
    volume = cohort.volumes()[0]
    lines = np.zeros(MATRIX[1], np.uint8)
    lines[8:17] = lines[::4] = 1  # and a few lines outside, which do not count
    for each in cohort.volumes():
        each.write("mask/narrow", lines, dims=("kx",), provenance=MADE)
    assert calibrate(cohort.path, mask="narrow", name="narrow").ok
    made = volume["sens/narrow"]
    assert inputs_of(made) == {path: volume[path].commit for path in ("kspace", "mask/narrow")}
    assert made.attributes["calibration_mask"] == "narrow"
    # The same as from k-space in which there is nothing else.
    other = create_cohort(cohort.path.parent / "other")
    emptied = volume["kspace"].numpy()
    emptied[..., :8], emptied[..., 17:] = 0, 0
    with other.create_volume(volume.id, subject_id="sub-01") as copy:
        copy.write("kspace", emptied, provenance=MADE)
        copy.write("mask/acquired", (np.abs(np.arange(24) - 12) <= 4).astype(np.uint8), dims=("kx",), provenance=MADE)
    assert calibrate(other.path, name="narrow").ok
    np.testing.assert_allclose(other[volume.id]["sens/narrow"].numpy(), made.numpy(), atol=1e-5)


def test_maps_that_are_empty_everywhere_are_not_stored(cohort):
    lines = (np.abs(np.arange(MATRIX[1]) - 12) <= 3).astype(np.uint8)
    for volume in cohort.volumes():
        volume.write("mask/few", lines, dims=("kx",), provenance=MADE)
    config = EspiritConfig(crop=0.9999, calibration=7)
    summary = calibrate(cohort.path, mask="few", name="few", config=config)
    assert len(summary.failures) == 3
    assert summary.failures[0].error.startswith("slice 0: 7 x 7 calibration positions are too few for kernels of 6")
    assert not any("sens/few" in volume for volume in cohort.volumes())


def test_zero_filled_is_the_matched_filter_or_the_root_of_the_sum_of_squares(shared):
    assert run(shared.path, method="zero-filled", name="full").ok
    assert run(shared.path, method="zero-filled", maps="none", name="rss").ok
    for volume in shared.volumes():
        kspace, maps = volume["kspace"].numpy(), volume["sens/espirit"].numpy()
        full, rss = volume["recon/full"], volume["recon/rss"]
        np.testing.assert_allclose(full.numpy(), combined(kspace, maps), atol=2e-6)
        np.testing.assert_allclose(rss.numpy(), np.sqrt(np.sum(np.abs(coil_images(kspace)) ** 2, axis=1)), atol=2e-6)
        assert (full.dtype, rss.dtype, full.shape, full.dims) == ("c8", "f4", (2, *MATRIX), ("slice", "y", "x"))
        np.testing.assert_array_equal(full.affine, volume["image/t1"].affine)
        assert inputs_of(full) == {path: volume[path].commit for path in ("kspace", "sens/espirit")}
        assert inputs_of(rss) == {"kspace": volume["kspace"].commit}


@pytest.mark.parametrize("dims", [("kx",), ("ky",), ("ky", "kx"), ("slice", "ky", "kx")])
def test_cg_sense_solves_the_least_squares_problem(shared, dims, rng):
    sizes = dict(zip(("slice", "ky", "kx"), (2, *MATRIX), strict=True))
    shape = tuple(sizes[dim] for dim in dims)
    mask = (rng.random(shape) < 0.6).astype(np.uint8)
    name = "-".join(dims)
    for volume in shared.volumes():
        volume.write(f"mask/{name}", mask, dims=dims, provenance=MADE)
    setting = CgSenseConfig(regularisation=0.02, tolerance=1e-6)
    assert run(shared.path, method="cg-sense", config=setting, mask=MaskConfig(name=name), part="test").ok
    volume = shared.volumes("default", "test")[0]
    image, maps = volume[f"recon/cg-sense-{name}"][1], volume["sens/espirit"][1, 0].astype(complex)
    pattern = {("kx",): mask[None], ("ky",): mask[..., None]}.get(dims, mask[-1] if len(dims) == 3 else mask)
    # The system's matrix, column by column, from numpy's FFT.
    unknowns = np.eye(MATRIX[0] * MATRIX[1]).reshape(-1, 1, *MATRIX)
    sampled = pattern * np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(maps * unknowns, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
    )
    system = sampled.reshape(len(unknowns), -1).T
    measured = (volume["kspace"][1] * pattern).ravel()
    normal = system.conj().T @ system + 0.02 * np.eye(len(unknowns))
    expected = np.linalg.solve(normal, system.conj().T @ measured).reshape(MATRIX)
    assert np.linalg.norm(image - expected) < 1e-4 * np.linalg.norm(expected)
    assert set(inputs_of(volume[f"recon/cg-sense-{name}"])) == {"kspace", f"mask/{name}", "sens/espirit"}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_a_network_from_its_checkpoint_alone(shared, checkpoint, cli):
    network, config, _ = load_network(checkpoint)
    kind = config.model.coil_maps
    mask = MaskConfig(name="equispaced", acceleration=2, center_fraction=0.2)
    assert run(shared.path, checkpoint=checkpoint, mask=mask, name=kind).ok
    volume = shared.volumes()[1]
    made = volume[f"recon/{kind}"]
    stored = volume["mask/equispaced-r2-c0.2"]
    assert stored.attributes["acceleration"] == pytest.approx(24 / stored.numpy().sum())
    assert made.provenance["weights_sha256"] == load_checkpoint(checkpoint).sha256
    maps = {"sens/espirit"} if kind == "stored" else set()
    assert set(inputs_of(made)) == {"kspace", "mask/equispaced-r2-c0.2"} | maps
    # The network sees the sampled data divided by the maximum of their zero-filled image, and is multiplied back.
    sampled = volume["kspace"].numpy() * stored.numpy()
    for number in range(2):
        images = coil_images(sampled[number : number + 1])
        first = combined(sampled, volume["sens/espirit"].numpy())[number]
        scale = np.abs(first).max() if maps else np.sqrt(np.sum(np.abs(images) ** 2, axis=1)).max()
        arguments = [sampled[number : number + 1] / scale, stored.numpy()[None, None, None].astype(np.float32)]
        arguments += [volume["sens/espirit"][number : number + 1]] if maps else []
        with torch.inference_mode():
            out = network(*(torch.from_numpy(a.astype(a.dtype.char.replace("D", "F"))) for a in arguments)).image
        np.testing.assert_allclose(made[number], scale * out[0].numpy(), rtol=1e-3, atol=1e-5)
    sampling = ("--mask", "equispaced", "--acceleration", 2, "--center-fraction", 0.2)
    again = cli("recon", "run", shared.path, "--checkpoint", checkpoint, *sampling, "--name", kind)
    assert (again.status, again.out) == (0, f"reconstruct {kind}: 0 done, 3 skipped, 0 failed\n")
    assert cli("recon", "run", shared.path, "--checkpoint", checkpoint, *sampling, "--replace").status == 0
    assert volume["recon/varnet-equispaced-r2-c0.2"].provenance["weights_sha256"] == made.provenance["weights_sha256"]
    wrong = "none" if kind == "stored" else "espirit"
    with pytest.raises(ConfigError, match="Leave --maps out"):
        run(shared.path, checkpoint=checkpoint, maps=wrong)
    with pytest.raises(ConfigError, match="a checkpoint has its own"):
        run(shared.path, checkpoint=checkpoint, config=CgSenseConfig())


def test_the_default_mask_is_the_acquired_one(cohort):
    lines = (np.arange(24) % EVERY == 0).astype(np.uint8)
    first, second, _ = cohort.volumes()
    first.write("mask/acquired", lines, dims=("kx",), provenance=MADE)
    assert run(cohort.path, method="zero-filled").ok
    assert set(inputs_of(first["recon/zero-filled"])) == {"kspace", "mask/acquired", "sens/espirit"}
    assert set(inputs_of(second["recon/zero-filled"])) == {"kspace", "sens/espirit"}
    expected = combined(first["kspace"].numpy() * lines, first["sens/espirit"].numpy())
    np.testing.assert_allclose(first["recon/zero-filled"].numpy(), expected, atol=2e-6)


def acquired_cohort(path, acquired, dims, header=None, **cohort_options):
    """A tiny cohort of scans that acquired only some samples."""
    full = tiny_cohort(path.with_name("full"), subjects=3, matrix=MATRIX, **cohort_options)
    scans = create_cohort(path)
    shape = {("kx",): (1, -1), ("ky",): (-1, 1)}.get(dims)
    pattern = acquired[:, None] if len(dims) == 3 else acquired.reshape(shape) if shape else acquired
    for volume in full.volumes():
        with scans.create_volume(volume.id, subject_id=volume.subject_id, header=header) as scan:
            scan.write("kspace", volume["kspace"].numpy() * pattern, provenance=MADE)
            for path in ("sens/espirit", "recon/reference"):
                scan.write(path, volume[path].numpy(), provenance=MADE)
            scan.write("mask/acquired", acquired, dims=dims, provenance=MADE)
    scans.write_split(full.split())
    return scans


@pytest.mark.parametrize("dims", [("kx",), ("ky",), ("ky", "kx"), ("slice", "ky", "kx")])
def test_a_chosen_mask_takes_no_sample_that_was_not_acquired(tmp_path, dims, rng):
    sizes = dict(zip(("slice", "ky", "kx"), (2, *MATRIX), strict=True))
    acquired = (rng.random([sizes[dim] for dim in dims]) < 0.6).astype(np.uint8)
    acquired[(..., *(slice(sizes[dim] // 2 - 4, sizes[dim] // 2 + 4) for dim in dims if dim != "slice"))] = 1
    scans = acquired_cohort(tmp_path / "scans", acquired, dims)
    mask = MaskConfig(name="equispaced", acceleration=2, center_fraction=0.2)
    assert run(scans.path, method="cg-sense", mask=mask, name="half").ok
    volume = scans.volumes()[0]
    drawn = volume["mask/equispaced-r2-c0.2"].numpy()
    np.testing.assert_array_equal(drawn, MASKS["equispaced"](24, 2, 0.2, 0))  # stays what was drawn
    masks = {"mask/equispaced-r2-c0.2", "mask/acquired"}
    assert set(inputs_of(volume["recon/half"])) == {"kspace", "sens/espirit", *masks}
    # The same as with one mask that is the product.
    both = np.broadcast_to(drawn * (acquired[:, None] if dims == ("ky",) else acquired), (2, *MATRIX))
    volume.write("mask/both", both.copy(), dims=("slice", "ky", "kx"), provenance=MADE)
    assert volume["mask/both"].numpy().sum() < drawn.sum() * 2 * MATRIX[0]
    run(scans.path, method="cg-sense", mask=MaskConfig(name="both"), name="both", part="train")
    np.testing.assert_allclose(volume["recon/half"].numpy(), volume["recon/both"].numpy(), atol=1e-5)
    # None means no further mask.
    assert run(scans.path, method="cg-sense", mask=MaskConfig(name="none"), name="all").ok
    assert run(scans.path, method="cg-sense", name="acquired").ok
    assert inputs_of(volume["recon/all"]) == inputs_of(volume["recon/acquired"])
    np.testing.assert_array_equal(volume["recon/all"].numpy(), volume["recon/acquired"].numpy())


def test_lines_outside_the_padding_are_not_sampled(tmp_path):
    """CG-SENSE would enforce zeros there. In ISMRMRD files the lines are rows, elsewhere columns."""
    full = tiny_cohort(tmp_path / "full", subjects=2, matrix=MATRIX).volumes()[0]
    scans = create_cohort(tmp_path / "scans")
    for name, area in (("ismrmrd", np.s_[..., 5:20, :]), ("fastmri", np.s_[..., 5:20])):
        kspace = np.zeros_like(full["kspace"].numpy())
        kspace[area] = full["kspace"].numpy()[area]
        options = {"subject_id": "sub-01", "header": Header(padding_left=5, padding_right=20)}
        source = Source(uri="x", sha256="0" * 64, format=name)
        with scans.create_volume(f"sub-01_acq-{name}_run-1", source=source, **options) as volume:
            volume.write("kspace", kspace, provenance=MADE)
            volume.write("sens/espirit", full["sens/espirit"].numpy(), provenance=MADE)
            known = np.zeros((2, *MATRIX), np.uint8)
            known[area] = 1
            drawn = MASKS["equispaced"](24, 2, 0.08, 0)
            volume.write("mask/known", known * drawn, dims=("slice", "ky", "kx"), provenance=MADE)
    made = MaskConfig(name="equispaced", acceleration=2)
    assert run(scans.path, method="cg-sense", mask=made, name="half").ok
    assert run(scans.path, method="cg-sense", mask=MaskConfig(name="known"), name="known").ok
    for volume in scans.volumes():
        np.testing.assert_array_equal(volume["mask/equispaced-r2"].numpy(), drawn)
        samples = Samples(volume, volume["kspace"], volume["mask/equispaced-r2"]).of_slice(0)
        np.testing.assert_array_equal(np.broadcast_to(samples, MATRIX), volume["mask/known"][0])
        np.testing.assert_allclose(volume["recon/half"].numpy(), volume["recon/known"].numpy(), atol=1e-5)


def test_calibration_takes_no_sample_that_was_not_acquired(tmp_path):
    lines = (np.abs(np.arange(24) - 12) <= 4).astype(np.uint8)
    scans = acquired_cohort(tmp_path / "scans", lines, ("kx",))
    for volume in scans.volumes():
        volume.write("mask/wide", np.ones(24, np.uint8), dims=("kx",), provenance=MADE)
    assert calibrate(scans.path, name="own").ok
    assert calibrate(scans.path, mask="wide", name="wide").ok
    volume = scans.volumes()[0]
    np.testing.assert_array_equal(volume["sens/own"].numpy(), volume["sens/wide"].numpy())
    assert set(inputs_of(volume["sens/wide"])) == {"kspace", "mask/wide", "mask/acquired"}


def test_all_of_an_accelerated_scan_is_told_to_be_no_reference(tmp_path, caplog):
    scans = acquired_cohort(tmp_path / "scans", (np.arange(24) % EVERY == 0).astype(np.uint8), ("kx",))
    run(scans.path, method="zero-filled", mask=MaskConfig(name="none"), name="x")
    told = [record.getMessage() for record in caplog.records if "no fully sampled reference" in record.getMessage()]
    assert len(told) == 3  # once for each volume
    assert told[0].endswith("mask/acquired has 12 of 24 samples")
    caplog.clear()
    mostly = (np.arange(24) % 3 != 0).astype(np.uint8)
    few = acquired_cohort(tmp_path / "other" / "scans", mostly, ("kx",))
    run(few.path, method="zero-filled", mask=MaskConfig(name="none"), name="x")
    assert "no fully sampled reference" not in caplog.text


@pytest.mark.parametrize("dims", [("kx",), ("ky", "kx"), ("slice", "ky", "kx")])
def test_training_takes_no_sample_that_was_not_acquired(tmp_path, dims, monkeypatch):
    sizes = dict(zip(("slice", "ky", "kx"), (2, *MATRIX), strict=True))
    acquired = np.zeros([sizes[dim] for dim in dims], np.uint8)
    acquired[..., 1::2] = acquired[..., 8:17] = 1
    if "ky" in dims:
        acquired[..., 3, :8] = 0
    header = Header(padding_left=2, padding_right=22)
    scans = acquired_cohort(tmp_path / "scans", acquired, dims, header)
    seen = []
    forward = VarNet.forward

    def watched(self, kspace, mask, maps=None):
        seen.append(mask.numpy())
        return forward(self, kspace, mask, maps)

    monkeypatch.setattr(VarNet, "forward", watched)
    settings = ["model.cascades=1", "model.channels=2", "model.pools=1", "model.coil_maps=stored"]
    settings += ["data.sampling.acceleration=2", "data.sampling.center_fraction=0.2", "training.batch_size=2"]
    settings += ["training.steps=3", "training.loggers=[csv]", "training.progress=false"]
    train(scans.path, load_config(RunConfig, None, settings), tmp_path / "run")
    allowed = np.broadcast_to(acquired, (2, *MATRIX)).all(axis=0) & (np.abs(np.arange(24) - 11.5) < 10)
    assert len(seen) == 5
    for mask in seen:
        assert mask[..., 10:14].all()
        assert not (np.broadcast_to(mask, (len(mask), 1, *MATRIX)) > allowed).any()


def test_a_rerun_skips_and_what_was_made_in_another_way_is_kept_unless_replaced(cohort, cli):
    command = ("recon", "run", cohort.path, "--method", "cg-sense", "--name", "x")
    assert cli(*command).out.splitlines()[0] == "reconstruct x: 3 done, 0 skipped, 0 failed"
    commit = cohort.volumes()[0]["recon/x"].commit
    again = cli(*command)
    assert (again.status, again.out) == (0, "reconstruct x: 0 done, 3 skipped, 0 failed\n")
    changed = cli(*command, "--set", "iterations=2")
    assert changed.status == 1
    assert changed.out.splitlines()[0] == "reconstruct x: 0 done, 0 skipped, 3 failed"
    assert "recon/x exists and was made in another way or from other data." in changed.out
    assert cohort.volumes()[0]["recon/x"].commit == commit
    assert cli(*command, "--set", "iterations=2", "--replace").status == 0
    made = cohort.volumes()[0]["recon/x"]
    assert (made.commit != commit, made.provenance["config"]["iterations"]) == (True, 2)
    assert cohort.failures() == []
    # New maps make it outdated, too.
    assert cli("recon", "calibrate", cohort.path, "--replace", "--part", "test").status == 0
    stale = cli(*command, "--set", "iterations=2")
    assert stale.out.splitlines()[0] == "reconstruct x: 0 done, 2 skipped, 1 failed"


def test_made_masks_are_kept_apart_by_their_parameters(cohort):
    first = MaskConfig(name="random", acceleration=2)
    others = [first.model_copy(update=change) for change in ({"seed": 2}, {"center_fraction": 0.25})]
    for mask in (first, *others):
        assert run(cohort.path, method="zero-filled", mask=mask).ok
    names = ["random-r2", "random-r2-s2", "random-r2-c0.25"]
    for volume in cohort.volumes():
        masks = [volume[f"mask/{name}"].numpy() for name in names]
        np.testing.assert_array_equal(masks[0], random_mask(24, 2, 0.08, 0))
        assert len({mask.tobytes() for mask in masks}) == 3
        assert all(f"recon/zero-filled-{name}" in volume for name in names)
    cohort.volumes()[0].write("mask/random-r3", masks[0], dims=("kx",), provenance=MADE)
    (failure,) = run(cohort.path, method="zero-filled", mask=MaskConfig(name="random", acceleration=3)).failures
    assert "mask/random-r3 exists and was not made as random with 3-fold" in failure.error
    assert failure.error.endswith("To use it as it is: --mask random-r3")


def test_one_broken_volume_does_not_stop_the_others(cohort, cli):
    broken = cohort.volume_ids()[1]
    cohort[broken].remove("sens/espirit")
    done = cli("recon", "run", cohort.path, "--method", "zero-filled", "--name", "x")
    assert done.status == 1
    lines = done.out.splitlines()
    assert lines[0] == "reconstruct x: 2 done, 0 skipped, 1 failed"
    assert lines[1].startswith(f"  failed: {broken}: ")
    assert lines[1].endswith(
        "there are no coil maps 'sens/espirit'. Coil maps of this volume: none. "
        f"Make them: mri-cli recon calibrate {cohort.path} --method espirit"
    )
    assert ["recon/x" in volume for volume in cohort.volumes()] == [True, False, True]
    assert [(row["item"], row["stage"]) for row in cohort.failures()] == [(broken, "reconstruct x")]
    assert cli("recon", "calibrate", cohort.path, "--part", "val").status == 0  # as the message says
    assert cli("recon", "run", cohort.path, "--method", "zero-filled", "--name", "x").status == 0
    assert cohort.failures() == []
    assert verify(cohort).ok


def odd_volume(cohort, number, kspace):
    with cohort.create_volume(f"sub-{number}_acq-x_run-1", subject_id=f"sub-{number}") as volume:
        if kspace is not None:
            volume.write("kspace", kspace.astype(np.complex64), provenance=MADE)


def test_odd_volumes_give_finite_results_or_say_why_not(shared, tmp_path):
    good = shared.volumes()[0]["kspace"].numpy()
    partly = good.copy()
    partly[1] = 0
    odd = create_cohort(tmp_path / "odd")
    cases = [partly, 0 * good, good[:, :1], 1e-12 * good, 1e12 * good, None, good[..., :5], 1e25 * good]
    for number, kspace in enumerate(cases):
        odd_volume(odd, number, kspace)
    summary = calibrate(odd.path)
    errors = {failure.label[4:5]: failure.error for failure in summary.failures}
    assert sorted(errors) == ["1", "5", "6"]
    assert errors["1"].endswith("kspace: expected a signal, got zeros only. Leave the volume out.")
    assert errors["5"].endswith("there is no element 'kspace'. Elements of this volume: none.")
    assert "expected at least 6 x 6 fully sampled central positions, got 24 x 5" in errors["6"]
    run(odd.path, method="cg-sense", mask=MaskConfig(name="equispaced", acceleration=2, center_fraction=0.2))
    run(odd.path, method="zero-filled", maps="none")
    for volume in odd.volumes():
        assert all(np.isfinite(element.numpy()).all() for element in volume.elements().values())
    first, single, small, large, huge = (odd[f"sub-{n}_acq-x_run-1"] for n in (0, 2, 3, 4, 7))
    name = "recon/cg-sense-equispaced-r2-c0.2"
    assert not first["sens/espirit"][1].any()
    assert not first[name][1].any()
    assert first[name][0].any()
    for volume, factor in ((small, 1e-12), (large, 1e12), (huge, 1e25)):
        np.testing.assert_allclose(volume[name][0] / factor, first[name][0], atol=1e-3)
    support = np.abs(single["sens/espirit"].numpy())
    assert set(np.round(np.unique(support), 5)) == {0.0, 1.0}  # one coil: its image is the image
    assert verify(odd).ok


def test_masks_that_fit_nothing_are_refused(cohort):
    volume = cohort.volumes()[0]
    with pytest.raises(ShapeError, match="mask length along kx: expected 24, the length of kx in kspace, got 20"):
        volume.write("mask/short", np.ones(20, np.uint8), dims=("kx",), provenance=MADE)
    with pytest.raises(ShapeError, match="sens length along y: expected 32, the length of ky in kspace, got 30"):
        volume.write("sens/small", np.ones((2, 1, 4, 30, 24), np.complex64), provenance=MADE)
    for each in cohort.volumes():
        each.write("mask/empty", np.zeros(24, np.uint8), dims=("kx",), provenance=MADE)
    none = MaskConfig(name="empty")
    assert "mask/empty: the mask samples nothing" in run(cohort.path, method="zero-filled", mask=none).failures[0].error
    assert "the centre of k-space is not sampled" in calibrate(cohort.path, mask="empty", name="x").failures[0].error
    assert (
        "no element 'mask/nope'"
        in run(cohort.path, method="zero-filled", mask=MaskConfig(name="nope")).failures[0].error
    )


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["run"], 2, "recon run: expected either a method or a checkpoint."),
        (["run", "--method", "nonsense"], 2, f"method: expected one of {', '.join(METHODS)}, got 'nonsense'."),
        (["run", "--method", "cg-sense", "--set", "lambda=1"], 2, "lambda: unknown key"),
        (["run", "--method", "cg-sense", "--set", "iterations=0"], 2, "iterations: Input should be greater than or"),
        (["run", "--method", "cg-sense", "--mask", "random", "--acceleration", "0.5"], 2, "mask:"),
        (["run", "--method", "cg-sense", "--mask", "random", "--mask-seed", "-1"], 2, "seed: Input should be greater"),
        (
            ["run", "--method", "cg-sense", "--mask", "none", "--acceleration", "8", "--mask-seed", "1"],
            2,
            "acceleration, seed: expected only with a mask that is made (equispaced, equispaced-fraction, random, ",
        ),
        (["run", "--method", "cg-sense", "--center-fraction", "0.1"], 2, "got with the mask acquired. Leave out, or"),
        (["run", "--method", "cg-sense", "--mask", "equispaced", "--acceleration", "4.7"], 2, "expected an integer"),
        (["train", "--set", "data.sampling.acceleration=4.7"], 2, "expected an integer for equispaced"),
        (["run", "--method", "cg-sense", "--name", "a b"], 2, "--name: element path: expected recon/<name>, names of"),
        (
            ["run", "--method", "cg-sense", "--device", "cdua"],
            2,
            "device: expected cpu, cuda, cuda:1, ..., got 'cdua'.",
        ),
        (["run", "--method", "cg-sense", "--part", "tset"], 2, "part: expected train, val, test, got 'tset'."),
        (["run", "--method", "cg-sense", "--scheduler", "here"], 2, "scheduler: expected sync, local[:N], slurm"),
        (["run", "--checkpoint", "none.ckpt", "--set", "a=1"], 2, "--set: a checkpoint has its own configuration."),
        (["run", "--checkpoint", "none.ckpt"], 1, "none.ckpt"),
        (
            ["calibrate", "--method", "wlsh"],
            2,
            "method: expected one of espirit, walsh, inati, low-resolution, jsense,",
        ),
        (["calibrate", "--set", "kernel=1"], 2, "kernel: Input should be greater than or equal to 2"),
        (["calibrate", "--name", "../x"], 2, "--name: element path: expected sens/<name>"),
        (["evaluate"], 2, "--methods: expected at least one element, e.g. --methods recon/cg-sense-r4."),
        (["evaluate", "--methods", "recon/x"], 1, "missing elements: sub-03_acq-tiny_run-1: recon/x."),
        (["evaluate", "--methods", "recon/x", "--split", "x"], 1, "there is no split 'x'. Splits: default."),
    ],
)
def test_mistakes_of_a_command_are_one_error(shared, cli, options, status, message):
    before = [sorted(volume.elements()) for volume in shared.volumes()]
    done = cli("recon", options[0], shared.path, *options[1:])
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert "Traceback" not in done.err
    assert [sorted(volume.elements()) for volume in shared.volumes()] == before


def test_functions_refuse_what_commands_cannot_ask_for(shared, tmp_path):
    with pytest.raises(ConfigError, match="expected ZeroFilledConfig for zero-filled, got CgSenseConfig"):
        run(shared.path, method="zero-filled", config=CgSenseConfig())
    with pytest.raises(ConfigError, match="expected EspiritConfig for espirit, got ZeroFilledConfig"):
        calibrate(shared.path, config=ZeroFilledConfig())
    with pytest.raises(ElementNotFoundError, match="expected volumes to work on, found none"):
        run(create_cohort(tmp_path / "empty").path, method="zero-filled")


@pytest.mark.parametrize("loss", ["l1", "ssim"])
@pytest.mark.parametrize("model", [["coil_maps=stored"], ["combination=rss", "sens_channels=2", "sens_pools=1"]])
def test_slices_of_zeros_do_not_spoil_a_training(cohort, tmp_path, loss, model):
    """A scanner's empty slices: beside a slice with a signal, alone in a batch, and in validation."""
    empty = create_cohort(tmp_path / "empty")
    for volume in cohort.volumes():
        with empty.create_volume(volume.id, subject_id=volume.subject_id) as copy:
            for path in ("kspace", "sens/espirit", "recon/reference"):
                data = volume[path].numpy()
                data[0] = 0
                copy.write(path, data, provenance=MADE)
    empty.write_split(Split(name="default", train=("sub-01",), val=("sub-02",), test=("sub-03",)))
    settings = [f"model.{s}" for s in ("cascades=1", "channels=2", "pools=1", *model)]
    settings += ["training.steps=4", "training.log_every=1", "training.loggers=[csv]", "training.progress=false"]
    for size in (1, 2):
        config = load_config(RunConfig, None, [*settings, f"loss={loss}", f"training.batch_size={size}"])
        result = train(empty.path, config, tmp_path / f"run{size}")
        weights = load_checkpoint(result.checkpoint).state_dict
        assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())
        assert "nan" not in result.metrics.read_text()


def test_workers_give_the_same_as_this_process(cohort):
    assert run(cohort.path, method="cg-sense", name="here").ok
    assert run(cohort.path, method="cg-sense", name="there", scheduler="local:2").ok
    for volume in cohort.volumes():
        np.testing.assert_allclose(volume["recon/here"].numpy(), volume["recon/there"].numpy(), atol=1e-5)


def test_the_command_says_what_was_achieved_and_chosen(cohort, cli):
    done = cli(
        "recon",
        "run",
        cohort.path,
        "--method",
        "l1-wavelet",
        "--mask",
        "equispaced",
        "--acceleration",
        "3",
        "--set",
        "iterations=4",
    )
    assert done.status == 0
    achieved = 1 / np.mean(cohort.volumes()[0]["mask/equispaced-r3"].numpy() != 0)
    assert f"acceleration achieved: {achieved:.3g}" in done.out
    assert "iterations: 4; planes stopped by: iterations" in done.out
    assert "regularisation: " in done.out
    missing = cli("recon", "run", cohort.path, "--method", "cg-sense", "--maps", "jsense")
    assert "--method jsense" in missing.out + missing.err
