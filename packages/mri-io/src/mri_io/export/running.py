"""Export elements of a cohort with any exporter."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mri_io.config import validate_config
from mri_io.errors import ConfigError, ElementNotFoundError
from mri_io.export.base import DataSetExporter, ElementExporter, Exporter, ExportItem, ExportOptions
from mri_io.export.publishing import appearing, check_absent
from mri_io.export.table import exporter_class
from mri_io.prep.progress import progress_report
from mri_io.store.cohort import Cohort, open_cohort
from mri_io.store.durable import storage_errors
from mri_io.store.element import Element

__all__ = ["export", "export_cohort", "exported_files", "make_exporter"]


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
    _write(exporter, item, targets, Path(out))
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
    progress: bool = True,
    **options: Any,
) -> list[Path]:
    """Export one element of the volumes that have it.

    Parameters
    ----------
    cohort
        The cohort or its path.
    element
        Path of the element in each volume.
    out, format, replace, **options
        See `export`; also formats that write the cohort as one data set. Nothing is written when any of the files
        exists and `replace` is false.
    volumes
        Ids of volumes; by default all that have the element.
    subjects
        ``train``, ``val`` or ``test``: that part of the split that the option ``split`` names, or of ``default``.
    progress
        Report on standard error.

    Returns
    -------
    list of pathlib.Path
        The files, or folders, written.

    Raises
    ------
    ElementNotFoundError
        When no volume, or one that is named, has no such element.
    ConfigError, ElementExistsError, StoreError
        See `export`.
    """
    opened, folder = cohort if isinstance(cohort, Cohort) else open_cohort(cohort), Path(out)
    exporter = make_exporter(format, **_for_exporter(format, options, subjects))
    items = _items(opened, element, volumes, options.get("split"), subjects)
    if isinstance(exporter, DataSetExporter):
        target = folder / exporter.folder_name(opened, items)
        check_absent([target], replace=replace)
        with (
            progress_report(len(items), "export", shown=progress) as advance,
            storage_errors(folder),
            appearing([target]) as (temporary,),
        ):
            exporter.write(opened, items, temporary, lambda volume: advance(volume, False))
        return [target]
    exporter = _of_elements(exporter)
    planned = [_targets(exporter, item, folder, replace=replace) for item in items]
    number, most = Counter(target for targets in planned for target in targets).most_common(1)[0]
    if most > 1:
        raise ConfigError(f"{number}: {most} of the volumes would be written to it. Name one of them: --volume")
    with progress_report(len(items), "export", shown=progress) as advance:
        for item, targets in zip(items, planned, strict=True):
            _write(exporter, item, targets, folder)
            advance(item.element.volume_id, False)
    return [target for targets in planned for target in targets]


def _for_exporter(format: str, options: dict[str, Any], subjects: str | None) -> dict[str, Any]:
    """Return options without a split that chooses volumes only."""
    choosing = subjects is not None and "split" not in exporter_class(format).options
    return {name: value for name, value in options.items() if not (choosing and name == "split")}


def _items(
    cohort: Cohort, element: str, volumes: Sequence[str] | None, split: str | None, subjects: str | None
) -> list[ExportItem]:
    if volumes:
        chosen = [cohort[volume] for volume in volumes]
    else:
        chosen = [volume for volume in cohort.volumes(split, subjects) if element in volume]
    if not chosen:
        which = f"no volume of part {subjects!r}" if subjects else "no volume"
        raise ElementNotFoundError(
            f"{cohort.path}: {which} has an element {element!r}. List them: mri-cli ls {cohort.path}"
        )
    return [ExportItem(volume[element]) for volume in chosen]


def _of_elements(exporter: Exporter) -> ElementExporter:
    if not isinstance(exporter, ElementExporter):
        raise ConfigError(f"{exporter.name} writes a cohort as one data set, not an element: use export_cohort.")
    return exporter


def _targets(exporter: ElementExporter, item: ExportItem, out: Path, *, replace: bool) -> list[Path]:
    exporter.part_of(item.element)
    targets = [out / name for name in exporter.names(item)]
    check_absent(targets, replace=replace)
    return targets


def _write(exporter: ElementExporter, item: ExportItem, targets: Sequence[Path], out: Path) -> None:
    with storage_errors(out), appearing(targets) as temporary:
        exporter.write(item, temporary)
