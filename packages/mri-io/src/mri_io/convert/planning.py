"""What a conversion will make: which file becomes which volume, with which label maps."""

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mri_io.convert.given_labels import LabelFile
from mri_io.convert.numbering import CohortNumbers, SourceName, without_patient
from mri_io.errors import ConfigError, MriError, StoreError, expected_got
from mri_io.formats import get_format
from mri_io.formats.base import Identity, SourceItem, place_pseudonym
from mri_io.formats.images.files import ENDINGS, image_stem
from mri_io.formats.images.label_names import read_label_names
from mri_io.formats.names import stored_name
from mri_io.prep.summary import counted
from mri_io.schema.elements import SCHEMA_VERSION
from mri_io.store.cohort import Cohort

__all__ = ["ConversionTask", "label_note", "match_labels", "plan_conversion"]


MOST_NAMED = 5


@dataclass(frozen=True)
class ConversionTask:
    """One volume to make.

    `source` is None when the file does not let itself be identified; `problem` says why it cannot be made, where that
    is known.
    """

    item: SourceItem
    source: SourceName | None = None
    volume_id: str = ""
    labels: tuple[LabelFile, ...] = ()
    problem: str = ""

    @property
    def identity(self) -> Identity | None:
        """Whose scan it is, where that is known."""
        return self.source.identity if self.source is not None else None

    def settings(self, schema_version: str = SCHEMA_VERSION) -> dict[str, Any]:
        """Return the options that decide what is made, for provenance and resuming.

        A volume of an older minor version is the same volume: its settings are those with its own version.
        """
        declared = {label.name: {str(k): v for k, v in label.labels.items()} for label in self.labels}
        for name, ids in self.item.options.get("labels", {}).items():
            declared[name] = {str(k): v for k, v in ids.items()}
        return {
            "format": self.item.format,
            "labels": declared,
            "schema_version": schema_version,
            "group": stored_name(self.item.options["group"]) if "group" in self.item.options else "",
            **self.item.choices.chosen(),
        }

    def recorded_as(self) -> set[str]:
        """Return what rows of the record of failures may call this task, or one of its files alone.

        A file that is part of a series is an item of its own as long as it cannot be read; and while it does not say
        whose it is, nothing is redacted in its name.
        """
        folder, names = PurePosixPath(self.item.label).parent, {self.item.label}
        for file in self.item.files:
            beside = os.path.relpath(file, self.item.path.parent).replace(os.sep, "/")
            names.add(posixpath.normpath((folder / beside).as_posix()))
        return names | {without_patient(name, self.identity) for name in names}


def plan_conversion(items: Sequence[SourceItem], cohort: Cohort, labels: Path | None) -> list[ConversionTask]:
    """Decide the volume id of every item, the same ones whatever order the work is done in.

    A source that the cohort knows by subject, acquisition and file name keeps its id; new sources of the same
    subject and acquisition get the lowest free run numbers in the order of their names. Sources that would be the same
    scan have a `problem`.

    Raises
    ------
    ConfigError
        When no label map fits any source, or one fits several.
    """
    matched = match_labels(labels, items) if labels is not None else {}
    maps = {label.path.resolve() for found in matched.values() for label in found}
    items = [_with_label_names(item, labels) for item in items if item.path.resolve() not in maps]
    unmatched = not maps and not any("labels" in item.options for item in items)
    if labels is not None and unmatched:
        expected = f"<name of a source>_<name of the labels>.nii.gz, e.g. {_stem(items[0])}_tissue.nii.gz"
        got = [path.name for path in _maps_in(labels)[:3]] or "no image file"
        raise ConfigError(expected_got("label maps", expected=expected, got=got, where=labels))
    tasks = [_identified(item, tuple(matched.get(item.path, ()))) for item in items]
    numbers = CohortNumbers(cohort)
    return _numbered(_told_apart(tasks, numbers), numbers)


def _identified(item: SourceItem, labels: tuple[LabelFile, ...]) -> ConversionTask:
    if item.problem:
        return ConversionTask(item, problem=item.problem)
    try:
        identity = get_format(item.format, isolate=True).identify(item)
    except MriError as error:
        return ConversionTask(item, problem=str(error))
    except Exception:
        # The worker meets it again and reports it, with its traceback, as this item's failure.
        return ConversionTask(item)
    return ConversionTask(item, SourceName(item.path, identity, item.options.get("group")), labels=labels)


def _told_apart(tasks: Sequence[ConversionTask], numbers: CohortNumbers) -> list[ConversionTask]:
    """Give files that name no patient, and have folder and name of others, pseudonyms of their own."""
    places: dict[str, set[tuple[str, ...]]] = {}
    for task in tasks:
        if task.identity is not None and _is_after_place(task.identity):
            places.setdefault(task.identity.subject, set()).add(task.identity.place)
    return [
        replace(task, source=numbers.with_subject(task.source, sorted(places[task.source.identity.subject])))
        if task.source is not None and _is_after_place(task.source.identity)
        else task
        for task in tasks
    ]


