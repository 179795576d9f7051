"""Processes of dask as a shell starts them, and a stand-in for SLURM, for tests of the runner."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from mri_io.testing.waiting import PATIENCE_S, wait_until

__all__ = ["dask_scheduler", "dask_worker", "end_jobs", "fake_slurm", "meet"]


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of dask, and end it and what it started afterwards."""
    import psutil

    command = [sys.executable, "-m", *arguments]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        own = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
        started.terminate()
        try:
            started.wait(PATIENCE_S)
        finally:
            for process in own:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def meet(folder: Path, count: int) -> None:
    """Wait until so many processes have called this with the same folder."""
    (folder / str(os.getpid())).touch()
    wait_until(lambda: len(list(folder.iterdir())) >= count)


@contextmanager
def dask_scheduler() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a scheduler on a free port; yield its process and address when it answers there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = "distributed.cli.dask_scheduler"
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]

    def answers() -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", port)) == 0

    with _process(module, *options) as started:
        wait_until(answers)
        yield started, f"tcp://127.0.0.1:{port}"


def dask_worker(address: str, folder: Path, *, nanny: bool = True) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Start a worker of one thread, which a nanny replaces when it dies, or none."""
    options = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
    return _process("distributed.cli.dask_worker", address, *options, "--nanny" if nanny else "--no-nanny")


_SBATCH = """#!/bin/sh
# Takes as many jobs as the file "accepts" says, and runs each here, in a session of its own.
cd "$(dirname "$0")" || exit 1
if [ "$(ls job-*.sh 2>/dev/null | wc -l)" -ge "$(cat accepts)" ]; then
    echo "sbatch: error: Job violates accounting/QOS policy" >&2
    exit 1
fi
cp "$1" job-$$.sh
export SLURM_JOB_ID=$$
{python} -c 'import os, sys; os.setsid(); os.execvp("sh", ["sh", sys.argv[1]])' job-$$.sh >job-$$.log 2>&1 </dev/null &
echo $! >job-$$.pid
echo "Submitted batch job $$"
"""
_SCANCEL = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$1" >>cancelled
kill -- -"$(cat "job-$1.pid")"
"""


def fake_slurm(folder: Path, *, accepts: int = 100) -> Path:
    """Make the commands sbatch and scancel in a folder, which is to be put first on the PATH.

    A submitted script is kept there as ``job-<id>.sh`` and runs on this machine; ``cancelled`` lists the ids of the
    jobs that were cancelled.
    """
    folder.mkdir(parents=True)
    (folder / "accepts").write_text(f"{accepts}\n")
    for name, text in (("sbatch", _SBATCH.replace("{python}", sys.executable)), ("scancel", _SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def end_jobs(folder: Path) -> None:
    """End what still runs of the jobs of `fake_slurm`."""
    for path in folder.glob("job-*.pid"):
        with suppress(ProcessLookupError):
            os.killpg(int(path.read_text()), signal.SIGKILL)
