"""Evaluations of all packages on the runner: the same tables on every scheduler, and what a broken volume does."""

import json
import re
import shutil
import sys

import numpy as np
import pytest

from mri_io import open_cohort
from mri_io.schema import Provenance
from mri_io.testing import flip_bit, tiny_cohort
from mri_io.testing.peak_memory import peak_growth
from mri_joint.evaluate import evaluate as evaluate_joint
from mri_joint.metrics import image_metrics
from mri_recon.errors import ShapeError
from mri_recon.evaluate import evaluate as evaluate_recon
from mri_recon.metrics import hfen, nmse, psnr, ssim
from mri_seg.evaluate import evaluate as evaluate_seg
from mri_seg.metrics import dice, volume_metrics
from mri_seg.metrics.volume import voxel_size_mm

MADE = Provenance.of("mri-io", "test")
ALL = {"part": None, "name": "table"}
EVALUATIONS = {
    "recon": (evaluate_recon, {"reference": "recon/reference", "methods": ["recon/a", "recon/reference"], **ALL}),
    "seg": (evaluate_seg, {"reference": "seg/tissue", "methods": ["seg/a", "seg/tissue"], **ALL}),
    "joint": (
        evaluate_joint,
        {"methods": {"a": ("recon/a", "seg/a"), "true": ("recon/reference", "seg/tissue")}, **ALL},
    ),
}
COMMANDS = {
    "recon": ("--methods", "recon/a"),
    "seg": ("--methods", "seg/a"),
    "joint": ("--methods", "x=recon/a+seg/a"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Volumes of 18432 voxels: enough for libraries of linear algebra to share sums among threads."""
    cohort = tiny_cohort(tmp_path_factory.mktemp("evaluations") / "cohort", subjects=3, slices=6, matrix=(64, 48))
    rng = np.random.default_rng(3)
    for volume in cohort.volumes():
        truth, tissue = volume["recon/reference"], volume["seg/tissue"]
        noise = rng.standard_normal((*truth.shape, 2), np.float32).view(np.complex64)[..., 0]
        volume.write("recon/a", truth.numpy() + np.float32(0.1) * noise, provenance=MADE, affine=truth.affine)
        labels = {number: entry["name"] for number, entry in tissue.labels.items()}
        shifted = np.roll(tissue.numpy(), 1, axis=-1)
        volume.write("seg/a", shifted, provenance=MADE, affine=tissue.affine, labels=labels)
    return cohort


@pytest.fixture
def cohort(made, tmp_path):
    """A copy that a test may damage."""
    return open_cohort(shutil.copytree(made.path, tmp_path / "cohort"))


def magnitudes(volume, path, dtype):
    return np.abs(volume[path].numpy()).astype(dtype)


def recon_rows(volume):
    truth = magnitudes(volume, "recon/reference", np.float64)
    for method in ("recon/a", "recon/reference"):
        image = magnitudes(volume, method, np.float64)
        values = {"psnr": psnr(truth, image), "ssim": ssim(truth, image), "nmse": nmse(truth, image)}
        yield {"method": method, **values, "hfen": hfen(truth, image)}


def seg_rows(volume):
    truth = volume["seg/tissue"]
    names = {number: entry["name"] for number, entry in truth.labels.items()}
    for method in ("seg/a", "seg/tissue"):
        measured = volume_metrics(volume[method].numpy(), truth.numpy(), names, voxel_size_mm(truth.affine))
        yield from ({"method": method, **row} for row in measured)


def joint_rows(volume):
    truth, target = magnitudes(volume, "recon/reference", np.float32), volume["seg/tissue"].numpy()
    for method, (image, labels) in EVALUATIONS["joint"][1]["methods"].items():
        found = volume[labels].numpy()
        names = volume["seg/tissue"].labels.items()
        overlaps = {f"dice/{entry['name']}": dice(found == number, target == number) for number, entry in names}
        focused = image_metrics(truth, magnitudes(volume, image, np.float32), target > 0)
        yield {"method": method, "dice": float(np.mean(list(overlaps.values()))), **overlaps, **focused}


@pytest.mark.parametrize(("task", "rows_of"), [("recon", recon_rows), ("seg", seg_rows), ("joint", joint_rows)])
def test_tables_are_those_of_a_plain_loop_on_every_scheduler_bit_by_bit(made, task, rows_of):
    evaluate, options = EVALUATIONS[task]
    found = {}
    for scheduler in ("sync", "local:2"):
        found[scheduler] = evaluate(made.path, **options, scheduler=scheduler)
        found[scheduler, "csv"] = (made.path / "evaluations" / "table.csv").read_bytes()
        assert found[scheduler].pop("created_utc")
    assert found["sync", "csv"] == found["local:2", "csv"]
    assert json.dumps(found["sync"]) == json.dumps(found["local:2"])
    expected = [
        {"volume_id": volume.id, "subject_id": volume.subject_id, **row}
        for volume in made.volumes()
        for row in rows_of(volume)
    ]
    undefined = [{key: None if value == np.inf else value for key, value in row.items()} for row in expected]
    assert found["sync"]["rows"] == undefined
    assert "missing" not in found["sync"]


@pytest.mark.parametrize("task", EVALUATIONS)
@pytest.mark.parametrize("part", ["data", "metadata"])
def test_a_broken_volume_is_recorded_and_missing_from_the_table_of_the_others(cohort, cli, task, part):
    evaluate, options = EVALUATIONS[task]
    whole = evaluate(cohort.path, **options | {"name": "whole"})["rows"]
    second = cohort.volumes()[1]
    kind = "seg" if task == "seg" else "recon"
    file = second.path / "zarr.json" if part == "metadata" else next((second.path / kind / "a").rglob("c/0/*/*"))
    intact = file.read_bytes()
    flip_bit(file, len(intact) // 2)
    command = (task, "evaluate", cohort.path, *COMMANDS[task], "--part", "all", "--name", "broken")
    done = cli(*command)
    assert done.status == 1
    assert "2 volumes, 1 missing" in done.out.replace("\n", " ")
    assert f"failed: {second.id}: {second.path}" in done.out
    stored = json.loads((cohort.path / "evaluations" / "broken.json").read_text())
    assert [item["volume_id"] for item in stored["missing"]] == [second.id]
    method = stored["rows"][0]["method"]
    keys = stored["rows"][0].keys() - {"method"}
    first_method = [row for row in whole if row["method"] == whole[0]["method"] and row["volume_id"] != second.id]
    assert [{key: row[key] for key in keys} for row in stored["rows"]] == [
        {key: row[key] for key in keys} for row in first_method
    ]
    assert all(item["path"].partition("/")[0] != second.id for item in stored["inputs"])
    assert stored["summary"][method][next(iter(stored["metrics"]))]["n"] == 2
    (failure,) = cohort.failures()
    assert (failure["item"], failure["stage"]) == (second.id, "evaluate broken")
    assert failure["error"] == stored["missing"][0]["error"]
    file.write_bytes(intact)
    assert cli(*command).status == 0
    assert "missing" not in json.loads((cohort.path / "evaluations" / "broken.json").read_text())
    assert cohort.failures() == []


def test_nothing_is_measured_before_all_grids_fit(cohort, monkeypatch):
    last = cohort.volumes()[-1]
    for path, data in (("recon/cut", np.ones((6, 60, 48), np.complex64)), ("seg/cut", np.ones((6, 60, 48), np.uint8))):
        for volume in cohort.volumes():
            labels = {"labels": {1: "x"}} if path == "seg/cut" else {}
            volume.write(
                path, data if volume.id == last.id else np.ones((6, 64, 48), data.dtype), provenance=MADE, **labels
            )
    monkeypatch.setattr("mri_io.prep.comparison.prepare_cohort", None)
    for task, methods in (("recon", ["recon/cut"]), ("seg", ["seg/cut"]), ("joint", {"x": ("recon/cut", "seg/cut")})):
        evaluate, options = EVALUATIONS[task]
        with pytest.raises(ShapeError, match=rf"{last.id}\S*: \w+/cut: expected the grid \(6, 64, 48\)"):
            evaluate(cohort.path, **options | {"methods": methods})


def test_a_cohort_in_an_object_store_has_the_same_table(tmp_path):
    pytest.importorskip("fsspec")
    options = {"methods": ["seg/tissue"], "reference": "seg/tissue", "part": None}
    places = (tmp_path / "cohort", "memory://evaluations/cohort")
    found = [evaluate_seg(str(tiny_cohort(place, subjects=2).path), **options) for place in places]
    assert found[0]["rows"] == found[1]["rows"]
    assert [row["dice"] for row in found[1]["rows"]] == [1, 1, 1, 1]


def test_who_interrupts_an_evaluation_is_told_that_nothing_of_it_is_kept(cohort, cli, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mri_recon.evaluate.ssim", interrupt)
    done = cli("recon", "evaluate", cohort.path, "--methods", "recon/a", "--part", "all", "--name", "interrupted")
    assert done.status == 130
    assert re.search(r"interrupted after 0 of 3 .* nothing of it is kept\.", done.err)
    assert "interrupted" not in cohort.evaluations()


def test_without_any_volume_there_is_no_table(cohort, cli):
    for volume in cohort.volumes():
        flip_bit(next((volume.path / "recon" / "a").rglob("c/0/*/*")), 40)
    done = cli("recon", "evaluate", cohort.path, "--methods", "recon/a", "--part", "all")
    assert (done.status, done.out) == (1, "")
    assert "no volume could be measured" in done.err
    assert "failed: 3 alike" in done.err
    assert "reconstruction" not in cohort.evaluations()
    assert len(cohort.failures()) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="what libraries take differs")
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("recon", "methods=['recon/reference'], reference='recon/reference', region='head'"),
        ("seg", "methods=['seg/tissue'], reference='seg/tissue'"),
        ("joint", "methods={'x': ('recon/reference', 'seg/tissue')}"),
    ],
)
def test_what_is_said_to_be_needed_is_taken(tmp_path, task, options):
    cohort = tiny_cohort(tmp_path / "cohort", subjects=1, slices=24, coils=1, matrix=(256, 256))
    code = f"import sys; from mri_{task}.evaluate import evaluate; evaluate(sys.argv[1], part=None, {options})"
    said = f"import contextlib\nwith contextlib.redirect_stderr(open({str(tmp_path / 'said')!r}, 'w')):\n    {code}"
    grown = peak_growth("import mri_io.prep.runner", said, [cohort.path])
    size, unit = re.findall(r"up to ([\d.]+) (MB|GB) each", (tmp_path / "said").read_text())[0]
    estimate = float(size) * {"MB": 1e6, "GB": 1e9}[unit]
    assert estimate / 2.5 < grown < estimate
