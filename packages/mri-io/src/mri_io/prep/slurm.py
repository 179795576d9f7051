"""Workers as jobs of SLURM, through dask-jobqueue and its configuration."""

import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Event
from typing import Any

from mri_io.errors import ConfigError, StoreError, expected_got
from mri_io.formats.base import import_extra
from mri_io.prep.local import WORKER_ENVIRONMENT

__all__ = ["DEFAULT_JOBS", "slurm_cluster"]

DEFAULT_JOBS = 8
"""How many jobs ``slurm`` submits at most."""
DEFAULT_MEMORY, SPARE = 4 * 10**9, 1.25
"""Of a job's process where neither the configuration nor the work states it; else what is added to what is needed:
SLURM ends a job that takes a byte too much."""
_LIMITS = ("TARGET", "SPILL", "PAUSE", "TERMINATE")


@contextmanager
def slurm_cluster(jobs: int, memory: int | None, tell: Callable[[str], None]) -> Iterator[Any]:
    """Yield a cluster whose workers are jobs, submitted while there is work for them and ended when there is none.

    Everything about the jobs comes from dask's configuration, ``jobqueue.slurm`` (queue, account, walltime, memory,
    ...). A job has one process for each of its ``cores``, by default one, and each process one thread.

    Parameters
    ----------
    jobs
        How many there are at most at a time.
    memory
        Bytes for each process where the configuration does not state the memory of a job.
    tell
        Called with what the user may want to know.

    Raises
    ------
    ConfigError
        When this machine has no ``sbatch``.
    MissingPackageError
        Without dask-jobqueue.
    StoreError
        When SLURM refuses the first job, or, after the last one has ended, all further ones.
    """
    if shutil.which("sbatch") is None:
        fix = "Run the command on a login node of the cluster, or choose --scheduler local."
        raise ConfigError(expected_got("slurm", expected="the command sbatch", got="none on this machine", fix=fix))
    cluster_class, job_class = _classes()
    import dask

    submissions = _Submissions(tell)
    # A task counts for long until the first has been measured, so that every waiting task asks for a worker.
    with dask.config.set({"distributed.scheduler.unknown-task-duration": "1h"}):
        cluster = cluster_class(job_cls=submissions.watched(job_class), **_options(memory))
    with cluster:
        submissions.cluster = cluster
        cluster.scale(jobs=1)
        submissions.answered.wait()
        if submissions.refused:
            raise submissions.error()
        tell(f"slurm: up to {jobs} jobs; the first is submitted (squeue --me)")
        cluster.adapt(minimum_jobs=0, maximum_jobs=jobs, interval="1s", target_duration="1s", wait_count=3)
        try:
            yield cluster
        except StoreError as error:
            raise (submissions.error() if submissions.refused else error) from error


class _Submissions:
    """What sbatch answers: dask only logs its errors and would wait for ever."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.answered = Event()
        self.refused = ""
        self.cluster: Any = None

    def watched(self, job_class: Any) -> Any:
        """Return a class of jobs that tell this object how their submission went."""
        from distributed.core import Status

        submissions = self

        class Job(job_class):  # type: ignore[misc]
            async def start(self) -> None:
                try:
                    await super().start()
                except (RuntimeError, ValueError, OSError) as error:
                    self.status = Status.running  # or dask complains of it; there is nothing to close
                    await submissions.refuse(str(error))
                submissions.answered.set()

        return Job

    async def refuse(self, reason: str) -> None:
        """Note that a job was refused; with no other job the work ends."""
        further = self.answered.is_set()
        self.refused = reason.strip()
        if further and any(job.job_id for job in self.cluster.workers.values()):
            self.tell(f"slurm: a further job was refused; the work goes on in those there are. {self.refused}")
        elif further:
            await self.cluster.scheduler.close()

    def error(self) -> StoreError:
        """Return what is raised for a refused job."""
        return StoreError(
            f"slurm: no job was accepted. {self.refused}\nIts options come from dask's configuration, jobqueue.slurm "
            "(queue, account, walltime, memory, ...): see docs/preparation.md."
        )


def _classes() -> tuple[Any, Any]:
    """Return the classes of dask-jobqueue, whose import makes Ctrl-C end the process with status 0."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        module = import_extra("dask_jobqueue.slurm", "slurm")
    finally:
        signal.signal(signal.SIGINT, handler)
    return module.SLURMCluster, module.SLURMJob


def _options(memory: int | None) -> dict[str, Any]:
    """Return what is passed to dask-jobqueue beside its configuration."""
    import dask

    def configured(key: str, otherwise: Any) -> Any:
        found = dask.config.get(f"jobqueue.slurm.{key}", None)
        return otherwise if found is None else found

    cores = int(configured("cores", 1))
    process = DEFAULT_MEMORY if memory is None else max(int(SPARE * memory), 10**9)
    # SLURM watches the memory; dask would count mapped pages of files, which the system takes back.
    unwatched = {f"DASK_DISTRIBUTED__WORKER__MEMORY__{limit}": "False" for limit in _LIMITS}
    environment = [f"export {name}={value}" for name, value in (WORKER_ENVIRONMENT | unwatched).items()]
    dashboard = {"dashboard": find_spec("bokeh") is not None, "dashboard_address": ":0"}
    return {
        "cores": cores,
        "processes": cores,
        "memory": configured("memory", cores * process),
        "job_script_prologue": [*configured("job-script-prologue", []), *environment],
        "worker_extra_args": [*configured("worker-extra-args", []), "--no-dashboard"],
        "scheduler_options": {**dashboard, **configured("scheduler-options", {})},
        "silence_logs": logging.CRITICAL,
    }
