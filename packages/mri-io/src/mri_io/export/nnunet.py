"""nnU-Net's raw data set, version 2: Dataset500_Name/{dataset.json, imagesTr, labelsTr, imagesTs, labelsTs}.

The layout is that of nnU-Net's page ``documentation/dataset_format.md``; ids from 500 are free for data of one's own.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import ConfigError, ElementNotFoundError, expected_got
from mri_io.export.base import DataSetExporter, ExportItem
from mri_io.export.names import require_image, require_same_grid
from mri_io.export.nifti import nifti_header, write_nifti
from mri_io.formats.base import plain
from mri_io.store.cohort import Cohort
from mri_io.store.element import Element
from mri_io.store.splits import Split

__all__ = ["NnUnetExporter"]

ENDING = ".nii.gz"
_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9-]+")
_ORTHOGONAL = 1e-3
"""Largest cosine of the angle between two axes: ITK, with which nnU-Net reads, refuses sheared grids."""


@dataclass(frozen=True)
class Case:
    """One volume: its channels, its label map, and which part of the data set it belongs to."""

    name: str
    channels: tuple[Element, ...]
    labels: Element | None
    part: str


class NnUnetExporter(DataSetExporter):
    """Images, and a label map on their grid, of all volumes; training and test cases and the fold after a split.

    The element and those of ``channels`` become the channels, in this order. Label ids are made consecutive, as
    nnU-Net asks; ``dataset.json`` tells, under ``mri``, which ids they had. With a split, its test subjects go to
    ``imagesTs`` and ``labelsTs``, the others to ``imagesTr`` and ``labelsTr``, and ``splits_final.json`` has one fold
    of its training and validation cases; subjects of no part are left out.
    """

    name = "nnunet"
    summary = "nnU-Net raw data set: images with --channel, one --label, parts and fold by --split"
    options = frozenset({"channels", "labels", "split", "dataset"})
    parts = ("magnitude", "phase", "real", "imag")

    def folder_name(self, cohort: Cohort, items: Sequence[ExportItem]) -> str:
        """Return the name of the data set, after checking everything but the data."""
        name = self.chosen.dataset or f"Dataset500_{plain(cohort.name) or 'Cohort'}"
        if not _NAME.fullmatch(name):
            raise ConfigError(expected_got("dataset", expected="DatasetNNN_Name, e.g. Dataset501_Spine", got=name))
        cases = self._cases(cohort, items)
        label_ids(cases, str(cohort.path))
        for case in cases:
            _check_grid(case)
        return name

    def write(self, cohort: Cohort, items: Sequence[ExportItem], folder: Path, advance: Callable[[str], Any]) -> None:
        """Write images, labels, ``dataset.json`` and ``splits_final.json``."""
        cases = self._cases(cohort, items)
        ids = label_ids(cases, str(cohort.path))
        folder.mkdir()
        for case in cases:
            self._write_case(case, ids, folder, "Ts" if case.part == "test" else "Tr")
            advance(case.name)
        _write_json(folder / "dataset.json", self._description(cohort, cases, ids))
        fold = {part: [case.name for case in cases if case.part == part] for part in ("train", "val")}
        if fold["val"]:
            _write_json(folder / "splits_final.json", [fold])

    def _cases(self, cohort: Cohort, items: Sequence[ExportItem]) -> list[Case]:
        if len(self.chosen.labels) != 1:
            got = ", ".join(self.chosen.labels) or "none"
            raise ConfigError(expected_got("--label", expected="one label map, e.g. seg/tissue", got=got))
        split = cohort.split(self.chosen.split) if self.chosen.split is not None else None
        parts = [(item, _part(split, item)) for item in items]
        cases = [self._case(item, part) for item, part in parts if part is not None]
        if not any(case.part != "test" for case in cases):
            got = "none" if split is None else f"none in the parts train and val of split {split.name!r}"
            raise ConfigError(expected_got("training cases", expected="at least one", got=got, where=cohort.path))
        return cases

    def _case(self, item: ExportItem, part: str) -> Case:
        channels = tuple(item.volume[path] for path in (item.element.path, *self.chosen.channels))
        for element in channels:
            require_image(element, self.name, series=False)
            self.part_of(element)
        (path,) = self.chosen.labels
        if not path.startswith("seg/"):
            raise ConfigError(expected_got("--label", expected="a label map seg/<name>", got=path))
        labelled = path in item.volume
        if part != "test" and not labelled:
            fix = "Label the volume, or leave it out: --volume, or another --split."
            raise ElementNotFoundError(f"{item.volume.path}: a training case has no {path}. {fix}")
        return Case(item.element.volume_id, channels, item.volume[path] if labelled else None, part)

    def _write_case(self, case: Case, ids: Mapping[int, Any], folder: Path, end: str) -> None:
        images, labels = folder / f"images{end}", folder / f"labels{end}"
        images.mkdir(exist_ok=True)
        for number, element in enumerate(case.channels):
            header = nifti_header(element.shape[::-1], np.dtype(np.float32), element.affine)
            blocks = (np.nan_to_num(block, nan=0.0) for block in self.blocks(element))  # as it reads no NaN
            write_nifti(images / f"{case.name}_{number:04d}{ENDING}", header, blocks)
        if case.labels is not None:
            labels.mkdir(exist_ok=True)
            table = np.zeros(max(ids, default=0) + 1, np.uint8 if len(ids) < 256 else np.uint16)
            table[list(ids)] = np.arange(1, len(ids) + 1)
            header = nifti_header(case.labels.shape[::-1], table.dtype, case.labels.affine)
            write_nifti(labels / f"{case.name}{ENDING}", header, _looked_up(table, self.blocks(case.labels)))

    def _description(self, cohort: Cohort, cases: Sequence[Case], ids: Mapping[int, str]) -> dict[str, Any]:
        paths = [element.path for element in cases[0].channels]
        names = [path.partition("/")[2] for path in paths]
        labels = {"background": 0, **{name: number for number, name in enumerate(ids.values(), start=1)}}
        split = cohort.split(self.chosen.split) if self.chosen.split is not None else None
        return {
            "channel_names": {str(n): name for n, name in enumerate(names if len(set(names)) == len(names) else paths)},
            "labels": labels,
            "numTraining": sum(case.part != "test" for case in cases),
            "file_ending": ENDING,
            "name": cohort.name,
            "licence": cohort.metadata.get("license", ""),
            "mri": {
                "channels": paths,
                "label_map": self.chosen.labels[0],
                "label_ids": {str(number): original for number, original in enumerate(ids, start=1)},
                "split": None if split is None else {"name": split.name, "hash": split.hash},
            },
        }


def label_ids(cases: Sequence[Case], where: object) -> dict[int, str]:
    """Return the declared ids of all label maps with their names, in the order of the ids that nnU-Net gets.

    Names that nnU-Net gives a meaning are kept from it, or given it: a structure called ``background`` is told from the
    background, one called ``ignore`` comes last. Names that several ids share get their id behind them, and a number
    more where another structure is called that.

    Raises
    ------
    ConfigError
        When volumes name an id differently.
    """
    names: dict[int, str] = {}
    for case in cases:
        for number, entry in (case.labels.labels if case.labels is not None else {}).items():
            other = names.setdefault(number, str(entry["name"]))
            if other != entry["name"]:
                expected, got = f"{other!r}, as in other volumes", f"{entry['name']!r} in {case.name}"
                raise ConfigError(expected_got(f"name of label {number}", expected=expected, got=got, where=where))
    return dict(sorted(_distinct(names).items(), key=lambda entry: (entry[1] == "ignore", entry[0])))


def _distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Return names of which no two are equal and none is that of the background; those that can be are kept."""
    count = Counter(names.values())
    distinct = {n: name for n, name in names.items() if count[name] == 1 and name != "background"}
    taken = {*names.values(), "background"}
    for number, name in sorted(names.items()):
        if number not in distinct:
            made = (f"{name} {number}" + (f"-{more}" if more else "") for more in itertools.count())
            distinct[number] = next(one for one in made if one not in taken)
            taken.add(distinct[number])
    return distinct


def _part(split: Split | None, item: ExportItem) -> str | None:
    return "train" if split is None else split.part_of(item.volume.subject_id)


def _check_grid(case: Case) -> None:
    first = case.channels[0]
    for other in (*case.channels[1:], *([case.labels] if case.labels is not None else [])):
        require_same_grid(first, other)
    if first.affine is not None:
        axes = first.affine[:3, :3] / np.linalg.norm(first.affine[:3, :3], axis=0)
        if np.abs(axes.T @ axes - np.eye(3)).max() > _ORTHOGONAL:
            fix = f"Resample it: mri-cli resample COHORT {first.path} --spacing X,Y,Z"
            where = first.folder
            raise ConfigError(expected_got("axes", expected="at right angles", got="sheared", where=where, fix=fix))


def _looked_up(table: np.ndarray, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for block in blocks:
        yield table[block]


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
