"""Verification on the runner: the report of `verify` on every scheduler, and volumes whose check does not end."""

import pytest

from mri_io import verify
from mri_io.prep import verification
from mri_io.prep.verification import verify_cohort
from mri_io.testing import flip_bit, tiny_cohort


@pytest.fixture
def cohort(tmp_path):
    """A cohort with damage of several kinds, and with what killed writers leave."""
    made = tiny_cohort(tmp_path / "cohort", subjects=4, matrix=(10, 8), coils=2)
    first, second, third, _ = made.volumes()
    flip_bit(next(file for file in (first.path / "kspace").rglob("c/**/*") if file.is_file()), 800)
    next(file for file in (second.path / "image").rglob("c/**/*") if file.is_file()).unlink()
    flip_bit(third.path / "zarr.json", 400)
    (third.path / "recon" / "half").mkdir()
    (made.volumes_path / "sub-00_acq-tiny_run-1.zarr").mkdir()
    (made.volumes_path / ".staging" / "left").mkdir(parents=True, exist_ok=True)
    (made.path / "splits" / "bad.json").write_text("{")
    return made


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("scheduler", ["sync", "local:2"])
def test_the_report_is_that_of_verify(cohort, scheduler, fast):
    expected = verify(cohort.path, fast=fast)
    assert verify_cohort(cohort.path, fast=fast, scheduler=scheduler, progress=False) == expected
    assert [problem.element for problem in expected.problems if problem.volume == ""] == ["bad.json"]
    assert len({problem.volume for problem in expected.problems}) == (3 if fast else 4)
    assert len(expected.orphans) == 3
    assert not expected.ok
    assert not (cohort.path / "failures.jsonl").exists()


def test_a_volume_whose_check_does_not_end_is_named(tmp_path, cli, monkeypatch):
    cohort = tiny_cohort(tmp_path / "cohort", subjects=2, matrix=(10, 8), coils=2)
    first, _ = cohort.volumes()
    check = verification.verify_folder

    def failing(folder, **options):
        if folder.name.startswith(first.id):
            raise PermissionError("the folder cannot be listed")
        return check(folder, **options)

    monkeypatch.setattr(verification, "verify_folder", failing)
    done = cli("verify", cohort.path)
    assert done.status == 1
    assert f"not checked: {first.id}: PermissionError: the folder cannot be listed" in done.err
    assert done.out.startswith("1 volume, ")
    assert done.out.endswith("0 problems, 1 volume not checked\n")
