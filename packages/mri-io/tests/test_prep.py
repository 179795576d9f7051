"""The runner on every scheduler: order, retries, failures, killed workers, progress, interruption."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest

from mri_io import open_cohort, verify
from mri_io.errors import ConfigError, StoreError
from mri_io.prep import TaskFailure, cluster, prepare_cohort, run_tasks
from mri_io.store import collect_garbage
from mri_io.testing import tiny_cohort


@contextmanager
def process(*arguments: str):
    """Run a module of dask as the shell does, and end it, and it alone, afterwards."""
    command = [sys.executable, "-m", *arguments]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(20)


@contextmanager
def dask_scheduler():
    """Start a scheduler on a free port; yield its process and address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = "distributed.cli.dask_scheduler"
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    with process(module, *options) as started:
        yield started, f"tcp://127.0.0.1:{port}"


def dask_worker(address: str, folder: Path):
    """Start a worker of one thread."""
    options = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
    return process("distributed.cli.dask_worker", address, *options)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A dask scheduler with one worker, which come one after the other as a user starts them."""
    with dask_scheduler() as (_, found), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "WORKERS_WITHIN_S", 0.2)
        with pytest.raises(StoreError, match=rf"{found}: the dask scheduler has no workers. Start one: dask worker"):
            run_tasks(dict, [()], scheduler=found)
        patch.undo()
        with dask_worker(found, tmp_path_factory.mktemp("dask")):
            yield found


@pytest.fixture(params=["sync", "local:2", "tcp"])
def scheduler(request):
    """Each kind of scheduler."""
    return request.getfixturevalue("address") if request.param == "tcp" else request.param


def task(folder: Path):
    """Return a function of an item that leaves a mark per attempt; made here, so that it travels by value."""

    def work(item: int) -> dict:
        import os
        import time
        from pathlib import Path

        from mri_io.errors import FormatError

        (Path(folder) / f"{item}-{time.monotonic_ns()}").touch()
        attempts = len(list(Path(folder).glob(f"{item}-*")))
        time.sleep(0.05 * (5 - item))
        if item == 1:
            raise FormatError("a.h5: truncated.")
        if item == 2:
            raise ZeroDivisionError("a bug")
        if item == 3 and attempts < 2:
            raise OSError("the network is gone for a moment")
        return {"status": "skipped" if item == 4 else "done", "item": item, "pid": os.getpid()}

    return work


def test_results_in_order_failures_recorded_and_the_others_go_on(scheduler, tmp_path):
    seen = {}
    items = [0, 1, 2, 4]
    summary = run_tasks(
        task(tmp_path),
        items,
        scheduler=scheduler,
        description="test",
        labels=[f"volume {n}" for n in items],
        progress=False,
        on_done=lambda label, outcome: seen.setdefault(label, outcome),
    )
    assert [result["item"] for result in summary.results] == [0, 4]
    assert [(f.item, f.label, f.error) for f in summary.failures] == [
        (1, "volume 1", "a.h5: truncated."),
        (2, "volume 2", "ZeroDivisionError: a bug"),
    ]
    assert "raise ZeroDivisionError" in summary.failures[1].traceback
    assert not summary.ok
    assert str(summary) == (
        "test: 1 done, 1 skipped, 2 failed\n  failed: volume 1: a.h5: truncated.\n"
        "  failed: volume 2: ZeroDivisionError: a bug"
    )
    assert {label: isinstance(outcome, TaskFailure) for label, outcome in seen.items()} == {
        "volume 0": False,
        "volume 1": True,
        "volume 2": True,
        "volume 4": False,
    }
    own = {result["pid"] == os.getpid() for result in summary.results}
    assert own == {scheduler == "sync"}
    assert len(list(tmp_path.iterdir())) == 4  # what is raised on purpose, or a bug, is not tried again


def test_errors_of_input_and_output_are_tried_again_on_workers(address, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run_tasks(task(tmp_path / "a"), [3], scheduler=address, progress=False).ok
    assert len(list((tmp_path / "a").iterdir())) == 2
    (failure,) = run_tasks(task(tmp_path / "b"), [3], scheduler=address, retries=0, progress=False).failures
    assert failure.error == "OSError: the network is gone for a moment"


def test_nothing_to_do_is_no_error(scheduler):
    summary = run_tasks(dict, [], scheduler=scheduler, progress=False)
    assert (summary.ok, summary.results) == (True, [])


def test_local_workers_have_one_thread_and_keep_memory_and_this_process_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)

    def look(item: int) -> dict:
        import os
        import time

        from distributed import get_worker

        time.sleep(0.3)  # so that both workers get one
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        return {
            "env": [os.environ.get(n) for n in names],
            "trim": int(os.environ["MALLOC_TRIM_THRESHOLD_"]),
            "threads": get_worker().state.nthreads,
            "pid": os.getpid(),
        }

    found = run_tasks(look, range(4), scheduler="local:2", progress=False).results
    assert [result["env"] for result in found] == [["1"] * 4] * 4
    assert min(result["trim"] for result in found) > 2**26  # dask's 64 KiB make arrays slow
    assert {result["threads"] for result in found} == {1}
    assert len({result["pid"] for result in found} - {os.getpid()}) == 2
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_a_killed_worker_does_not_lose_the_run(tmp_path):
    # The only worker there is: whatever lay in its memory is gone with it.
    def work(item: int) -> dict:
        import os
        import signal
        from pathlib import Path

        mark = Path(tmp_path) / str(item)
        first = not mark.exists()
        mark.touch()
        if item == 1 and first:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"item": item}

    summary = run_tasks(work, range(4), scheduler="local:1", progress=False)
    assert [result["item"] for result in summary.results] == [0, 1, 2, 3]


def test_a_task_that_kills_its_workers_fails_alone():
    def work(item: int) -> dict:
        import os
        import signal

        if item == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"item": item}

    # dask gives up at the first death, and gives up what waits for the same worker as well.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        summary = run_tasks(work, range(3), scheduler="local:1", progress=False)
    assert [result["item"] for result in summary.results] == [0, 2]
    assert [(f.item, f.error.partition(",")[0]) for f in summary.failures] == [
        (1, "every worker that took it was killed")
    ]


@pytest.mark.parametrize("name", ["locals", "local:0", "local:-1", "slurm", "tcp:", "", "127.0.0.1:8786"])
def test_unknown_schedulers_are_refused(name):
    with pytest.raises(ConfigError, match="scheduler: expected sync, local, local:N or tcp://host:port, got"):
        run_tasks(dict, [()], scheduler=name)


def test_a_scheduler_that_is_not_there(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_WITHIN_S", 0.3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # bound, and not listening
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(StoreError, match=f"{address}: no dask scheduler answers there .*Start one: dask scheduler"):
            run_tasks(dict, [()], scheduler=address)


def test_a_scheduler_that_ends_during_the_run(tmp_path):
    def work(item: int) -> dict:
        import time

        time.sleep(item)
        return {}

    with dask_scheduler() as (started, found), dask_worker(found, tmp_path):
        message = f"{found}: the dask scheduler ended or forgot the work. Run the command again: it continues"
        with pytest.raises(StoreError, match=message):
            run_tasks(work, [0, 2], scheduler=found, progress=False, on_done=lambda *_: started.kill())


def work_on(volume) -> dict:
    """Fail on the second volume unless it is marked as mended."""
    if volume.subject_id == "sub-02" and not (volume.path.parents[1] / "mended").exists():
        raise ValueError("broken")
    return {"status": "done", "volume": volume.id}


def test_failures_of_volumes_are_kept_with_the_cohort_until_they_succeed(tiny):
    other = {"item": "sub-02_acq-tiny_run-1", "error": "elsewhere", "stage": "calibrate"}
    tiny.record_failure(*other.values())
    assert len(prepare_cohort(tiny, work_on, description="smooth", progress=False).results) == 2
    prepare_cohort(tiny, work_on, description="smooth", progress=False)
    rows = tiny.failures()
    assert [(row["item"], row["stage"], row["error"]) for row in rows] == [
        (other["item"], "calibrate", "elsewhere"),
        (other["item"], "smooth", "ValueError: broken"),
    ]
    assert 'raise ValueError("broken")' in rows[1]["traceback"]
    (tiny.path / "mended").touch()
    assert prepare_cohort(tiny, work_on, description="smooth", progress=False).ok
    assert [row["stage"] for row in tiny.failures()] == ["calibrate"]


def test_volumes_are_chosen_by_id_or_part(tiny):
    ids = tiny.volume_ids()
    (tiny.path / "mended").touch()
    some = prepare_cohort(tiny, work_on, volumes=[ids[2], ids[0]], progress=False)
    assert [result["volume"] for result in some.results] == [ids[2], ids[0]]
    part = prepare_cohort(tiny, work_on, part="val", progress=False)
    assert [result["volume"] for result in part.results] == [ids[1]]


@contextmanager
def terminal(monkeypatch):
    """Let standard error be a terminal; yield a function that returns what appeared on it."""
    primary, secondary = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")

    def shown() -> str:
        data = b""
        while select.select([primary], [], [], 0.1)[0]:
            data += os.read(primary, 65536)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode())

    with os.fdopen(secondary, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        yield shown
    os.close(primary)


def test_a_terminal_shows_count_rate_time_left_and_failures(monkeypatch):
    def work(item: int) -> dict:
        time.sleep(0.12)
        if item == 0:
            raise ValueError("broken")
        return {}

    with terminal(monkeypatch) as shown:
        run_tasks(work, range(6), description="calibrate")
        text = shown()
    assert re.search(r"calibrate .*\b3/6 +\d\.\d\d/s +0:00:0\d +1 failed", text), text
    assert "6/6" in text
    rates = [float(rate) for rate in re.findall(r"([0-9.]+)/s", text)]
    assert 2 < rates[-1] < 9  # six items of 0.12 s


def test_without_a_terminal_lines_appear_now_and_then(monkeypatch, capsys):
    clock = iter(range(0, 1000, 8))
    monkeypatch.setattr("mri_io.prep.progress.time.monotonic", lambda: next(clock))
    run_tasks(lambda item: {}, range(5), description="calibrate")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["calibrate: 2/5, 0.12/s, 24 s left", "calibrate: 4/5, 0.12/s, 8 s left"]


INTERRUPTED = """
import sys, time
from pathlib import Path
from mri_io.prep import prepare_cohort
from mri_io.schema import Provenance

