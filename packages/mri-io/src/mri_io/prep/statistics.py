"""Compute the statistics of a cohort on any scheduler."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from mri_io.errors import MriError, StoreError
from mri_io.prep.runner import NOTHING_KEPT, run_tasks
from mri_io.prep.summary import TaskFailure
from mri_io.store.cohort import Cohort
from mri_io.store.splits import Split
from mri_io.store.statistics import Elements, compute_statistics

__all__ = ["cohort_statistics"]

VALUE_BYTES, COUNTS_BYTES = 64, 4 * 2**20
"""Held for each value of a slice beside itself: magnitudes, squares in double precision, and keys of 64 bits. And
histograms."""


def cohort_statistics(
    cohort: Cohort,
    elements: Sequence[str],
    *,
    split: str | Split = "default",
    name: str | None = None,
    scheduler: str = "sync",
    progress: bool = True,
) -> dict[str, Any]:
    """Compute statistics volume by volume; parameters and result are those of `mri_io.store.compute_statistics`.

    Parameters
    ----------
    cohort, elements, split, name
        See `mri_io.store.compute_statistics`.
    scheduler, progress
        See `run_tasks`.

    Raises
    ------
    ElementNotFoundError, StoreError
        See `mri_io.store.compute_statistics`. The first volume that fails ends the work.
    """
    passes = iter(("stats, pass 1 of 2", "stats, pass 2 of 2"))

    def each(
        function: Callable[[Elements], Any], volumes: Mapping[str, Elements], take: Callable[[str, Any], None]
    ) -> None:
        def on_done(volume_id: str, outcome: dict[str, Any] | TaskFailure) -> None:
            if isinstance(outcome, TaskFailure):
                _fail(outcome)
            take(volume_id, outcome.pop("found"))  # added up at once, not kept for all volumes

        run_tasks(
            _Found(function),
            list(volumes.values()),
            scheduler=scheduler,
            description=next(passes),
            labels=list(volumes),
            progress=progress,
            on_done=on_done,
            memory=_memory,
            again=NOTHING_KEPT,
        )

    place = Cohort(cohort.path.resolve(), cohort.metadata)  # workers may be in another folder
    return compute_statistics(place, elements, split=split, name=name, each=each)


class _Found:
    """Do a pass over a volume; runs in a worker."""

    def __init__(self, function: Callable[[Elements], Any]) -> None:
        self.function = function

    def __call__(self, elements: Elements) -> dict[str, Any]:
        return {"status": "done", "found": self.function(elements)}


def _memory(elements: Elements) -> int:
    slices = (math.prod(element.shape[1:]) * (VALUE_BYTES + element.dtype.itemsize) for element in elements.values())
    return COUNTS_BYTES + max(slices)


def _fail(failure: TaskFailure) -> NoReturn:
    """Raise the error of a volume, under its id where the message may not have it."""
    if isinstance(failure.exception, MriError):
        failure.reraise()
    raise StoreError(f"{failure.label}: {failure.error}") from failure.exception
