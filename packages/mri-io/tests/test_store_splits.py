"""Splits, statistics and evaluations of a cohort, against plain counting, numpy and the csv module."""

import csv
import hashlib
import json
import logging
import math
from statistics import mean, stdev

import numpy as np
import pytest
from pydantic import ValidationError

from mri_io import create_cohort, verify
from mri_io.errors import ConfigError, CorruptElementError, ElementExistsError, ElementNotFoundError, SchemaError
from mri_io.schema import Header, Provenance
from mri_io.store import Split, compute_statistics, make_split, make_volume_id, read_statistics

PARTS = ("train", "val", "test")


def subjects_cohort(path, subjects, sessions=(1, 2)):
    """Make a cohort of empty volumes; every second subject was scanned by another vendor, some several times."""
    cohort = create_cohort(path)
    for number, subject in enumerate(subjects):
        header = Header(vendor="AB"[int(subject[-2:]) % 2])
        for session in sessions[: 1 + number % len(sessions)]:
            volume_id = make_volume_id(subject, session=str(session), acquisition="t1")
            with cohort.create_volume(volume_id, subject_id=subject, header=header):
                pass
    return cohort


SUBJECTS = [f"sub-{n:02d}" for n in range(20)]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return subjects_cohort(tmp_path_factory.mktemp("splits") / "c", SUBJECTS)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("stratify", [None, lambda volume: volume.header.vendor])
def test_no_subject_is_in_two_parts(many, seed, stratify):
    split = make_split(many, fractions=(0.6, 0.2, 0.2), seed=seed, stratify=stratify)
    assert [len(getattr(split, part)) for part in PARTS] == [12, 4, 4]
    assert sorted([*split.train, *split.val, *split.test]) == SUBJECTS
    many.write_split(split)
    volumes = {part: many.volumes("default", part) for part in PARTS}
    assert sum(map(len, volumes.values())) == len(many) == 30
    seen = [{volume.subject_id for volume in volumes[part]} for part in PARTS]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 20


def test_strata_are_shared_out(many):
    for seed in range(12):
        split = make_split(many, fractions=(0.6, 0.2, 0.2), seed=seed, stratify=lambda volume: volume.header.vendor)
        for part, share in (("train", 6), ("val", 2), ("test", 2)):
            vendors = [int(subject[-2:]) % 2 for subject in getattr(split, part)]
            assert abs(vendors.count(0) - share) <= 1


def test_the_seed_decides(many, tmp_path):
    first = make_split(many, seed=1)
    assert make_split(many, seed=1) == first
    assert len({make_split(many, seed=seed).hash for seed in range(10)}) == 10
    again = subjects_cohort(tmp_path / "c", SUBJECTS[::-1], sessions=(1,))  # other volumes of the same subjects
    assert make_split(again, seed=1) == first


@pytest.mark.parametrize(
    ("count", "fractions", "sizes"),
    [
        (20, (0.8, 0.1, 0.1), (16, 2, 2)),
        (5, (0.8, 0.1, 0.1), (4, 1, 0)),
        (5, (0.0, 0.5, 0.5), (0, 3, 2)),
        (3, (0.0, 0.5, 0.5), (0, 2, 1)),
        (3, (0.34, 0.33, 0.33), (1, 1, 1)),
        (7, (0.5, 0.5, 0.0), (4, 3, 0)),
        (1, (0.8, 0.1, 0.1), (1, 0, 0)),
        (7, (1.0, 0.0, 0.0), (7, 0, 0)),
        (7, (2, 1, 3), (2, 1, 3)),
    ],
)
def test_sizes_of_parts(tmp_path, count, fractions, sizes):
    cohort = subjects_cohort(tmp_path / "c", SUBJECTS[:count], sessions=(1,))
    split = make_split(cohort, fractions=fractions)
    assert tuple(len(getattr(split, part)) for part in PARTS) == sizes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.8, 0.1, 0.2)}, r"fractions: expected three shares summing to 1, got \(0.8, 0.1, 0.2\)"),
        ({"fractions": (0.5, 0.5)}, "three shares"),
        ({"fractions": (1.2, -0.1, -0.1)}, "three shares"),
        ({"fractions": (float("nan"), 0.5, 0.5)}, "three shares"),
        ({"seed": -1}, "seed: expected a number from 0, got -1"),
        ({"counts": (19, 1, 1)}, r"c: numbers of .* subjects: expected three, at most 20 in all, got \(19, 1, 1\)"),
        ({"counts": (-1, 1, 1)}, "at most 20"),
    ],
)
def test_sizes_that_cannot_be(many, options, message):
    with pytest.raises(ConfigError, match=message):
        make_split(many, **options)


