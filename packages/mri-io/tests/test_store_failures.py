"""The record of failures: cleared without being read again for every item, while other processes add to it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mri_io import create_cohort
from mri_io.errors import ElementNotFoundError
from mri_io.store import failures
from mri_io.store.remote.paths import StorePath

ROWS = 300


@pytest.fixture(params=["folder", "url"])
def cohort(request, tmp_path):
    if request.param == "folder":
        return create_cohort(tmp_path / "c")
    pytest.importorskip("fsspec")
    return create_cohort(f"memory://failures-{request.node.name[:-1].replace('[', '-')}/c")


@pytest.fixture
def reads(monkeypatch):
    """The names of files that were read."""
    found = []
    for kind in (StorePath, Path):
        read = kind.read_bytes
        monkeypatch.setattr(kind, "read_bytes", lambda path, read=read: found.append(path.name) or read(path))
    return found


def items(cohort) -> list[str]:
    return [row["item"] for row in cohort.failures()]


def test_items_that_never_failed_are_cleared_without_reading(cohort, reads):
    """A run clears every item that it has finished; it reads the record once, however long the run."""
    for number in range(ROWS):
        cohort.record_failure(f"bad-{number}", "x", "convert")
    reads.clear()
    for number in range(ROWS):
        cohort.clear_failure(f"good-{number}", "convert")
        cohort.clear_failure(f"bad-{number}", "another stage")
    assert reads.count("failures.jsonl") <= 1
    assert len(items(cohort)) == ROWS


def test_a_run_in_which_all_fails_does_not_read_what_it_wrote(tmp_path, reads):
    cohort = create_cohort(tmp_path / "c")
    for number in range(ROWS):
        cohort.clear_failure(f"bad-{number}", "convert")
        cohort.record_failure(f"bad-{number}", "x", "convert")
    assert reads.count("failures.jsonl") <= 1
    for number in range(0, ROWS, 2):
        cohort.clear_failure(f"bad-{number}", "convert")
    assert items(cohort) == [f"bad-{number}" for number in range(1, ROWS, 2)]


def test_only_rows_of_the_item_and_stage_go(cohort):
    for item, stage in (("a", "one"), ("a", "two"), ("ab", "one"), ('"a"', "one"), ("größe", "one"), ("a", "one")):
        cohort.record_failure(item, 'in "a": broken', stage)
    cohort.clear_failure("a", "one")
    assert [(row["item"], row["stage"]) for row in cohort.failures()] == [
        ("a", "two"), ("ab", "one"), ('"a"', "one"), ("größe", "one"),
    ]  # fmt: skip
    cohort.clear_failure("größe")
    cohort.clear_failure("a")
    assert items(cohort) == ["ab", '"a"']


OTHER = """
import sys
from mri_io import open_cohort

cohort = open_cohort(sys.argv[1])
for item in sys.argv[2].split(","):
    cohort.record_failure(item, "x", "convert")
"""


def test_rows_of_other_processes_are_seen_and_kept(tmp_path):
    """Both what they add of an item that is cleared here, and what they add of others."""
    cohort = create_cohort(tmp_path / "c")
    for item in ("a", "b"):
        cohort.record_failure(item, "x", "convert")
    cohort.clear_failure("nothing")  # from here on the record is known
    subprocess.run([sys.executable, "-c", OTHER, str(cohort.path), "c,d"], check=True)
    cohort.clear_failure("c")
    cohort.clear_failure("a")
    assert items(cohort) == ["b", "d"]
    (tmp_path / "c" / "failures.jsonl").unlink()
    cohort.clear_failure("b")
    assert items(cohort) == []
    cohort.record_failure("b", "x", "convert")
    cohort.clear_failure("b")
    assert items(cohort) == []


def test_what_is_remembered_is_bounded(tmp_path):
    for number in range(2 * failures._MOST_NAMED):
        cohort = create_cohort(tmp_path / str(number))
        cohort.record_failure("a", "x", "convert")
        cohort.clear_failure("b")
    assert 0 < len(failures._named) <= failures._MOST_NAMED


def test_lines_that_cannot_be_read_stay(tmp_path):
    cohort = create_cohort(tmp_path / "c")
    for item in ("a", "b"):
        cohort.record_failure(item, "x", "convert")
    path = cohort.path / "failures.jsonl"
    path.write_text("[1, 2]\n" + json.dumps("a") + "\n" + path.read_text() + '{"item": "a", "st')
    cohort.clear_failure("a")
    assert items(cohort) == ["b"]
    assert path.read_text().startswith('[1, 2]\n"a"\n')


def test_the_failures_of_a_stage_are_cleared_together(cohort):
    for stage in ("resample image/iso", "convert"):
        for item in ("a", "b"):
            cohort.record_failure(item, "x", stage)
    assert [row["item"] for row in cohort.clear_failures("resample image/iso")] == ["a", "b"]
    assert [row["stage"] for row in cohort.failures()] == ["convert", "convert"]
    with pytest.raises(ElementNotFoundError, match=r"failures\.jsonl: stage: expected convert, got 'calibrate'"):
        cohort.clear_failures("calibrate")
