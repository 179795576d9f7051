"""Convert raw and image files into volumes of a cohort: in parallel, resumable, one failure never stops the rest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.config import config_hash
from mri_io.errors import ConfigError, FormatError, ShapeError, expected_got
from mri_io.formats import RawElement, RawVolume, SourceItem, find_items, get_format
from mri_io.formats.base import file_sha256, plain
from mri_io.formats.nifti import read_nifti, stem_of
from mri_io.prep import PrepSummary, TaskFailure, run_tasks
from mri_io.schema.attributes import Provenance, Source
from mri_io.schema.elements import SCHEMA_VERSION
from mri_io.store.cohort import Cohort, create_cohort, open_cohort
from mri_io.store.volume import Volume

__all__ = ["LabelFile", "convert", "find_label_files"]

STAGE = "convert"


@dataclass(frozen=True)
class LabelFile:
    """A NIfTI label map that belongs to a source file, ``<stem>_<name>.nii.gz``."""

    path: Path
    name: str
    labels: Mapping[int, str]


def find_label_files(folder: Path, stem: str) -> list[LabelFile]:
    """Return the label maps of a source file by its stem.

    Names of label ids come from ``labels.json`` in the folder, ``{"<name>": {"1": "grey matter", ...}}``; without it
    they are ``label 1`` and so on.
    """
    names_file = folder / "labels.json"
    try:
        names: dict[str, dict[str, str]] = json.loads(names_file.read_bytes()) if names_file.is_file() else {}
    except ValueError as error:
        raise FormatError(f"{names_file}: not valid JSON: {error}.") from None
    found = []
    for path in sorted(folder.glob(f"{stem}_*.nii*")):
        name = stem_of(path).removeprefix(f"{stem}_")
        declared = {int(key): text for key, text in names.get(name, {}).items()}
        found.append(LabelFile(path, name, declared))
    return found


def convert(
    sources: Sequence[str | Path],
    cohort: str | Path,
    *,
    labels: str | Path | None = None,
    scheduler: str = "sync",
    format: str = "auto",
    progress: bool = True,
) -> PrepSummary:
    """Convert files and folders into a cohort, which is made when there is none.

    A volume appears whole or not at all. A volume whose source has the same SHA-256, converted with the same options
    and store version, is skipped; one whose source has changed is made anew. What fails is recorded in
    ``failures.jsonl``, and the others go on.

    Parameters
    ----------
    sources
        Files, or folders to look through.
    cohort
        The cohort's folder.
    labels
        Folder with label maps ``<stem>_<name>.nii.gz``, which become ``seg/<name>``.
    scheduler
        See `mri_io.prep.run_tasks`.
    format
        Name of a reader, or ``"auto"`` to find it from the content.
    progress
        Report on standard error.

    Returns
    -------
    PrepSummary

    Raises
    ------
    FormatError
        When a source does not exist or nothing in it can be read.
    ConfigError
        When two sources would become one volume, or `labels` is no folder.
    """
    folder = Path(labels) if labels is not None else None
    if folder is not None and not folder.is_dir():
        raise ConfigError(expected_got("labels", expected="a folder of NIfTI label maps", got=folder))
    items = find_items(sources, format)
    opened = create_cohort(cohort)
    stems: dict[str, Path] = {}
    for item in items:
        if (other := stems.setdefault(item.label, item.path)) != item.path:
            raise ConfigError(f"{item.path} and {other} have one name; convert them in two cohorts or rename one.")

    def record(label: str, outcome: dict[str, Any] | TaskFailure) -> None:
        opened.clear_failure(label, STAGE)
        if isinstance(outcome, TaskFailure):
            opened.record_failure(label, outcome.error, STAGE, trace=outcome.traceback)

    return run_tasks(
        _ConvertItem(opened.path.resolve(), folder.resolve() if folder else None),
        items,
        scheduler=scheduler,
        description=STAGE,
        labels=[item.label for item in items],
        progress=progress,
        on_done=record,
    )


class _ConvertItem:
    """Convert one volume; runs in a worker."""

    def __init__(self, cohort: Path, labels: Path | None) -> None:
        self.cohort, self.labels = cohort, labels

    def __call__(self, item: SourceItem) -> dict[str, Any]:
        opened = open_cohort(self.cohort)
        stem = stem_of(item.path.with_suffix("")) if item.path.suffix != ".gz" else stem_of(item.path)
        label_files = find_label_files(self.labels, stem) if self.labels else []
        files = (*item.files, *(label.path for label in label_files))
        source = Source(uri=item.path.name, sha256=file_sha256(files), format=item.format)
        raw = get_format(item.format).read(item)
        settings = {
            "format": item.format,
            "labels": {label.name: {str(k): v for k, v in label.labels.items()} for label in label_files},
            "schema_version": SCHEMA_VERSION,
            "group": item.options.get("group", ""),
        }
        converter = {"package": "mri-io", "version": version("mri-io"), "config_hash": config_hash(settings)}
        volume_id, current = _volume_id(opened, raw, source, converter)
        if current:
            return {"status": "skipped", "volume": volume_id}
        if volume_id in opened:
            opened.remove_volume(volume_id)
        attributes = dict(raw.attributes)
        with opened.create_volume(
            volume_id,
            subject_id=raw.subject,
            source=source,
            header=raw.header,
            converter=converter,
            attributes=attributes,
        ) as volume:
            made = Provenance.of("mri-io", f"convert {item.format}", settings)
            for element in raw.elements:
                _write(volume, element, made, item)
            for label in label_files:
                _write_labels(volume, label, raw, made)
        return {"status": "done", "volume": volume_id}


def _volume_id(cohort: Cohort, raw: RawVolume, source: Source, converter: Mapping[str, str]) -> tuple[str, bool]:
    """Return the id of a source and whether it is there already, converted in the same way.

    A second source of the same subject, session and acquisition gets the next run number.
    """
    session = f"_ses-{plain(raw.session)}" if raw.session else ""
    start = f"{raw.subject}{session}_acq-{plain(raw.acquisition)}_run-"
    for run in range(1, 1000):
        volume_id = f"{start}{run}"
        if volume_id not in cohort:
            return volume_id, False
        stored = cohort[volume_id]
        if stored.source is not None and stored.source.uri == source.uri:
            same = stored.source.sha256 == source.sha256
            options = (stored.attributes.get("converter") or {}).get("config_hash") == converter["config_hash"]
            return volume_id, same and options
    raise ConfigError(f"{cohort.path}: more than 999 runs of {start}.")


def _write(volume: Volume, element: RawElement, made: Provenance, item: SourceItem) -> None:
    try:
        with volume.writer(
            element.path,
            shape=element.shape,
            dtype=element.dtype,
            provenance=made,
            dims=element.dims,
            affine=element.affine,
            labels=element.labels,
            attributes=element.attributes,
        ) as writer:
            for block in element.blocks():
                writer.append(block)
    except (ShapeError, FormatError) as error:
        # The store names the place in the cohort; the user has to mend the file.
        raise type(error)(f"{item.path}: {element.path}: {str(error).rpartition(element.path + ': ')[2]}") from error


def _write_labels(volume: Volume, label: LabelFile, raw: RawVolume, made: Provenance) -> None:
    array, affine = read_nifti(label.path)
    rounded = np.rint(array.astype(np.float64))
    if not np.array_equal(rounded, array) or rounded.min() < 0 or rounded.max() > 65535:
        raise FormatError(expected_got("label map", expected="integers from 0", got="others", where=label.path))
    ids = [int(value) for value in np.unique(rounded) if value]
    names = dict(label.labels) or {value: f"label {value}" for value in ids or [1]}
    _check_grid(rounded.shape, label.path, raw)
    dtype = np.uint8 if max([*names, *ids]) < 256 else np.uint16
    element = RawElement.of(
        f"seg/{label.name}", rounded.astype(dtype), dims=("slice", "y", "x"), affine=affine, labels=names
    )
    _write(volume, element, made, SourceItem("nifti", label.path, (label.path,), label.path.name))


def _check_grid(shape: tuple[int, ...], path: Path, raw: RawVolume) -> None:
    """Raise ShapeError when a label map is on no image's grid, nor on that of fully sampled k-space."""
    kinds = ("image", "recon", "kspace")
    grids = {e.path: (e.shape[0], *e.shape[-2:]) for e in raw.elements if e.path.partition("/")[0] in kinds}
    if grids and shape not in grids.values():
        text = ", ".join(f"{name} {grid}" for name, grid in grids.items())
        raise ShapeError(
            expected_got(
                "label grid",
                expected=f"that of the source ({text})",
                got=shape,
                where=path,
                fix="Resample the labels to the image's grid.",
            )
        )