def test_splits_are_files(many, caplog):
    split = Split(name="mine", seed=3, train=("sub-01", "sub-00"), val=("sub-02",), test=())
    path = many.write_split(split)
    assert many.split("mine") == split
    content = json.loads(path.read_text())
    assert content["unit"] == "subject"
    parts = {"train": ["sub-00", "sub-01"], "val": ["sub-02"], "test": []}
    assert content["hash"] == split.hash == hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    assert split.part_of("sub-02") == "val"
    assert split.part_of("sub-19") is None
    with caplog.at_level(logging.WARNING):
        many.write_split(split)
        assert caplog.text == ""
        many.write_split(split.model_copy(update={"test": ("sub-07",)}))
    assert "an earlier split of this name, with other subjects, is replaced" in caplog.text
    with pytest.raises(ElementNotFoundError, match=r"no split 'x'\. Splits: .*mine.*mri-cli split"):
        many.split("x")
    with pytest.raises(ConfigError, match="part: expected train, val, test, got 'valid'"):
        many.volumes("mine", "valid")
    path.unlink()


def test_a_subject_in_two_parts_is_refused(many):
    with pytest.raises(ValidationError, match="expected every subject in one part, got sub-01 in several"):
        Split(name="x", train=("sub-01",), test=("sub-01", "sub-02"))
    path = many.path / "splits" / "leak.json"
    content = {"seed": 0, "unit": "subject", "train": ["sub-01"], "val": [], "test": ["sub-01"]}
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"(?s)leak\.json.*sub-01 in several"):
        many.split("leak")
    assert [problem.element for problem in verify(many, fast=True).problems] == ["leak.json"]
    path.write_text(json.dumps({**content, "test": ["sub-02"], "name": "leak"}))  # by hand, without a seal
    assert many.split("leak").test == ("sub-02",)
    assert verify(many, fast=True).ok
    path.unlink()


def test_an_edited_split_is_refused(many):
    path = many.write_split(Split(name="edited", train=("sub-01",), test=("sub-02",)))
    path.write_text(path.read_text().replace("sub-02", "sub-03"))
    with pytest.raises(
        CorruptElementError, match=r"edited\.json: .*damaged or edited.*remove the key 'metadata_sha256'"
    ):
        many.split("edited")
    path.unlink()


