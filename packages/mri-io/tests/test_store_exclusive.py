"""Work that one process at a time does: others wait, nobody for the dead, and nothing is left behind."""

import subprocess
import sys
import time
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from mri_io.store import collect_garbage, create_cohort, exclusive

HOLD = (
    "import sys, time\nfrom mri_io import open_cohort\n"
    "with open_cohort(sys.argv[1]).exclusive('a'):\n    print(flush=True)\n    time.sleep(1000)\n"
)


@pytest.fixture(params=["folder", "s3"])
def cohort(request, tmp_path, monkeypatch):
    monkeypatch.setattr(exclusive, "_ASKED_EVERY_S", 0.05)
    place = tmp_path / "c" if request.param == "folder" else f"{request.getfixturevalue('bucket')}/c"
    return create_cohort(place)


def left(cohort):
    """Return what lies in the staging folder."""
    return [path.name for path in (cohort.volumes_path / ".staging").glob("*")]


def test_others_wait(cohort):
    inside, turns = [], []

    def work():
        for _ in range(3):
            with cohort.exclusive("a"):
                inside.append(1)
                turns.append(len(inside))
                time.sleep(0.02)
                inside.pop()

    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert turns == [1] * 9
    assert left(cohort) == []


def test_other_work_goes_on(cohort):
    done = Event()

    def work():
        with cohort.exclusive("b"):
            done.set()

    with cohort.exclusive("a"):
        Thread(target=work, daemon=True).start()
        assert done.wait(30)


def test_an_error_ends_the_turn(cohort):
    with pytest.raises(ValueError, match="inside"), cohort.exclusive("a"):
        raise ValueError("inside")
    with cohort.exclusive("a"):
        pass
    assert left(cohort) == []


@contextmanager
def holder(cohort):
    """Another process that does the work, and is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(cohort.path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield
        process.kill()


def test_nobody_waits_for_the_dead(cohort):
    with holder(cohort):
        assert collect_garbage(cohort) == []
        assert left(cohort) == ["work-a"]
    began = time.monotonic()
    with cohort.exclusive("a"):
        assert time.monotonic() - began < 30
    assert left(cohort) == []


def test_garbage_collection_removes_what_the_dead_held(tmp_path):
    cohort = create_cohort(tmp_path / "c")
    with holder(cohort):
        pass
    assert [path.name for path in collect_garbage(cohort)] == ["work-a"]
    assert left(cohort) == []
