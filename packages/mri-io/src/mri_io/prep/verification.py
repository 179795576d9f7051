"""Verify the volumes of a cohort on any scheduler."""

from functools import partial
from typing import Any

from mri_io.prep.runner import NOTHING_KEPT, run_tasks
from mri_io.store.remote.paths import AnyPath
from mri_io.store.verification import (
    VerifyReport,
    folders_to_verify,
    unfinished,
    verify_documents,
    verify_folder,
)

__all__ = ["verify_cohort"]


def verify_cohort(
    cohort: AnyPath, *, fast: bool = False, scheduler: str = "sync", progress: bool = True
) -> VerifyReport:
    """Check everything of a cohort, volume by volume; the report is that of `mri_io.store.verify`.

    Nothing is written, so that a cohort that can only be read is verified, too.

    Parameters
    ----------
    cohort
        The cohort's folder or URL.
    fast
        See `mri_io.store.verify`.
    scheduler, progress
        See `run_tasks`.
    """
    place = cohort.resolve()  # workers may be in another folder
    report, folders = verify_documents(place), folders_to_verify(place)
    summary = run_tasks(
        partial(_verified, fast=fast),
        folders,
        scheduler=scheduler,
        description="verify",
        labels=[folder.name.removesuffix(".zarr") for folder in folders],
        progress=progress,
        again=NOTHING_KEPT,
    )
    for result in summary.results:
        report.add(result["report"])
    report.unchecked |= {failure.label: failure.error for failure in summary.failures}
    report.orphans += unfinished(place)
    return report


def _verified(folder: AnyPath, *, fast: bool) -> dict[str, Any]:
    return {"status": "done", "report": verify_folder(folder, fast=fast)}