DATA = {
    "image/t1": ("int16", lambda rng, shape: rng.integers(-(2**15), 2**15, shape)),
    "recon/a": ("complex64", lambda rng, shape: rng.normal(size=shape) + 1j * rng.normal(size=shape)),
    "recon/b": ("float32", lambda rng, shape: rng.normal(1000, 1e-3, shape)),
    "image/tails": ("float32", lambda rng, shape: rng.standard_cauchy(shape) * 1e20),
    "image/zeros": ("float32", lambda rng, shape: np.where(rng.random(shape) < 0.99, -0.0, 0.0)),
    "seg/a": ("uint8", lambda rng, shape: rng.integers(0, 3, shape)),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Five subjects with images of different sizes, and what numpy has of the training part."""
    made, rng = Provenance(method="test", package="mri-io", version="0"), np.random.default_rng(8)
    cohort = create_cohort(tmp_path_factory.mktemp("statistics") / "c")
    cohort.write_split(Split(name="default", train=("sub-0", "sub-2", "sub-3"), val=("sub-1",), test=("sub-4",)))
    train: dict[str, list[np.ndarray]] = {path: [] for path in DATA}
    for number in range(5):
        subject = f"sub-{number}"
        with cohort.create_volume(f"{subject}_acq-a_run-1", subject_id=subject) as volume:
            for path, (dtype, make) in DATA.items():
                data = make(rng, (1 + number, 9 + number, 7)).astype(dtype)
                data = data if number in (0, 2, 3) else np.full_like(data, 2)  # would show
                if (path, number) == ("recon/b", 2):
                    continue
                volume.write(path, data, provenance=made, **({"labels": {1: "a", 2: "b"}} if path == "seg/a" else {}))
                if number in (0, 2, 3):
                    train[path].append(np.abs(data).ravel() if dtype == "complex64" else data.ravel())
    return cohort, {path: np.concatenate(values) for path, values in train.items()}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("path", DATA)
def test_statistics_are_those_of_numpy(measured, path):
    cohort, values = measured
    found = compute_statistics(cohort, [path], name=path.replace("/", "-"))["fields"][path]
    exact = values[path].astype(np.float64)
    assert found["n"] == exact.size
    assert found["volumes"] == (2 if path == "recon/b" else 3)
    for name, wanted in (("mean", exact.mean()), ("std", exact.std())):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6, atol=1e-12, err_msg=name)
    for name, wanted in (("p1", np.percentile(exact, 1)), ("p99", np.percentile(exact, 99))):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6, err_msg=name)
    again = read_statistics(cohort, path.replace("/", "-"))
    assert again["fields"][path] == found
    assert (again["split"], again["split_hash"]) == ("default", cohort.split().hash)


def test_statistics_that_cannot_be(measured):
    cohort, _ = measured
    with pytest.raises(ElementNotFoundError, match="none of the 3 training volumes of split 'default' has 'recon/x'"):
        compute_statistics(cohort, ["image/t1", "recon/x"], name="none")
    assert not (cohort.path / "stats" / "none.json").exists()
    with pytest.raises(ElementNotFoundError, match=r"none\.json: there are no such statistics.*mri-cli stats"):
        read_statistics(cohort, "none")


ROWS = [
    {"volume_id": "a", "subject_id": "sub-1", "method": "x", "label": 1, "dice": 0.5, "hd95": 3.0},
    {"volume_id": "a", "subject_id": "sub-1", "method": "x", "label": 2, "dice": np.float32(0.75), "hd95": None},
    {"volume_id": "b", "subject_id": "sub-2", "method": "x", "label": 1, "dice": np.float64(1.0), "hd95": np.inf},
    {"volume_id": "b", "subject_id": "sub-2", "method": "x", "label": 2, "dice": float("nan"), "hd95": 5},
    {"volume_id": "a", "subject_id": "sub-1", "method": "y, z", "label": 1, "dice": 0.25, "hd95": 1.5},
]


def test_evaluations_are_summarised_by_volume(many):
    path = many.write_evaluation("one", task="seg", rows=ROWS, config={"part": "test"})
    stored = many.evaluations()["one"]
    x, y = stored["summary"]["x"], stored["summary"]["y, z"]
    per_volume = [mean([0.5, 0.75]), 1.0]
    assert x["dice"] == {"mean": mean(per_volume), "std": stdev(per_volume), "n": 2, "undefined": 1}
    assert x["hd95"] == {"mean": 4.0, "std": stdev([3, 5]), "n": 2, "undefined": 2}
    assert y["dice"] == {"mean": 0.25, "std": None, "n": 1, "undefined": 0}
    assert stored["metrics"]["hd95"] == {
        "unit": "mm",
        "better": "lower",
        "description": "95th percentile of surface distances",
    }
    assert stored["config"] == {"part": "test"}
    assert "NaN" not in path.read_text()
    with path.with_suffix(".csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["dice"] for row in table] == ["0.5", "0.75", "1.0", "", "0.25"]
    assert table[4]["method"] == "y, z"


def test_evaluations_are_replaced_or_not(many):
    described = {"blur": {"unit": "px", "better": "lower", "description": "width"}}
    row = {"volume_id": "a", "subject_id": "sub-1", "method": "m", "blur": 1.0}
    with pytest.raises(SchemaError, match=r"metric 'blur' has no unit and direction\. Give them in metrics="):
        many.write_evaluation("two", task="recon", rows=[row])
    assert "two" not in many.evaluations()
    reference = {"path": "recon/a", "commit": "c"}
    many.write_evaluation("two", task="recon", rows=[row], metrics=described, inputs=[reference])
    assert many.evaluations()["two"]["inputs"] == [reference]
    with pytest.raises(ElementExistsError, match=r"two\.json: there is an evaluation of this name"):
        many.write_evaluation("two", task="recon", rows=[row], metrics=described, overwrite=False)
    many.write_evaluation("two", task="recon", rows=[{**row, "blur": 2.0}], metrics=described)
    assert math.isclose(many.evaluations()["two"]["summary"]["m"]["blur"]["mean"], 2.0)


@pytest.mark.parametrize(
    ("name", "task", "row", "message"),
    [
        ("../x", "recon", {}, r"evaluation name: expected a plain file name, got '\.\./x'"),
        (".x", "recon", {}, "evaluation name"),
        ("", "recon", {}, "evaluation name"),
        ("bad", "classify", {}, "task: 'classify' is not one of"),
        ("bad", "recon", {"method": ...}, r"rows\.0: 'method' is a required property"),
    ],
)
def test_evaluations_that_are_refused(many, name, task, row, message):
    full = {"volume_id": "a", "subject_id": "sub-1", "method": "m", "psnr": 1.0}
    rows = [{key: value for key, value in {**full, **row}.items() if value is not ...}]
    with pytest.raises(SchemaError, match=message):
        many.write_evaluation(name, task=task, rows=rows)
    assert not list(many.path.rglob("*bad*"))


@pytest.mark.parametrize("key", ["PatientName", "patient_id", "InstitutionName", "birth-date"])
@pytest.mark.parametrize("place", ["rows", "config", "inputs", "metrics"])
def test_evaluations_name_no_patient(many, key, place):
    row = {"volume_id": "a", "subject_id": "sub-1", "method": "m", "blur": 1.0}
    blur = {"unit": "px", "better": "lower", "description": "width"}
    given = {"rows": [row], "config": {}, "inputs": [], "metrics": {"blur": blur}}
    planted = {key: "Doe^John"}
    given |= {
        "rows": {"rows": [row, row | planted]},
        "config": {"config": {"data": [{"scan": planted}]}},
        "inputs": {"inputs": [{"path": "recon/a", "commit": "c", **planted}]},
        "metrics": {"metrics": {"blur": blur | planted}},
    }[place]
    with pytest.raises(SchemaError, match=rf"bad\.json: .*{place}\..*{key} identify a patient"):
        many.write_evaluation("bad", task="recon", **given)
    assert not list(many.path.rglob("*bad*"))
