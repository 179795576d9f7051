"""Run a function on the volumes of a cohort and keep the record of failures."""

from collections.abc import Callable, Sequence
from typing import Any

from mri_io.errors import ElementNotFoundError
from mri_io.prep.runner import run_tasks
from mri_io.prep.summary import PrepSummary, TaskFailure
from mri_io.store.cohort import Cohort, open_cohort
from mri_io.store.remote.paths import AnyPath
from mri_io.store.volume import Volume, open_volume

__all__ = ["prepare_cohort"]


class _OnPath:
    """Open the volume where the work is done: only its path travels."""

    def __init__(self, function: Callable[[Volume], dict[str, Any]]) -> None:
        self.function = function

    def __call__(self, path: AnyPath) -> dict[str, Any]:
        return self.function(open_volume(path))


def prepare_cohort(
    cohort: str | AnyPath | Cohort,
    function: Callable[[Volume], dict[str, Any]],
    *,
    volumes: Sequence[str] | None = None,
    split: str | None = None,
    part: str | None = None,
    scheduler: str = "sync",
    description: str = "",
    retries: int = 2,
    progress: bool = True,
    memory: int | Callable[[Volume], int] | None = None,
) -> PrepSummary:
    """Call ``function(volume)`` for every chosen volume; see `run_tasks`.

    A volume that fails gets a row in ``failures.jsonl`` with `description` as its stage; a later success clears it.

    Parameters
    ----------
    cohort
        The cohort or its path.
    function
        Idempotent; returns ``{"status": "done" | "skipped", ...}``. Picklable for the dask schedulers.
    volumes
        Volume ids; by default those of `part` of `split`, or all.
    split, part
        Part of a split.
    scheduler, description, retries, progress
        See `run_tasks`.
    memory
        Bytes that the work on a volume holds at most beside its process, or a function of the volume.

    Raises
    ------
    ElementNotFoundError
        When there is no volume, or none in the part.
    """
    opened = cohort if isinstance(cohort, Cohort) else open_cohort(cohort)
    chosen = [opened[v] for v in volumes] if volumes is not None else opened.volumes(split, part)
    if volumes is None and not chosen:
        where = f"{opened.path} (split {split or 'default'!r}, part {part!r})" if part else opened.path
        raise ElementNotFoundError(f"{where}: expected volumes to work on, found none.")
    labels = [volume.id for volume in chosen]
    items = {volume.path.resolve(): volume for volume in chosen}

    def record(label: str, outcome: dict[str, Any] | TaskFailure) -> None:
        opened.clear_failure(label, description)
        if isinstance(outcome, TaskFailure):
            opened.record_failure(label, outcome.error, description, trace=outcome.traceback)

    return run_tasks(
        _OnPath(function),
        list(items),
        scheduler=scheduler,
        retries=retries,
        description=description,
        labels=labels,
        progress=progress,
        on_done=record,
        memory=(lambda path: memory(items[path])) if callable(memory) else memory,
    )