def _is_after_place(identity: Identity) -> bool:
    # A reader may know better.
    return bool(identity.place) and identity.subject == place_pseudonym(identity.place)


def _numbered(tasks: Sequence[ConversionTask], numbers: CohortNumbers) -> list[ConversionTask]:
    """Return tasks with their volume ids, or a `problem` where one would be the same scan as another."""
    same: dict[tuple[str, str], list[tuple[int, SourceName]]] = {}
    for position, task in enumerate(tasks):
        if task.source is not None:
            same.setdefault((task.source.start, task.source.uri), []).append((position, task.source))
    planned = list(tasks)
    for _, members in sorted(same.items()):
        # The one that the cohort has been made from is known; of others none is better than the rest.
        known = [member for member in members if numbers.is_place(member[1])] if len(members) > 1 else members
        chosen = known[0] if len(known) == 1 else None
        for member in members:
            position, source = member
            if member is chosen:
                try:
                    planned[position] = replace(tasks[position], volume_id=numbers.give(source))
                except StoreError as error:
                    planned[position] = replace(tasks[position], problem=str(error))
            else:
                others = [other.path for _, other in members if other is not source]
                planned[position] = replace(tasks[position], problem=_same_scan(source, others))
    return planned


def _same_scan(source: SourceName, others: Sequence[Path]) -> str:
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return (
        f"{source.path}: would be the same scan, {source.start}N, as {others[0]}{more}, by their names. "
        "Rename one (sub-X_...), leave it out, or convert them into two cohorts."
    )


def match_labels(folder: Path, items: Sequence[SourceItem]) -> dict[Path, list[LabelFile]]:
    """Return the label maps of each source file: those named after it, ``<stem>_<name>`` with an image's ending.

    Where two stems fit, as ``sub-01`` and ``sub-01_T2w`` do ``sub-01_T2w_tissue.nii.gz``, the longer is taken. Names of
    label ids come from ``labels.json`` in the folder, ``{"<name>": {"1": "grey matter", ...}}``; without it they are
    ``label 1`` and so on.

    Raises
    ------
    ConfigError
        When a map is named after several files.
    """
    names = read_label_names(folder)
    stems: dict[str, list[Path]] = {}
    for item in items:
        same = stems.setdefault(_stem(item), [])
        if not _brings_labels(item) and item.path not in same:
            same.append(item.path)
    found: dict[Path, list[LabelFile]] = {}
    joined = {path.resolve() for item in items for path in item.options.get("maps", {}).values()}
    for path in _maps_in(folder):
        fitting = [stem for stem, sources in stems.items() if sources and image_stem(path.name).startswith(f"{stem}_")]
        if not fitting or path.resolve() in joined:
            continue
        stem = max(fitting, key=len)
        if len(stems[stem]) > 1:
            got = " and ".join(str(source) for source in stems[stem][:3])
            fix = "Give the sources names of their own, or convert them one by one with a folder of labels each."
            raise ConfigError(expected_got("source of the labels", expected="one file", got=got, where=path, fix=fix))
        name = image_stem(path.name).removeprefix(f"{stem}_")
        found.setdefault(stems[stem][0], []).append(LabelFile(path, name, names.get(name, {})))
    return found


def label_note(folder: Path, tasks: Sequence[ConversionTask]) -> str:
    """Return which sources got no label maps of a folder, and which maps no source; empty where none is left over."""
    used = {label.path.resolve() for task in tasks for label in task.labels}
    used |= {
        file.resolve() for task in tasks for file in (*task.item.files, *task.item.options.get("maps", {}).values())
    }
    unused = [path.name for path in _maps_in(folder) if path.resolve() not in used]
    labelled = sum(bool(task.labels or "labels" in task.item.options) for task in tasks)
    if labelled == len(tasks) and not unused:
        return ""
    some = ", ".join(unused[:MOST_NAMED]) + (f" and {len(unused) - MOST_NAMED} more" * (len(unused) > MOST_NAMED))
    return f"labels: {labelled} of {counted(len(tasks), 'source')}" + (f"; fits none: {some}" if unused else "")


def _maps_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith(ENDINGS))


def _with_label_names(item: SourceItem, folder: Path | None) -> SourceItem:
    """Name the label maps that a source brings after the one entry of ``labels.json``."""
    names = read_label_names(folder) if folder is not None and _brings_labels(item) else {}
    if len(names) != 1:
        return item
    name, ids = next(iter(names.items()))
    return replace(item, options={**item.options, "labels": {name: ids}})


def _brings_labels(item: SourceItem) -> bool:
    return bool(item.format) and get_format(item.format).brings_labels


def _stem(item: SourceItem) -> str:
    name = image_stem(item.path.name)
    return name if name != item.path.name else item.path.stem
