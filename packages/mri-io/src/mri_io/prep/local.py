"""Workers on this machine, which end with this process."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

__all__ = ["WORKER_ENVIRONMENT", "local_cluster"]

WORKER_ENVIRONMENT = {
    # One thread per worker: as many workers as cores must not each start as many threads again.
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    # Dask has glibc give freed memory back above 64 KiB, so that every array is paged in again: CG-SENSE takes six
    # times as long. These let a worker keep 256 MiB.
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}
"""What the processes of workers have in their environment."""


@contextmanager
def local_cluster(number: int) -> Iterator[Any]:
    """Yield a cluster of so many workers: the scheduler in this process, each worker in one that is started afresh.

    Workers are neither forked (a fork of a process with threads may deadlock) nor spawned by multiprocessing (which
    would run the user's script again). They end when this process does, however it ends.
    """
    import dask
    from distributed import Scheduler, SpecCluster
    from distributed.deploy.subprocess import SubprocessWorker

    class OwnSession(SubprocessWorker):  # type: ignore[misc]
        """Leaves the terminal's interrupt to this process, which ends its workers; those would print tracebacks."""

        async def _start(self) -> None:
            spec = json.dumps({"cls": self.worker_class, "opts": self.worker_kwargs})
            command = [sys.executable, "-m", "dask", "spec", self.scheduler, "--spec", spec]
            self.process = await asyncio.create_subprocess_exec(*command, start_new_session=True)

    dashboard = find_spec("bokeh") is not None
    options = {
        "worker_class": "distributed.Nanny",
        "worker_kwargs": {
            "nthreads": 1,
            "memory_limit": 0,
            "dashboard": False,
            "silence_logs": logging.CRITICAL,
            "death_timeout": 30,
            "preload": [],
        },
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": dashboard, "dashboard_address": ":0"},
    }
    kept = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        with (
            dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}),
            SpecCluster(
                workers={n: {"cls": OwnSession, "options": options} for n in range(number)},
                scheduler=scheduler,
                silence_logs=logging.CRITICAL,  # what matters becomes a failure or an exception
            ) as cluster,
        ):
            yield cluster
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
