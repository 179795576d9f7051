"""Where tasks run: a dask cluster that is there, jobs of SLURM, or workers on this machine."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from mri_io.errors import ConfigError, StoreError, expected_got

__all__ = ["check_scheduler", "dask_client", "workers_wanted"]

_log = logging.getLogger(__name__)

CONNECT_WITHIN_S, WORKERS_WITHIN_S = 20, 30
"""How long a scheduler is given to answer, and then to get its first worker."""

_SCHEDULER = re.compile(r"sync|(?:local|slurm)(?::([1-9][0-9]*))?|(?:tcp|tls)://\S+")


def check_scheduler(scheduler: str) -> None:
    """Raise ConfigError unless the scheduler's name is known."""
    if not _SCHEDULER.fullmatch(scheduler):
        expected = "sync, local[:N], slurm[:N] or tcp://host:port"
        raise ConfigError(expected_got("scheduler", expected=expected, got=repr(scheduler)))


def workers_wanted(scheduler: str, items: int) -> int | None:
    """Return how many workers are to be started for so many items; None for a scheduler that has its own."""
    if "://" in scheduler:
        return None
    if scheduler == "sync":
        return 1
    found = _SCHEDULER.fullmatch(scheduler)
    if found and found[1]:
        return max(1, min(int(found[1]), items))
    if scheduler == "slurm":
        from mri_io.prep.slurm import DEFAULT_JOBS

        return max(1, min(DEFAULT_JOBS, items))
    from dask.system import CPU_COUNT

    return max(1, min(CPU_COUNT, items))


@contextmanager
def dask_client(scheduler: str, workers: int | None, memory: int | None, tell: Callable[[str], None]) -> Iterator[Any]:
    """Yield a dask client of a scheduler, as `mri_io.prep.run_tasks` names it; what was started for it ends with it.

    Parameters
    ----------
    scheduler
        ``local[:N]``, ``slurm[:N]`` or ``tcp://host:port``.
    workers
        How many local workers, or jobs at most.
    memory
        Bytes that a process needs, where known; for jobs.
    tell
        Called with what the user may want to know.

    Raises
    ------
    StoreError
        When no scheduler answers at the address, or it has no workers.
    """
    from distributed import Client

    if "://" in scheduler:
        with _connected(scheduler) as client:
            _tell_dashboard(client, tell)
            yield client
        return
    if scheduler.startswith("slurm"):
        from mri_io.prep.slurm import slurm_cluster

        started = slurm_cluster(workers or 1, memory, tell)
    else:
        from mri_io.prep.local import local_cluster

        started = local_cluster(workers or 1)
    try:
        with started as cluster, Client(cluster, set_as_default=False) as client:
            _tell_dashboard(client, tell)
            yield client
    except KeyboardInterrupt:
        for handler in logging.getLogger("distributed").handlers:
            handler.setLevel(logging.CRITICAL)  # connections cut in the middle complain until the process ends
        raise


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_WITHIN_S, set_as_default=False)
    except OSError as error:
        raise StoreError(f"{address}: no dask scheduler answers there ({error}). Start one: dask scheduler") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_WITHIN_S)
        except TimeoutError:
            raise StoreError(
                f"{address}: the dask scheduler has no workers. Start one: dask worker {address}"
            ) from None
        yield client


def _tell_dashboard(client: Any, tell: Callable[[str], None]) -> None:
    """Tell where the dashboard is; to the log only how to get one, since most runs need none."""
    if client.run_on_scheduler(find_spec, "bokeh") is None:  # without it a scheduler has an empty page
        _log.info("no dask dashboard. For one, where the scheduler runs: pip install 'mri-io[dashboard]'")
    elif client.dashboard_link:
        tell(f"dask dashboard: {client.dashboard_link}")
