"""Evaluation of reconstructions against scikit-image and numpy, and what cannot be measured."""

import csv
import json
import re

import numpy as np
import pytest
from matplotlib.image import imread
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mri_io import create_cohort, open_cohort
from mri_io.schema import Provenance
from mri_io.testing import tiny_cohort
from mri_recon.errors import ShapeError
from mri_recon.evaluate import evaluate, head_region
from mri_recon.evaluation_figure import typical_volume
from mri_recon.metrics import hfen
from mri_recon.run import run
from mri_recon.stored_masks import MaskConfig

MADE = Provenance.of("mri-io", "test")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A cohort that tests only add to under names of their own."""
    return tiny_cohort(tmp_path_factory.mktemp("recon") / "cohort", subjects=3)


def test_metrics_are_those_of_scikit_image_and_numpy(shared, cli):
    mask = MaskConfig(name="equispaced", acceleration=2, center_fraction=0.1)
    assert run(shared.path, method="zero-filled", mask=mask, name="half").ok
    done = cli("recon", "evaluate", shared.path, "--methods", "recon/half", "--part", "all", "--name", "peer")
    assert done.status == 0
    assert "Warning" not in done.err
    stored = json.loads((shared.path / "evaluations" / "peer.json").read_text())
    assert len(stored["rows"]) == 3
    for row in stored["rows"]:
        volume = shared[row["volume_id"]]
        truth = np.abs(volume["recon/reference"].numpy().astype(complex))
        image = np.abs(volume["recon/half"].numpy().astype(complex))
        top = truth.max()
        ssim = np.mean([structural_similarity(t, i, data_range=top) for t, i in zip(truth, image, strict=True)])
        assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=top), rel=1e-5)
        assert row["ssim"] == pytest.approx(ssim, rel=1e-5)
        assert row["nmse"] == pytest.approx(np.sum((truth - image) ** 2) / np.sum(truth**2), rel=1e-5)
        commits = {item["path"]: item["commit"] for item in stored["inputs"]}
        assert commits[f"{volume.id}/recon/half"] == volume["recon/half"].commit
    with (shared.path / "evaluations" / "peer.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["hfen"]) for row in table] == [row["hfen"] for row in stored["rows"]]
    picture = imread(shared.path / "evaluations" / "peer.png")  # two rows, images and errors, of two columns
    height, width = (picture.shape[0] - 50) // 2, picture.shape[1] // 2
    errors = picture[-height:, width:]
    assert (errors[..., 0] != errors[..., 2]).mean() > 0.2  # in colours
    assert f"{shared.path}/evaluations/peer (json, csv, png)" in done.out
    shown = re.findall(r"\d+\.\d+", done.out)
    for metric, values in stored["summary"]["recon/half"].items():
        column = [row[metric] for row in stored["rows"]]
        assert (values["mean"], values["std"]) == pytest.approx((np.mean(column), np.std(column, ddof=1)))
        assert any(float(number) == pytest.approx(np.mean(column), rel=5e-3) for number in shown)


def test_regions_of_labels_and_the_maximum_of_slices(shared, cli):
    for volume in shared.volumes():
        changed = np.abs(volume["recon/reference"].numpy()).astype(np.float32)
        changed[volume["seg/tissue"].numpy() == 0] += 1  # nothing within the labels
        changed[1] *= 1.1
        volume.write("recon/around", changed, provenance=MADE)
    command = ("recon", "evaluate", shared.path, "--methods", "recon/around", "--part", "all", "--name", "labels")
    assert cli(*command, "--region", "seg/tissue", "--peak", "slice").status == 0
    stored = json.loads((shared.path / "evaluations" / "labels.json").read_text())
    assert (stored["config"]["region"], stored["config"]["peak"]) == ("seg/tissue", "slice")
    row = stored["rows"][0]
    volume = shared[row["volume_id"]]
    truth, inside = np.abs(volume["recon/reference"].numpy()).astype(float), volume["seg/tissue"].numpy() != 0
    wrong = np.where(np.arange(len(truth))[:, None, None] == 1, 0.1 * truth, 0)
    assert row["nmse"] == pytest.approx(np.sum(wrong[inside] ** 2) / np.sum(truth[inside] ** 2), rel=1e-4)
    assert row["hfen"] == pytest.approx(hfen(truth, np.abs(volume["recon/around"].numpy()).astype(float), inside))
    done = cli(*command, "--region", "body")
    assert (done.status, "expected region all, head or seg/NAME" in done.err) == (2, True)


def test_fitting_the_scale_and_the_region(shared):
    for volume in shared.volumes():
        doubled = 2 * np.abs(volume["recon/reference"].numpy())
        doubled[:, 0, 0] = 5  # outside the head
        volume.write("recon/doubled", doubled.astype(np.float32), provenance=MADE)
    options = {"reference": "recon/reference", "methods": ["recon/doubled"], "part": None, "name": "scaled"}
    plain = evaluate(shared.path, **options, region="head")["rows"][0]
    fitted = evaluate(shared.path, **options, scale="least-squares")["rows"][0]
    assert plain["nmse"] == pytest.approx(1)  # twice the truth inside the head
    truth = np.abs(shared.volumes()[0]["recon/reference"].numpy()).astype(float)
    image = np.abs(shared.volumes()[0]["recon/doubled"].numpy()).astype(float)
    factor = np.linalg.lstsq(image.reshape(-1, 1), truth.ravel(), rcond=None)[0][0]
    assert fitted["nmse"] == pytest.approx(np.sum((factor * image - truth) ** 2) / np.sum(truth**2))


def test_what_cannot_be_measured_is_undefined(tmp_path, cli):
    cohort = create_cohort(tmp_path / "c")
    ramp = np.linspace(0, 1, 2 * 12 * 10, dtype=np.float32).reshape(2, 12, 10)
    for number, truth in enumerate((ramp, 0 * ramp)):
        with cohort.create_volume(f"sub-{number}_acq-x_run-1", subject_id=f"sub-{number}") as volume:
            volume.write("recon/reference", truth, provenance=MADE)
            volume.write("recon/same", truth, provenance=MADE)
    for region in ("all", "head"):
        done = cli("recon", "evaluate", cohort.path, "--methods", "recon/same", "--part", "all", "--region", region)
        assert done.status == 0
        assert "Warning" not in done.err
        assert "undefined" in done.out
        first, second = open_cohort(cohort.path).evaluations()["reconstruction"]["rows"]
        assert (first["psnr"], first["nmse"]) == (None, 0)  # infinite decibels
        assert first["ssim"] == pytest.approx(1)
        assert (second["psnr"], second["ssim"], second["nmse"]) == (None, None, None)


def test_a_grid_of_another_size_is_refused(tmp_path):
    cohort = create_cohort(tmp_path / "c")
    with cohort.create_volume("sub-1_acq-x_run-1", subject_id="sub-1") as volume:
        volume.write("recon/reference", np.ones((1, 12, 10), np.float32), provenance=MADE)
        volume.write("recon/cut", np.ones((1, 10, 10), np.float32), provenance=MADE)
    with pytest.raises(ShapeError, match=r"recon/cut: expected the grid \(1, 12, 10\) of recon/reference, got \(1, 10"):
        evaluate(cohort.path, reference="recon/reference", methods=["recon/cut"], part=None)


def test_an_image_around_a_smaller_reference_is_cropped(tmp_path):
    """As of fastMRI, whose references are the central part of what k-space covers."""
    cohort = create_cohort(tmp_path / "c")
    image = np.random.default_rng(0).random((1, 20, 14)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    shifted = affine.copy()
    shifted[:2, 3] = 2 * 1, 2 * 4  # of the first pixel of the central part
    with cohort.create_volume("sub-1_acq-x_run-1", subject_id="sub-1") as volume:
        volume.write("recon/reference", image[:, 4:16, 1:13], provenance=MADE, affine=shifted)
        volume.write("recon/unplaced", image, provenance=MADE)
        volume.write("recon/placed", image, provenance=MADE, affine=affine)
        volume.write("recon/elsewhere", image, provenance=MADE, affine=shifted)
    options = {"reference": "recon/reference", "part": None}
    rows = evaluate(cohort.path, methods=["recon/unplaced", "recon/placed"], **options)["rows"]
    assert [row["nmse"] for row in rows] == [0, 0]
    with pytest.raises(ShapeError, match="A larger image is cropped only if it has the same centre"):
        evaluate(cohort.path, methods=["recon/elsewhere"], **options)


def test_choices_are_named_when_one_is_wrong(shared, cli):
    done = cli("recon", "evaluate", shared.path, "--methods", "image/t1", "--region", "brain")
    assert done.status == 2
    assert "expected region all, head or seg/NAME" in done.err


def test_a_picture_shows_the_median_volume_and_goes_with_its_evaluation(shared, monkeypatch):
    for number, volume in enumerate(shared.volumes()):
        scaled = np.abs(volume["recon/reference"].numpy()) * (1.1, 1.3, 1.2)[number]
        volume.write("recon/off", scaled.astype(np.float32), provenance=MADE)
    options = {"reference": "recon/reference", "methods": ["recon/off"], "part": None, "name": "pictured"}
    rows = evaluate(shared.path, **options)["rows"]
    assert typical_volume(rows, "recon/off") == shared.volumes()[2].id
    equal = [
        {"nmse": value, "method": "m", "volume_id": name} for name, value in zip("abc", (0.0, 0.0, 0.5), strict=True)
    ]
    assert typical_volume(equal, "m") == "b"
    picture = shared.path / "evaluations" / "pictured.png"
    assert picture.is_file()
    monkeypatch.setattr("mri_recon.evaluate.can_draw", lambda: False)  # as without matplotlib
    evaluate(shared.path, **options)
    assert not picture.exists()


def test_the_head_reaches_to_the_border_where_the_object_does():
    image = np.zeros((1, 40, 40))
    image[0, :30, :30] = 1
    np.testing.assert_array_equal(head_region(image), image > 0)
