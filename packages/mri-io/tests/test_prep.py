"""The runner on every scheduler: order, retries, failures, killed workers, progress."""

import os
import re
import select
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest

from mri_io.errors import ConfigError, FormatError, StoreError
from mri_io.prep import PrepSummary, TaskFailure, cluster, local, prepare_cohort, run_tasks
from mri_io.testing import flip_bit
from mri_io.testing.clusters import dask_scheduler, dask_worker, meet
from mri_io.testing.waiting import wait_until


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


def test_local_workers_have_one_thread_and_keep_memory_and_this_process_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)

    def look(item: int) -> dict:
        import os

        from distributed import get_worker

        meet(tmp_path, 2)  # so that both workers get one
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


@pytest.mark.parametrize("name", ["locals", "local:0", "local:-1", "slurm:0", "slurms", "tcp:", "", "127.0.0.1:8786"])
def test_unknown_schedulers_are_refused(name):
    with pytest.raises(
        ConfigError, match=r"scheduler: expected sync, local\[:N\], slurm\[:N\] or tcp://host:port, got"
    ):
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
        if item:
            wait_until((tmp_path / "killed").exists)
        return {}

    def kill(*_: object) -> None:
        started.kill()
        started.wait()
        (tmp_path / "killed").touch()

    with dask_scheduler() as (started, found), dask_worker(found, tmp_path):
        message = f"{found}: the dask scheduler ended or forgot the work. Run the command again: it continues"
        with pytest.raises(StoreError, match=message):
            run_tasks(work, [0, 1], scheduler=found, progress=False, on_done=kill)


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


def test_a_volume_named_twice_is_worked_on_once(tiny):
    ids = tiny.volume_ids()
    summary = prepare_cohort(tiny, work_on, volumes=[ids[0], ids[0], ids[1], ids[2]], description="s", progress=False)
    assert [result["volume"] for result in summary.results] == [ids[0], ids[2]]
    assert [row["item"] for row in tiny.failures()] == [ids[1]]  # the one that is broken


def test_choices_that_would_be_ignored_are_refused(tiny):
    with pytest.raises(ConfigError, match="part: expected that of split 'nosuch': train, val or test, got none"):
        prepare_cohort(tiny, work_on, split="nosuch", progress=False)
    with pytest.raises(ConfigError, match="choice of volumes: expected volumes or a part of a split, got both"):
        prepare_cohort(tiny, work_on, volumes=tiny.volume_ids(), part="val", progress=False)


@pytest.mark.parametrize("word", [b"zarr_format", b'"mri"', b"sub-02"])
def test_a_damaged_volume_fails_alone(tiny, word):
    ids = tiny.volume_ids()
    (tiny.path / "mended").touch()
    file = tiny.volumes_path / f"{ids[1]}.zarr" / "zarr.json"
    flip_bit(file, 8 * (file.read_bytes().rindex(word) + 2))
    needs = lambda volume: 10**6  # noqa: E731
    options = {"description": "smooth", "progress": False, "memory": needs}
    for chosen in ({}, {"volumes": ids}):
        summary = prepare_cohort(tiny, work_on, **chosen, **options)
        assert [result["volume"] for result in summary.results] == [ids[0], ids[2]]
        assert [failure.label for failure in summary.failures] == [ids[1]]
    (row,) = tiny.failures()
    assert (row["item"], row["stage"]) == (ids[1], "smooth")
    assert f"{ids[1]}.zarr" in row["error"]
    # Of a part is the damaged volume whose id begins with a subject of it.
    assert [f.label for f in prepare_cohort(tiny, work_on, part="val", **options).failures] == [ids[1]]
    assert prepare_cohort(tiny, work_on, part="train", **options).ok


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
    text, began, ends = "", time.monotonic(), []

    def is_shown() -> bool:
        nonlocal text
        text += shown()
        return "3/6" in text

    def work(item: int) -> dict:
        time.sleep(0.12)
        if item == 3:
            wait_until(is_shown)  # the bar is drawn now and then
        ends.append(time.monotonic())
        if item == 0:
            raise ValueError("broken")
        return {}

    with terminal(monkeypatch) as shown:
        run_tasks(work, range(6), description="calibrate")
        slowest = 6 / (time.monotonic() - began)
        text += shown()
    assert re.search(r"calibrate .*\b3/6 +\d\.\d\d/s +0:00:0\d +1 failed", text), text
    assert "6/6" in text
    rates = [float(rate) for rate in re.findall(r"([0-9.]+)/s", text)]
    assert slowest - 0.01 < rates[-1] < 6 / (ends[-1] - ends[0])


def test_without_a_terminal_lines_appear_now_and_then(monkeypatch, capsys):
    clock = iter(range(0, 1000, 8))
    monkeypatch.setattr("mri_io.prep.progress.time.monotonic", lambda: next(clock))
    run_tasks(lambda item: {}, range(5), description="calibrate")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["calibrate: 2/5, 0.12/s, 24 s left", "calibrate: 4/5, 0.12/s, 8 s left"]


def test_failures_that_differ_in_names_only_are_one_line():
    def work(item: str) -> dict:
        if item == "sub/other.h5":
            raise ValueError(f"/data/{item}: mask length: expected 16, got 12.")
        if item != "sub/good.h5":
            raise FormatError(f"/data/in/{item}: expected k-space, got an image (/data/in/{item}.txt). Leave it out.")
        return {}

    names = [f"sub/{n}.h5" for n in ("a", "good", "b", "other", "c", "d")]
    summary = run_tasks(work, names, progress=False, description="convert")
    assert len(summary.failures) == 5
    assert str(summary).splitlines() == [
        "convert: 1 done, 0 skipped, 5 failed",
        "  failed: 4 alike (sub/a.h5, sub/b.h5, sub/c.h5, ...): /data/in/sub/a.h5: expected k-space, got an image "
        "(/data/in/sub/a.h5.txt). Leave it out.",
        "  failed: sub/other.h5: ValueError: /data/sub/other.h5: mask length: expected 16, got 12.",
    ]


def test_numbers_tell_failures_apart():
    failures = [TaskFailure(None, f"v{n}", f"v{n}: expected 16, got {n % 2}.", "") for n in range(4)]
    lines = str(PrepSummary("x", failures=failures)).splitlines()
    assert lines[1:] == [
        "  failed: 2 alike (v0, v2): v0: expected 16, got 0.",
        "  failed: 2 alike (v1, v3): v1: expected 16, got 1.",
    ]


def test_the_dashboard_of_local_workers_is_named_and_answers(capfd):
    import urllib.request

    pytest.importorskip("bokeh")
    answers = []

    def look(*_: object) -> None:
        address = re.search(r"dask dashboard: (http://\S+)", capfd.readouterr().err)
        assert address, "no address on standard error"
        with urllib.request.urlopen(address[1], timeout=60) as page:
            answers.append(page.status)

    assert run_tasks(lambda item: {}, [0], scheduler="local:1", description="convert", on_done=look).ok
    assert answers == [200]


def test_without_bokeh_the_log_says_how_to_get_a_dashboard_and_nothing_else_does(capfd, caplog, monkeypatch):
    caplog.set_level("INFO", "mri_io")
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    assert run_tasks(lambda item: {}, [0], scheduler="local:1", description="convert").ok
    assert "dashboard" not in capfd.readouterr().err
    hint = "no dask dashboard. For one, where the scheduler runs: pip install 'mri-io[dashboard]'"
    assert caplog.messages.count(hint) == 1
