"""Processes of dask as a shell starts them, and a stand-in for SLURM, for tests of the runner."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

__all__ = ["dask_scheduler", "dask_worker", "fake_slurm"]


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of dask, and end it, and it alone, afterwards."""
    command = [sys.executable, "-m", *arguments]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(20)


@contextmanager
def dask_scheduler() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a scheduler on a free port; yield its process and address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = "distributed.cli.dask_scheduler"
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    with _process(module, *options) as started:
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
