"""Where tasks run: a dask cluster that is there, or workers on this machine that end with this process."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from mri_io.errors import StoreError

__all__ = ["dask_client"]

_log = logging.getLogger(__name__)

_WORKER_ENVIRONMENT = {
    # One thread per worker: as many workers as cores must not each start as many threads again.
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    # Dask has glibc give freed memory back above 64 KiB, so that every array is paged in again: CG-SENSE takes six
    # times as long. These let a worker keep 256 MiB.
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}

CONNECT_WITHIN_S, WORKERS_WITHIN_S = 20, 30
"""How long a scheduler is given to answer, and then to get its first worker."""


@contextmanager
def dask_client(scheduler: str, items: int) -> Iterator[Any]:
    """Yield a dask client of a scheduler, as `mri_io.prep.run_tasks` names it; a local cluster ends with it.

    Parameters
    ----------
    scheduler
        ``local[:N]`` or ``tcp://host:port``.
    items
        How many there are to do: no more local workers are started.

    Raises
    ------
    StoreError
        When no scheduler answers at the address, or it has no workers.
    """
    from distributed import Client

    if not scheduler.startswith("local"):
        try:
            client = Client(scheduler, timeout=CONNECT_WITHIN_S, set_as_default=False)
        except OSError as error:
            raise StoreError(
                f"{scheduler}: no dask scheduler answers there ({error}). Start one: dask scheduler"
            ) from error
        with client:
            _log.info("dask dashboard: %s", client.dashboard_link)
            try:
                client.wait_for_workers(1, timeout=WORKERS_WITHIN_S)
            except TimeoutError:
                raise StoreError(
                    f"{scheduler}: the dask scheduler has no workers. Start one: dask worker {scheduler}"
                ) from None
            yield client
        return
    _, _, number = scheduler.partition(":")
    workers = min(int(number) if number else os.cpu_count() or 1, items)
    with _workers(workers) as cluster, Client(cluster, set_as_default=False) as client:
        _log.info("dask dashboard: %s", client.dashboard_link)
        yield client


@contextmanager
def _workers(number: int) -> Iterator[Any]:
    """Yield a cluster: the scheduler in this process, each worker in one that is started afresh.

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
    kept = {name: os.environ.get(name) for name in _WORKER_ENVIRONMENT}
    os.environ.update(_WORKER_ENVIRONMENT)
    try:
        with (
            dask.config.set({"distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT}),
            SpecCluster(
                workers={n: {"cls": OwnSession, "options": options} for n in range(number)},
                scheduler=scheduler,
                silence_logs=logging.CRITICAL,  # what matters becomes a failure or an exception
            ) as cluster,
        ):
            yield cluster
    except KeyboardInterrupt:
        for handler in logging.getLogger("distributed").handlers:
            handler.setLevel(logging.CRITICAL)  # connections cut in the middle complain until the process ends
        raise
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