def slow(volume):
    made = Provenance.of("mri-io", "slow")
    if volume.is_current("recon/slow", made):
        return {"status": "skipped"}
    image = volume["recon/reference"].numpy()
    with volume.writer("recon/slow", shape=image.shape, dtype=image.dtype, provenance=made) as writer:
        writer.append(image[:1])
        if volume.subject_id != "sub-01" and not (volume.path.parents[1] / "quick").exists():
            (volume.path.parents[1] / "half").touch()
            time.sleep(60)
        writer.append(image[1:])
    return {"status": "done"}

if __name__ == "__main__":
    try:
        print(prepare_cohort(sys.argv[1], slow, scheduler=sys.argv[2], description="slow"))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("scheduler", ["sync", "local:2"])
def test_interruption_leaves_a_consistent_store_that_the_next_run_completes(scheduler, tmp_path):
    cohort = tiny_cohort(tmp_path / "c", subjects=3, matrix=(10, 8), coils=2)
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    command = [sys.executable, str(script), str(cohort.path), scheduler]
    running = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    wait_for(cohort.path / "half", running)
    if scheduler != "sync":
        wait_for(cohort.volumes()[0].path / "recon" / "slow" / "zarr.json", running)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, errors = running.communicate(timeout=20)
    assert (running.returncode, errors) == (130, b"")
    assert ["recon/slow" in volume for volume in cohort.volumes()] == [True, False, False]
    assert verify(cohort).ok
    (cohort.path / "quick").touch()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.splitlines()[0] == "slow: 2 done, 1 skipped, 0 failed"
    assert verify(cohort).ok
    collect_garbage(cohort)
    assert list((cohort.volumes_path / ".staging").glob("*")) == []
    assert open_cohort(cohort.path).failures() == []


def wait_for(path: Path, running: subprocess.Popen) -> None:
    """Wait until a file is there; fail when the process ends before."""
    end = time.monotonic() + 60
    while not path.exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
