"""Run a function on the volumes of a cohort and keep the record of failures."""

from collections.abc import Callable, Sequence
from typing import Any

from mri_io.errors import ConfigError, CorruptElementError, ElementNotFoundError, MriError, VersionError, expected_got
from mri_io.prep.runner import AGAIN, run_tasks
from mri_io.prep.summary import PrepSummary, TaskFailure
from mri_io.store.cohort import Cohort, open_cohort
from mri_io.store.remote.paths import AnyPath
from mri_io.store.volume import Volume, open_volume

__all__ = ["check_choice", "prepare_cohort"]


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
    again: str = AGAIN,
    check: Callable[[Volume], Any] | None = None,
) -> PrepSummary:
    """Call ``function(volume)`` for every chosen volume; see `run_tasks`.

    A volume that fails gets a row in ``failures.jsonl`` with `description` as its stage; a later success clears it. So
    does a volume whose metadata are damaged, and the others are worked on.

    Parameters
    ----------
    cohort
        The cohort or its path.
    function
        Idempotent; returns ``{"status": "done" | "skipped", ...}``. Picklable for the dask schedulers.
    volumes
        Volume ids; by default those of `part` of `split`, or all. A volume that is named twice is worked on once.
    split, part
        Part of a split, of ``default`` where no split is named. Not beside `volumes`, and no split without a part.
    scheduler, description, retries, progress, again
        See `run_tasks`.
    memory
        Bytes that the work on a volume holds at most beside its process, or a function of the volume.
    check
        Raises what keeps the work on a volume from succeeding, as far as metadata tell. Where that is so for every
        volume the command is at fault, not the volumes: nothing is begun, and nothing recorded.

    Raises
    ------
    ConfigError
        For a split without a part, or a part beside volumes; for work that `check` refuses for all volumes.
    ElementNotFoundError
        When there is no volume, or none in the part, or none of an id that is named.
    """
    check_choice(volumes, split, part)
    opened = cohort if isinstance(cohort, Cohort) else open_cohort(cohort)
    items = {
        (opened.volumes_path / f"{volume_id}.zarr").resolve(): volume_id
        for volume_id in _chosen(opened, volumes, split, part)
    }

    if check is not None:
        _check_any(check, list(items), description)

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
        labels=list(items.values()),
        progress=progress,
        on_done=record,
        memory=(lambda path: memory(open_volume(path))) if callable(memory) else memory,
        again=again,
    )


def _check_any(check: Callable[[Volume], Any], paths: Sequence[AnyPath], description: str) -> None:
    """Raise ConfigError when a check refuses every volume whose metadata can be read."""
    refused: list[MriError] = []
    for path in paths:
        try:
            check(open_volume(path))
        except (CorruptElementError, VersionError):
            continue  # a failure of that volume
        except MriError as error:
            refused.append(error)
        else:
            return
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise ConfigError(f"{description}: none of {len(refused)} volumes can be worked on. The first: {refused[0]}")


def check_choice(volumes: Sequence[str] | None, split: str | None, part: str | None) -> None:
    """Raise ConfigError for choices of volumes of which one would be ignored."""
    if part is None and split is not None:
        raise ConfigError(expected_got("part", expected=f"that of split {split!r}: train, val or test", got="none"))
    if part is not None and volumes is not None:
        raise ConfigError(expected_got("choice of volumes", expected="volumes or a part of a split", got="both"))


def _chosen(cohort: Cohort, volumes: Sequence[str] | None, split: str | None, part: str | None) -> list[str]:
    """Return the ids of volumes, each once; damaged ones are among them, so that their errors are recorded."""
    if volumes is not None:
        for volume_id in volumes:
            if volume_id not in cohort:
                cohort[volume_id]  # raises, with the list of volumes
        return list(dict.fromkeys(volumes))
    damaged: list[str] = []
    found = cohort.volumes(split, part, on_damage=lambda volume_id, _: damaged.append(volume_id))
    if not found and not damaged:
        where = f"{cohort.path} (split {split or 'default'!r}, part {part!r})" if part else cohort.path
        raise ElementNotFoundError(f"{where}: expected volumes to work on, found none.")
    return sorted([*(volume.path.name.removesuffix(".zarr") for volume in found), *damaged])
