"""What a conversion will make: which file becomes which volume, with which label maps."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mri_io.errors import ConfigError, MriError, expected_got
from mri_io.formats import get_format
from mri_io.formats.base import Identity, SourceItem
from mri_io.formats.given_labels import LabelFile
from mri_io.formats.image_files import ENDINGS, image_stem
from mri_io.formats.label_names import read_label_names
from mri_io.formats.names import stored_name
from mri_io.schema.elements import SCHEMA_VERSION
from mri_io.store.cohort import Cohort

__all__ = ["ConversionTask", "match_labels", "plan_conversion", "without_patient"]


@dataclass(frozen=True)
class ConversionTask:
    """One volume to make.

    `identity` is None when the file does not let itself be identified; `uri` is its name as it may be stored.
    """

    item: SourceItem
    identity: Identity | None = None
    volume_id: str = ""
    uri: str = ""
    labels: tuple[LabelFile, ...] = ()

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

    def place(self) -> str:
        """Return a hash of the source's path, which tells it from another file of its name, on this machine."""
        path = self.item.path.parent.resolve() / self.item.path.name
        return hashlib.sha256(str(path).encode()).hexdigest()


def plan_conversion(items: Sequence[SourceItem], cohort: Cohort, labels: Path | None) -> list[ConversionTask]:
    """Decide the volume id of every item, the same ones whatever order the work is done in.

    A source that the cohort knows by subject, acquisition and file name keeps its id; new sources of the same
    subject and acquisition get the lowest free run numbers in the order of their names.

    Raises
    ------
    ConfigError
        When two files would be the same scan, or no label map fits any source, or one fits several.
    """
    matched = match_labels(labels, items) if labels is not None else {}
    maps = {label.path.resolve() for found in matched.values() for label in found}
    items = [_with_label_names(item, labels) for item in items if item.path.resolve() not in maps]
    unmatched = not maps and not any("labels" in item.options for item in items)
    if labels is not None and unmatched:
        expected = f"<name of a source>_<name of the labels>.nii.gz, e.g. {_stem(items[0])}_tissue.nii.gz"
        got = [path.name for path in _maps_in(labels)[:3]] or "no image file"
        raise ConfigError(expected_got("label maps", expected=expected, got=got, where=labels))
    groups: dict[str, list[tuple[str, SourceItem, Identity]]] = {}
    tasks = []
    for item in items:
        if item.problem:
            tasks.append(ConversionTask(item))
            continue
        try:
            identity = get_format(item.format, isolate=True).identify(item)
        except MriError as error:
            tasks.append(ConversionTask(replace(item, problem=str(error))))
            continue
        except Exception:
            # The worker meets it again and reports it, with its traceback, as this item's failure.
            tasks.append(ConversionTask(item))
            continue
        session = f"_ses-{identity.session}" if identity.session else ""
        start = f"{identity.subject}{session}_acq-{identity.acquisition}_run-"
        uri = stored_name(without_patient(item.path.name, identity))
        if "group" in item.options:
            uri += f":{stored_name(item.options['group'])}"
        groups.setdefault(start, []).append((uri, item, identity))
    for start, members in groups.items():
        runs = _run_numbers(cohort, start, [(uri, item.path) for uri, item, _ in members])
        for uri, item, identity in members:
            found = tuple(matched.get(item.path, ()))
            tasks.append(ConversionTask(item, identity, f"{start}{runs[uri]}", uri, found))
    order = {(item.path, item.label): position for position, item in enumerate(items)}
    return sorted(tasks, key=lambda task: order[task.item.path, task.item.label])


def _run_numbers(cohort: Cohort, start: str, sources: Sequence[tuple[str, Path]]) -> dict[str, int]:
    """Return the run number of each source name within one subject, session and acquisition."""
    runs: dict[str, int] = {}
    taken: set[int] = set()
    for volume_id in cohort.volume_ids():
        if volume_id.startswith(start):
            number, source = int(volume_id.removeprefix(start)), cohort[volume_id].source
            taken.add(number)
            if source is not None:
                # Earlier versions stored names as they were.
                runs[":".join(map(stored_name, source.uri.split(":")))] = number
    seen: dict[str, Path] = {}
    for uri, path in sorted(sources, key=lambda source: (source[0], str(source[1]))):
        if uri in seen:
            raise ConfigError(
                f"{seen[uri]} and {path} would be the same scan, {start}N, by their names. "
                "Rename one (sub-X_...), or convert them into two cohorts."
            )
        seen[uri] = path
        if uri not in runs:
            runs[uri] = min(set(range(1, len(taken) + 2)) - taken)
            taken.add(runs[uri])
    return runs


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
        if item.format != "png-pairs" and item.path not in same:
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


def _maps_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith(ENDINGS))


def _with_label_names(item: SourceItem, folder: Path | None) -> SourceItem:
    """Name the masks of a folder of PNGs after the one entry of ``labels.json``."""
    names = read_label_names(folder) if folder is not None and item.format == "png-pairs" else {}
    if len(names) != 1:
        return item
    name, ids = next(iter(names.items()))
    return replace(item, options={**item.options, "labels": {name: ids}})


def _stem(item: SourceItem) -> str:
    name = image_stem(item.path.name)
    return name if name != item.path.name else item.path.stem


def without_patient(text: str, identity: Identity | None) -> str:
    """Return text in which what the file tells of the patient is replaced by the pseudonym."""
    if identity is None:
        return text
    for known in (identity.patient, *identity.aliases):
        if known and known != identity.subject and len(known) > 2:
            text = re.sub(re.escape(known), identity.subject, text, flags=re.IGNORECASE)
    return text
