"""Statistics on the runner: the same file on every scheduler, and none when a volume fails."""

import re

import numpy as np
import pytest

from mri_io import create_cohort
from mri_io.errors import CorruptElementError, StoreError
from mri_io.prep.statistics import cohort_statistics
from mri_io.store import Split, compute_statistics, statistics
from mri_io.testing import flip_bit

PATHS = ["kspace", "recon/b", "image/t1"]


@pytest.fixture
def cohort(tmp_path, made, rng):
    """Seven volumes of many magnitudes and sizes; one lacks an element, one is not of the training part."""
    cohort = create_cohort(tmp_path / "c")
    subjects = [f"sub-{number}" for number in range(7)]
    cohort.write_split(Split(name="default", train=tuple(subjects[:6]), val=(subjects[6],), test=()))
    for number, subject in enumerate(subjects):
        with cohort.create_volume(f"{subject}_acq-a_run-1", subject_id=subject) as volume:
            shape, scale = (3 + number, 9 + number, 7), 10.0 ** (3 * (number % 3))
            data = rng.normal(1, 1, (2, *shape)) * scale
            volume.write("image/t1", data[0].astype(np.float32), provenance=made)
            if number != 2:
                volume.write("recon/b", data[0].astype(np.float32), provenance=made)
            volume.write("kspace", (data[0] + 1j * data[1]).astype(np.complex64)[:, None], provenance=made)
    return cohort


def damage(cohort, number, path="image/t1"):
    volume = cohort.volumes()[number]
    files = (file for file in (volume.path / path / "data").rglob("*") if file.is_file() and not file.suffix)
    flip_bit(next(files), 8 * 40)
    return volume.id


def test_the_file_does_not_depend_on_the_scheduler(cohort, monkeypatch):
    compute_statistics(cohort, PATHS, name="plain")
    monkeypatch.chdir(cohort.path.parent)
    for scheduler in ("sync", "local:2"):
        relative = type(cohort)(cohort.path.relative_to(cohort.path.parent), cohort.metadata)
        cohort_statistics(relative, PATHS, name=scheduler[:4], scheduler=scheduler, progress=False)
    files = [cohort.path / "stats" / f"{name}.json" for name in ("plain", "sync", "loca")]
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


def test_the_order_in_which_volumes_end_does_not_matter(cohort):
    def backwards(function, volumes, take):
        for volume_id in reversed(volumes):
            take(volume_id, function(volumes[volume_id]))

    found = [compute_statistics(cohort, PATHS, **options) for options in ({}, {"each": backwards})]
    assert found[0] == found[1]
    values = np.concatenate([v["image/t1"].numpy().ravel() for v in cohort.volumes("default", "train")])
    exact = values.astype(np.float64)
    for name, wanted in (("mean", exact.mean()), ("std", exact.std())):
        assert found[0]["fields"]["image/t1"][name] == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize("scheduler", ["sync", "local:2"])
def test_without_a_volume_there_are_no_statistics(cohort, cli, scheduler):
    command = ("stats", cohort.path, "--element", "image/t1", "--scheduler", scheduler)
    failed = damage(cohort, 3)
    done = cli(*command)
    assert done.status == 1
    assert done.out == ""
    assert re.search(rf"{failed}.*do not match their checksum", done.err)
    assert not (cohort.path / "stats").exists()
    with pytest.raises(CorruptElementError, match=failed):
        cohort_statistics(cohort, ["image/t1"], scheduler=scheduler, progress=False)


def test_damaged_metadata_matter_in_the_training_part_only(cohort, cli):
    assert cli("stats", cohort.path, "--element", "image/t1").status == 0
    stored = (cohort.path / "stats" / "default.json").read_bytes()
    (cohort.path / "volumes" / "sub-6_acq-a_run-1.zarr" / "zarr.json").write_text("{")
    assert cli("stats", cohort.path, "--element", "image/t1").status == 0
    assert cli("stats", cohort.path).status == 0
    assert cli("stats", cohort.path, "--element", "image/t1").status == 0
    assert (cohort.path / "stats" / "default.json").read_bytes() == stored
    (cohort.path / "volumes" / "sub-3_acq-a_run-1.zarr" / "zarr.json").write_text("{")
    done = cli("stats", cohort.path, "--element", "image/t1")
    assert done.status != 0
    assert "sub-3_acq-a_run-1.zarr/zarr.json: the metadata are not valid JSON" in done.err


def test_errors_that_name_no_volume_get_its_id(cohort, monkeypatch):
    first = statistics._first_pass

    def failing(elements):
        if elements["image/t1"].volume_id.startswith("sub-4"):
            raise MemoryError("too large")
        return first(elements)

    monkeypatch.setattr(statistics, "_first_pass", failing)
    with pytest.raises(StoreError, match=r"^sub-4_acq-a_run-1: MemoryError: too large"):
        cohort_statistics(cohort, ["image/t1"], progress=False)
    assert not (cohort.path / "stats").exists()


def test_volumes_that_are_replaced_between_the_passes_are_an_error(cohort, monkeypatch, made):
    """Else the second pass would look for the percentiles of other values."""
    second = statistics._second_pass

    def replacing(elements, **options):
        element = elements["image/t1"]
        cohort[element.volume_id].write("image/t1", 2 * element.numpy(), provenance=made, replace=True)
        return second(elements, **options)

    monkeypatch.setattr(statistics, "_second_pass", replacing)
    with pytest.raises(StoreError, match="the element was replaced or removed after it was opened"):
        cohort_statistics(cohort, ["image/t1"], progress=False)
    assert not (cohort.path / "stats").exists()


def test_the_command_says_how_far_it_is(cohort, cli, monkeypatch):
    monkeypatch.setattr("mri_io.prep.progress.LINE_EVERY_S", 0)
    done = cli("stats", cohort.path, "--element", "image/t1")
    assert done.status == 0
    for number in (1, 2):
        assert f"stats, pass {number} of 2: 6 volumes, up to " in done.err
        assert f"stats, pass {number} of 2: 3/6, " in done.err

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(statistics, "_first_pass", interrupt)
    done = cli("stats", cohort.path, "--element", "image/t1")
    assert done.status == 130
    assert re.search(r"interrupted after 0 of 6 .* nothing of it is kept\.", done.err)
