"""Prostate158 (Adams et al. 2022, doi:10.1016/j.compbiomed.2022.105817): T2, ADC and DWI, zones and tumours."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import SourceItem
from mri_io.formats.images.sets import ImagePart, ImageSetFormat

__all__ = ["Prostate158Format"]

_ENDING = ".nii.gz"
_CONTRASTS = ("t2", "adc", "dwi")
_LABELS = re.compile(r"(?P<contrast>t2|adc|dwi)_(?P<kind>anatomy|tumor)_reader\d+")
_EMPTY = "empty"
_FIRST_TUMOURS = ("t2_tumor_reader1", "adc_tumor_reader1")
_PARTS = {"train.csv": "train", "valid.csv": "val", "test.csv": "test"}

NAMES = {"anatomy": {1: "transition zone (central gland)", 2: "peripheral zone"}, "tumor": {1: "tumour"}}


class Prostate158Format(ImageSetFormat):
    """Every contrast on its own grid, and label maps named after the contrast that they are drawn on.

    Studies without a tumour have ``empty.nii.gz`` in its stead: it becomes an empty map on the grid of the contrast.
    The split ``prostate158`` is that of ``train.csv`` and ``valid.csv``, and of the folder ``test``.
    """

    name: ClassVar[str] = "prostate158"
    summary: ClassVar[str] = "Prostate158: train/NNN and test/NNN with t2, adc, dwi, *_anatomy_readerN, *_tumor_readerN"
    acquisition: ClassVar[str] = "prostate158"

    def sniff(self, path: Path) -> bool:
        """Whether a folder has ``train`` or ``test`` with studies in it, or is one of the two."""
        return path.is_dir() and any(_studies(folder) for folder in _folders(path))

    def find(self, path: Path) -> list[SourceItem]:
        """Return a volume per study; one that lacks T2 has a `problem`."""
        folders = _folders(path)
        root = folders[0].parent
        try:
            rows = _lists(root)
        except FormatError as error:
            return [self.refused(root, error)]
        items = []
        for folder in folders:
            for study in _studies(folder):
                part, row = rows.get(int(study.name), (folder.name, {}))
                problem = "" if (study / f"t2{_ENDING}").is_file() else f"{study}: expected t2{_ENDING}, found no file."
                items.append(self.case(root, study.name, _parts(study, row), problem=problem, part=part))
        return items


def _folders(path: Path) -> list[Path]:
    if path.name in ("train", "test"):
        return [path]
    return [path / name for name in ("train", "test") if (path / name).is_dir()]


def _studies(folder: Path) -> list[Path]:
    """Return the folders of studies, which are called after numbers and hold contrasts or zones."""
    known = [f"{name}{_ENDING}" for name in (*_CONTRASTS, "t2_anatomy_reader1")]
    folders = (study for study in sorted(folder.iterdir()) if study.name.isdigit() and study.is_dir())
    return [study for study in folders if sum((study / name).is_file() for name in known) > 1]


def _parts(study: Path, row: Mapping[str, str]) -> list[ImagePart]:
    files = {path.name.removesuffix(_ENDING): path for path in sorted(study.glob(f"*{_ENDING}"))}
    parts = [ImagePart(f"image/{name}", files[name]) for name in _CONTRASTS if name in files]
    for name, path in files.items():
        if found := _LABELS.fullmatch(name):
            parts.append(ImagePart(_element(name), path, labels=NAMES[found["kind"]]))
    if _EMPTY in files:
        stated = [name for name, value in row.items() if _LABELS.fullmatch(name) and _is_empty(value)]
        for name in stated or _FIRST_TUMOURS:
            contrast = files.get(name.partition("_")[0])
            if name not in files and contrast is not None:
                labels = NAMES[name.split("_")[1]]
                parts.append(ImagePart(_element(name), files[_EMPTY], labels=labels, like=contrast))
    return parts


def _element(name: str) -> str:
    return f"seg/{name.replace('_', '-')}"


def _is_empty(value: str | None) -> bool:
    return Path(value or "").name == f"{_EMPTY}{_ENDING}"


def _lists(root: Path) -> dict[int, tuple[str, dict[str, str]]]:
    """Return part and row of each study in the lists; FormatError when one has no column ``ID`` of numbers."""
    rows: dict[int, tuple[str, dict[str, str]]] = {}
    for name, part in _PARTS.items():
        path = root / name
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file)
            try:
                rows |= {int(row["ID"]): (part, row) for row in reader}
            except (KeyError, TypeError, ValueError, csv.Error):
                got = reader.fieldnames or "an empty file"
                raise FormatError(
                    expected_got("list of studies", expected="a column ID of numbers", got=got, where=path)
                ) from None
    return rows
