"""Jobs of SLURM by a stand-in for sbatch that runs them here: options, environment, ending, refusals."""

import json
import os
from contextlib import suppress

import dask
import pytest

from mri_io.errors import ConfigError, MissingPackageError, StoreError
from mri_io.prep import progress, run_tasks
from mri_io.prep.slurm import _classes
from mri_io.testing.clusters import end_jobs, fake_slurm
from mri_io.testing.waiting import wait_until


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A stand-in for SLURM, with what a user would configure for it."""
    _classes()  # the defaults of its configuration, which are loaded at import, outlast the with-block below then
    folder = fake_slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(progress, "LINE_EVERY_S", 1e9)  # a slow machine would have lines of progress among the others
    configured = {
        "queue": "short",
        "account": "mri",
        "walltime": "01:30:00",
        "job-script-prologue": ["export FROM_PROLOGUE=yes"],
        "local-directory": str(tmp_path),
        "scheduler-options": {"host": "127.0.0.1"},
    }
    with dask.config.set({f"jobqueue.slurm.{key}": value for key, value in configured.items()}):
        yield folder
    end_jobs(folder)


def looking(folder):
    """Return a function that tells about its worker, when that of as many as its item says have met in a folder.

    It is made here, so that it travels by value.
    """
    folder.mkdir()

    def look(item: int) -> dict:
        import os

        from distributed import get_worker

        from mri_io.testing.clusters import meet

        meet(folder, item)
        names = ("OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "FROM_PROLOGUE")
        return {
            "env": [os.environ.get(n) for n in names],
            "threads": get_worker().state.nthreads,
            "limits": [get_worker().memory_manager.memory_pause_fraction, get_worker().nanny is not None],
            "pid": os.getpid(),
        }

    return look


def scripts(folder) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("job-*.sh"))]


def jobs(folder) -> set[str]:
    return {path.stem.removeprefix("job-") for path in folder.glob("job-*.sh")}


def is_gone(job) -> bool:
    """Whether no process of a job is left."""
    with suppress(ProcessLookupError):
        os.killpg(int(job.read_text()), 0)
        return False
    return True


def test_jobs_are_submitted_as_configured_and_ended(slurm, tmp_path, capfd):
    found = run_tasks(
        looking(tmp_path / "met"), [2] * 6, scheduler="slurm:2", description="smooth", memory=2 * 10**9
    ).results
    assert len({result["pid"] for result in found}) == 2
    assert {json.dumps(result["env"]) for result in found} == {json.dumps(["1", str(256 * 2**20), "yes"])}
    assert {result["threads"] for result in found} == {1}
    assert {tuple(result["limits"]) for result in found} == {(False, True)}
    assert len(jobs(slurm)) == 2
    for script in scripts(slurm):
        for line in ("-p short", "-A mri", "-t 01:30:00", "--cpus-per-task=1", "--mem=3G"):  # 1.25 x 2.3 GB, rounded up
            assert f"#SBATCH {line}\n" in script
    assert set((slurm / "cancelled").read_text().split()) == jobs(slurm)
    wait_until(lambda: all(map(is_gone, slurm.glob("job-*.pid"))))
    *said, dashboard = capfd.readouterr().err.splitlines()
    assert said == [
        "smooth: 6 volumes, up to 2.0 GB each beside 0.3 GB per process",
        "smooth: slurm: up to 2 jobs; the first is submitted (squeue --me)",
    ]
    assert dashboard.startswith("smooth: dask dashboard: http://")


def test_a_job_of_several_cores_has_a_process_of_one_thread_for_each(slurm, tmp_path):
    with dask.config.set({"jobqueue.slurm.cores": 2, "jobqueue.slurm.memory": "5 GB"}):
        found = run_tasks(looking(tmp_path / "met"), [2] * 4, scheduler="slurm:1", progress=False).results
    assert len({result["pid"] for result in found}) == 2
    assert {result["threads"] for result in found} == {1}
    (script,) = scripts(slurm)
    assert "#SBATCH --cpus-per-task=2\n" in script
    assert "#SBATCH --mem=5G\n" in script


@pytest.mark.slow
def test_jobs_end_while_others_still_work(slurm):
    """The first task ends when a job has been cancelled, which must be the idle one."""
    cancelled = slurm / "cancelled"

    def work(item: int) -> dict:
        import os

        from mri_io.testing.waiting import wait_until

        if item == 0:
            wait_until(lambda: cancelled.exists() and bool(cancelled.read_text()))
            return {"own": os.environ["SLURM_JOB_ID"], "cancelled": cancelled.read_text().split()}
        return {}

    first = run_tasks(work, range(3), scheduler="slurm:2", progress=False).results[0]
    assert len(first["cancelled"]) == 1
    assert first["own"] not in first["cancelled"]


def test_a_refused_first_job_is_an_error_that_says_why(slurm, tmp_path, capfd):
    (slurm / "accepts").write_text("0")
    message = r"(?s)slurm: no job was accepted.*Job violates accounting.*jobqueue.slurm .queue, account"
    with pytest.raises(StoreError, match=message):
        run_tasks(looking(tmp_path / "met"), [1, 1], scheduler="slurm", progress=False)
    assert "Traceback" not in capfd.readouterr().err


def test_further_jobs_that_are_refused_leave_the_work_to_the_first(slurm, tmp_path, capfd):
    (slurm / "accepts").write_text("1")
    errors = ""

    def refused() -> bool:
        nonlocal errors
        errors += capfd.readouterr().err
        return "smooth: slurm: a further job was refused; the work goes on in those there are." in errors

    summary = run_tasks(
        looking(tmp_path / "met"),
        [1] * 5,
        scheduler="slurm:3",
        description="smooth",
        on_done=lambda *_: wait_until(refused),
    )
    assert len({result["pid"] for result in summary.results}) == 1
    assert len(summary.results) == 5
    assert "Traceback" not in errors + capfd.readouterr().err


def test_without_any_job_left_the_work_ends(slurm, tmp_path):
    (slurm / "accepts").write_text("1")

    def work(item: int) -> dict:
        import os
        import signal

        (pid,) = (int(path.read_text()) for path in slurm.glob("job-*.pid"))
        os.killpg(pid, signal.SIGKILL)  # as at the end of the walltime
        return {}

    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s", "distributed.comm.timeouts.connect": "3s"}),
        pytest.raises(StoreError, match=r"(?s)slurm: no job was accepted.*Job violates accounting"),
    ):
        run_tasks(work, [0, 1], scheduler="slurm:1", progress=False)


def test_without_slurm_or_without_its_package_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = "slurm: expected the command sbatch, got none on this machine. Run the command on a login node"
    with pytest.raises(ConfigError, match=message):
        run_tasks(dict, [()], scheduler="slurm", progress=False)
    monkeypatch.setenv("PATH", str(fake_slurm(tmp_path / "slurm")))
    monkeypatch.setitem(__import__("sys").modules, "dask_jobqueue.slurm", None)
    with pytest.raises(MissingPackageError, match=r"dask_jobqueue is needed .*pip install 'mri-io\[slurm\]'"):
        run_tasks(dict, [()], scheduler="slurm", progress=False)
