"""Ctrl-C and killed workers: a consistent store, work done exactly once, and how to go on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from mri_io import open_cohort, verify
from mri_io.prep import prepare_cohort, run_tasks
from mri_io.prep.cohort import _OnPath
from mri_io.store import collect_garbage
from mri_io.testing import tiny_cohort
from mri_io.testing.clusters import dask_scheduler, dask_worker, end_jobs, fake_slurm
from mri_io.testing.waiting import PATIENCE_S, wait_until

INTERRUPTED = """
import sys
from mri_io.prep import prepare_cohort
from mri_io.schema import Provenance
from mri_io.testing.waiting import wait_until

def slow(volume):
    made = Provenance.of("mri-io", "slow")
    if volume.is_current("recon/slow", made):
        return {"status": "skipped"}
    image, folder = volume["recon/reference"].numpy(), volume.path.parents[1]
    with volume.writer("recon/slow", shape=image.shape, dtype=image.dtype, provenance=made) as writer:
        writer.append(image[:1])
        if volume.subject_id != "sub-01" and not (folder / "quick").exists():
            (folder / "half").touch()
            wait_until((folder / "quick").exists)
            raise RuntimeError("too late")
        writer.append(image[1:])
    return {"status": "done"}

if __name__ == "__main__":
    try:
        print(prepare_cohort(sys.argv[1], slow, scheduler=sys.argv[2], description="slow"))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """Run a command as a terminal does, in a group of its own; end it if it has not ended."""
    running = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()


@pytest.fixture
def cohort(tmp_path):
    return tiny_cohort(tmp_path / "c", subjects=3, matrix=(10, 8), coils=2)


@pytest.mark.parametrize("scheduler", ["sync", "local:2", "tcp", "slurm:2"])
def test_interruption_leaves_a_consistent_store_that_the_next_run_completes(scheduler, cohort, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    environment = dict(os.environ)
    with ExitStack() as stack:
        if scheduler == "tcp":
            _, scheduler = stack.enter_context(dask_scheduler())
            for number in range(2):
                stack.enter_context(dask_worker(scheduler, tmp_path / str(number)))
        elif scheduler == "slurm:2":
            slurm = fake_slurm(tmp_path / "slurm")
            stack.callback(end_jobs, slurm)
            environment |= {"PATH": f"{slurm}:{environment['PATH']}", "DASK_CONFIG": str(tmp_path / "dask.yaml")}
            (tmp_path / "dask.yaml").write_text("jobqueue: {slurm: {scheduler-options: {host: 127.0.0.1}}}")
        command = [sys.executable, str(script), str(cohort.path), scheduler]
        cohort.record_failure(cohort.volume_ids()[0], "earlier", "slow")  # cleared when it is counted as done
        running = stack.enter_context(started(command, environment))
        wait_until((cohort.path / "half").exists, running)
        wait_until(lambda: not cohort.failures(), running)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        _, errors = running.communicate(timeout=PATIENCE_S)
        assert running.returncode == 130
        # On a busy machine connections that are cut in the middle may be logged by dask before they are silenced, and
        # there may be a line of progress.
        ours = [line for line in errors.splitlines() if line.startswith("slow: ")]
        others = ("slow: slurm: up to 2 jobs", "slow: dask dashboard: ", "slow: 1/3, ")
        lines = [line for line in ours if not line.startswith(others)]
        assert lines == [
            "slow: interrupted after 1 of 3 (1 done, 0 skipped, 0 failed). Nothing half-written is visible; run the "
            "same command again: it goes on with the rest."
        ]
        assert ["recon/slow" in volume for volume in cohort.volumes()] == [True, False, False]
        assert verify(cohort).ok
        (cohort.path / "quick").touch()
        again = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert again.stdout.splitlines()[0] == "slow: 2 done, 1 skipped, 0 failed"
    assert verify(cohort).ok
    collect_garbage(cohort)
    assert list((cohort.volumes_path / ".staging").glob("*")) == []
    assert open_cohort(cohort.path).failures() == []


def smoothed(folder: Path):
    """Return a step that tells which volume it began and which it has committed."""

    def work(volume) -> dict:
        import os
        import uuid
        from pathlib import Path

        from mri_io.schema import Provenance
        from mri_io.testing.waiting import wait_until

        made = Provenance.of("mri-io", "smooth")
        if volume.is_current("recon/smooth", made):
            return {"status": "skipped", "volume": volume.id}
        image = volume["recon/reference"].numpy()
        with volume.writer("recon/smooth", shape=image.shape, dtype=image.dtype, provenance=made) as writer:
            writer.append(image[:1])
            Path(folder, f"begun-{os.getpid()}-{uuid.uuid4()}").touch()
            if len(list(Path(folder).glob(f"begun-{os.getpid()}-*"))) == 2:
                wait_until(Path(folder, "killed").exists)  # the second of a worker ends when one has been killed
            writer.append(image[1:])
        Path(folder, f"committed-{volume.id}-{uuid.uuid4()}").touch()
        return {"status": "done", "volume": volume.id}

    return work


def test_a_worker_that_is_killed_loses_and_repeats_nothing(tmp_path):
    """A scheduler and two workers as a user starts them; one is killed in the middle of writing."""
    cohort = tiny_cohort(tmp_path / "c", subjects=8, matrix=(10, 8), coils=2)
    marks = tmp_path / "marks"
    marks.mkdir()
    with dask_scheduler() as (_, address), ExitStack() as stack:
        workers = [stack.enter_context(dask_worker(address, tmp_path / str(n), nanny=False)) for n in range(2)]
        killed = []

        def kill_one(*_: object) -> None:
            """Kill the worker that began last, in the middle of the second that it writes."""
            if killed:
                return
            latest = max(marks.glob("begun-*"), key=lambda path: path.stat().st_mtime_ns)
            pid = int(latest.name.split("-")[1])
            wait_until(lambda: len(list(marks.glob(f"begun-{pid}-*"))) == 2)
            (worker,) = (worker for worker in workers if worker.pid == pid)
            worker.kill()
            worker.wait()
            killed.append(pid)
            (marks / "killed").touch()

        paths = [str(volume.path.resolve()) for volume in cohort.volumes()]
        work = _OnPath(smoothed(marks))
        summary = run_tasks(work, paths, scheduler=address, progress=False, on_done=kill_one)
    assert len(killed) == 1
    assert summary.ok
    assert sorted(result["volume"] for result in summary.results) == cohort.volume_ids()
    # A result that was lost with the worker is found in the store.
    assert summary.count("done") + summary.count("skipped") == 8
    committed = sorted(path.name.split("-", 1)[1].rpartition("_run-1-")[0] for path in marks.glob("committed-*"))
    assert committed == [volume_id.removesuffix("_run-1") for volume_id in cohort.volume_ids()]  # each once
    assert len(list(marks.glob("begun-*"))) == 9  # and one begun twice
    for volume in cohort.volumes():
        np.testing.assert_array_equal(volume["recon/smooth"].numpy(), volume["recon/reference"].numpy())
    report = verify(cohort)
    assert report.ok
    assert len(report.orphans) == 1  # what the killed worker was at
    assert len(collect_garbage(cohort)) == 1
    again = prepare_cohort(cohort, smoothed(marks), scheduler="sync", progress=False)
    assert (again.count("skipped"), len(again.results)) == (8, 8)
    assert (verify(cohort).orphans, cohort.failures()) == ([], [])
