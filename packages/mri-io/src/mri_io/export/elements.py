"""Export the volumes of a cohort one by one, each to files of its own, on any scheduler."""

import traceback
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mri_io.errors import ConfigError, MriError
from mri_io.export.base import ElementExporter, ExportItem
from mri_io.export.publishing import appearing, check_absent, remove_unfinished, require_folder
from mri_io.prep.runner import AGAIN, run_tasks
from mri_io.prep.summary import PrepSummary, TaskFailure
from mri_io.store.durable import storage_errors

__all__ = ["ExportSummary", "export_elements", "named", "write_whole"]

SKIPPING = "with --skip-existing the same command goes on with the rest"


class ExportSummary(PrepSummary):
    """Outcome of an export: a result for each volume, or for the data set; failures are by volume."""

    @property
    def files(self) -> list[Path]:
        """The files, or folders, that were written."""
        return [file for result in self.results for file in result["files"]]


@dataclass(frozen=True)
class _Task:
    """An element and what is to be written of it, in places that are the same in every process."""

    item: ExportItem
    targets: tuple[Path, ...]


class _Write:
    """Write one element; runs in a worker."""

    def __init__(self, exporter: ElementExporter, folder: Path, mark: str, *, skip_existing: bool) -> None:
        self.exporter, self.folder, self.mark, self.skip_existing = exporter, folder, mark, skip_existing

    def __call__(self, task: _Task) -> dict[str, Any]:
        there = self.skip_existing and all(target.exists() for target in task.targets)
        if not there:
            write_whole(self.exporter, task.item, task.targets, self.folder, self.mark)
        return {"status": "skipped" if there else "done", "volume": task.item.element.volume_id}


def export_elements(
    exporter: ElementExporter,
    items: Sequence[ExportItem],
    damaged: Mapping[str, MriError],
    folder: Path,
    *,
    replace: bool,
    skip_existing: bool,
    scheduler: str,
    progress: bool,
) -> ExportSummary:
    """Export each item to files of its own; raise the first of the errors, also of `damaged` volumes, when all fail.

    Parameters
    ----------
    exporter
        Writes the files. Picklable for the dask schedulers.
    items
        An element of each volume, with absolute paths.
    damaged
        By id, the errors of volumes whose metadata cannot be read.
    folder, replace, skip_existing, scheduler, progress
        See `mri_io.export.export_cohort`.
    """
    planned, refused = _plan(exporter, items, folder)
    _check_distinct(planned)
    if not skip_existing:
        check_absent([target for targets in planned.values() for target in targets], replace=replace)
    if planned:
        require_folder(folder)
    tasks = [
        _Task(item, tuple(target.absolute() for target in planned[item.element.volume_id]))  # workers may be elsewhere
        for item in items
        if item.element.volume_id in planned
    ]
    mark = uuid.uuid4().hex[:8]
    try:
        done = run_tasks(
            _Write(exporter, folder.absolute(), mark, skip_existing=skip_existing),
            tasks,
            scheduler=scheduler,
            description="export",
            labels=list(planned),
            progress=progress,
            memory=lambda task: exporter.memory(task.item),
            again=AGAIN if skip_existing else SKIPPING,
        )
    finally:
        if scheduler.startswith("local"):  # others may be at work still
            remove_unfinished([target for task in tasks for target in task.targets], mark)
    failures = [_failure(volume_id, error) for volume_id, error in {**damaged, **refused}.items()] + done.failures
    if not done.results:
        failures[0].reraise()
    results = [
        {"status": result["status"], "files": planned[result["volume"]] if result["status"] == "done" else []}
        for result in done.results
    ]
    notes = ["Once that is mended, --skip-existing goes on with what is missing."] if failures else []
    return ExportSummary("export", results, sorted(failures, key=lambda failure: failure.label), notes)


def named(exporter: ElementExporter, item: ExportItem, out: Path) -> list[Path]:
    """Return the files of an element; ConfigError when the format cannot hold it."""
    exporter.part_of(item.element)
    return [out / name for name in exporter.names(item)]


def write_whole(
    exporter: ElementExporter, item: ExportItem, targets: Sequence[Path], out: Path, mark: str = ""
) -> None:
    """Write the files of an element, all or none; see `mri_io.export.publishing.appearing`."""
    with storage_errors(out), appearing(targets, mark) as temporary:
        exporter.write(item, temporary)


def _plan(
    exporter: ElementExporter, items: Sequence[ExportItem], folder: Path
) -> tuple[dict[str, list[Path]], dict[str, MriError]]:
    """Return the files of each volume, and by volume why there are none."""
    planned: dict[str, list[Path]] = {}
    refused: dict[str, MriError] = {}
    for item in items:
        try:
            planned[item.element.volume_id] = named(exporter, item, folder)
        except MriError as error:
            refused[item.element.volume_id] = error
    return planned, refused


def _check_distinct(planned: Mapping[str, Sequence[Path]]) -> None:
    for target, count in Counter(target for targets in planned.values() for target in targets).most_common(1):
        if count > 1:
            raise ConfigError(f"{target}: {count} of the volumes would be written to it. Name one of them: --volume")


def _failure(volume_id: str, error: MriError) -> TaskFailure:
    return TaskFailure(volume_id, volume_id, str(error), "".join(traceback.format_exception(error)), error)
