"""Export elements of a cohort with any exporter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mri_io.config import validate_config
from mri_io.errors import ConfigError, ElementNotFoundError, MriError, expected_got
from mri_io.export.base import DataSetExporter, ElementExporter, Exporter, ExportItem, ExportOptions
from mri_io.export.elements import ExportSummary, export_elements, named, write_whole
from mri_io.export.publishing import appearing, check_absent
from mri_io.export.table import exporter_class
from mri_io.prep.cluster import check_scheduler
from mri_io.prep.progress import progress_report
from mri_io.store.cohort import Cohort, open_cohort
from mri_io.store.durable import storage_errors
from mri_io.store.element import Element

__all__ = ["ExportSummary", "export", "export_cohort", "exported_files", "make_exporter"]


def make_exporter(format: str, **options: Any) -> Exporter:
    """Return an exporter.

    Parameters
    ----------
    format
        One of `mri_io.export.exporter_names`.
    **options
        Fields of `ExportOptions`; those that are None are left at their defaults.

    Raises
    ------
    ConfigError
        For an unknown format, an unknown option, or one that the format does not follow.
    """
    kind = exporter_class(format)
    given = {name: value for name, value in options.items() if value is not None}
    return kind(validate_config(ExportOptions, given, where="export"))


def exported_files(
    element: Element, out: str | Path, format: str, *, replace: bool = False, **options: Any
) -> list[Path]:
    """Return the files that `export` would write, and raise what it would raise before it writes them."""
    return _targets(_of_elements(make_exporter(format, **options)), ExportItem(element), Path(out), replace=replace)


def export(element: Element, out: str | Path, format: str, *, replace: bool = False, **options: Any) -> list[Path]:
    """Write an element in another format.

    Parameters
    ----------
    element
        The element.
    out
        Folder for the files, which are named after volume and element, and after `part` where it is not the magnitude.
        They appear whole or not at all.
    format
        One of `mri_io.export.exporter_names`.
    replace
        Overwrite files that exist.
    **options
        Fields of `ExportOptions` that the format follows, such as ``part``.

    Returns
    -------
    list of pathlib.Path
        The files, or folders, written.

    Raises
    ------
    ConfigError
        For an unknown format or option, or an element that the format cannot hold.
    ElementExistsError
        When a file exists and `replace` is false.
    StoreError
        When the files cannot be written.
    """
    exporter, item = _of_elements(make_exporter(format, **options)), ExportItem(element)
    targets = _targets(exporter, item, Path(out), replace=replace)
    write_whole(exporter, item, targets, Path(out))
    return targets


def export_cohort(
    cohort: str | Path | Cohort,
    element: str,
    out: str | Path,
    format: str,
    *,
    volumes: Sequence[str] | None = None,
    subjects: str | None = None,
    replace: bool = False,
    skip_existing: bool = False,
    scheduler: str = "sync",
    progress: bool = True,
    **options: Any,
) -> ExportSummary:
    """Export one element of the volumes that have it.

    A volume that fails, because it is damaged or the format cannot hold its element, does not keep the others from
    being written. A data set of all volumes is written whole or not at all.

    Parameters
    ----------
    cohort
        The cohort or its path.
    element
        Path of the element in each volume.
    out, format, replace, **options
        See `export`; also formats that write the cohort as one data set. Nothing is written when any of the files
        exists and neither `replace` nor `skip_existing` is true.
    volumes
        Ids of volumes; by default all that have the element.
    subjects
        ``train``, ``val`` or ``test``: that part of the split that the option ``split`` names, or of ``default``.
    skip_existing
        Leave out volumes whose files are all there, without a look at what is in them: an export that was interrupted,
        or in which volumes failed, goes on with what is missing.
    scheduler, progress
        See `mri_io.prep.run_tasks`. A data set of all volumes is written in this process.

    Returns
    -------
    ExportSummary
        The files, or folders, written, and the volumes that failed.

    Raises
    ------
    ElementNotFoundError
        When no volume, or one that is named, has no such element.
    ConfigError, ElementExistsError, StoreError
        See `export`; of what is wrong with volumes the first, when it is so with all of them.
    """
    if replace and skip_existing:
        raise ConfigError(expected_got("files that exist", expected="replace or skip_existing", got="both"))
    check_scheduler(scheduler)
    opened, folder = cohort if isinstance(cohort, Cohort) else open_cohort(cohort), Path(out)
    exporter = make_exporter(format, **_for_exporter(format, options, subjects))
    if not isinstance(exporter, DataSetExporter):
        opened = Cohort(opened.path.resolve(), opened.metadata)  # workers may be in another folder
    items, damaged = _items(opened, element, volumes, options.get("split"), subjects)
    if isinstance(exporter, DataSetExporter):
        if scheduler != "sync":
            expected = f"sync for {exporter.name}, which is written as a whole"
            raise ConfigError(expected_got("scheduler", expected=expected, got=repr(scheduler)))
        for error in damaged.values():
            raise error
        return _export_data_set(
            exporter, opened, items, folder, replace=replace, skip_existing=skip_existing, progress=progress
        )
    return export_elements(
        _of_elements(exporter),
        items,
        damaged,
        folder,
        replace=replace,
        skip_existing=skip_existing,
        scheduler=scheduler,
        progress=progress,
    )


def _export_data_set(
    exporter: DataSetExporter,
    cohort: Cohort,
    items: Sequence[ExportItem],
    folder: Path,
    *,
    replace: bool,
    skip_existing: bool,
    progress: bool,
) -> ExportSummary:
    """Export all items as one data set, whole or not at all."""
    target = folder / exporter.folder_name(cohort, items)
    if skip_existing and target.exists():
        return ExportSummary("export", [{"status": "skipped", "files": []}])
    check_absent([target], replace=replace)
    with (
        progress_report(len(items), "export", shown=progress) as advance,
        storage_errors(folder),
        appearing([target]) as (temporary,),
    ):
        exporter.write(cohort, items, temporary, lambda volume: advance(volume, False))
    return ExportSummary("export", [{"status": "done", "files": [target]}])


def _for_exporter(format: str, options: dict[str, Any], subjects: str | None) -> dict[str, Any]:
    """Return options without a split that chooses volumes only."""
    choosing = subjects is not None and "split" not in exporter_class(format).options
    return {name: value for name, value in options.items() if not (choosing and name == "split")}


def _items(
    cohort: Cohort, element: str, volumes: Sequence[str] | None, split: str | None, subjects: str | None
) -> tuple[list[ExportItem], dict[str, MriError]]:
    """Return the elements of the volumes that are chosen, and by volume what is damaged."""
    damaged: dict[str, MriError] = {}
    if volumes:
        ids = list(dict.fromkeys(volumes))
    else:
        ids = [volume.id for volume in cohort.volumes(split, subjects, on_damage=damaged.__setitem__)]
    items = []
    for volume_id in ids:
        try:
            volume = cohort[volume_id]
            if volumes or element in volume:
                items.append(ExportItem(volume[element]))
        except ElementNotFoundError:
            raise
        except MriError as error:
            damaged[volume_id] = error
    if not items and not damaged:
        which = f"no volume of part {subjects!r}" if subjects else "no volume"
        raise ElementNotFoundError(
            f"{cohort.path}: {which} has an element {element!r}. List them: mri-cli ls {cohort.path}"
        )
    return items, damaged


def _of_elements(exporter: Exporter) -> ElementExporter:
    if not isinstance(exporter, ElementExporter):
        raise ConfigError(f"{exporter.name} writes a cohort as one data set, not an element: use export_cohort.")
    return exporter


def _targets(exporter: ElementExporter, item: ExportItem, out: Path, *, replace: bool) -> list[Path]:
    targets = named(exporter, item, out)
    check_absent(targets, replace=replace)
    return targets
