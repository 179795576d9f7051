"""nnU-Net raw data sets and the Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr``, ``labelsTr``."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import SourceItem, plain
from mri_io.formats.images.files import ENDINGS, image_stem
from mri_io.formats.images.sets import ImagePart, ImageSetFormat

__all__ = ["NnunetFormat", "channel_groups", "image_files_in"]

DESCRIPTION = "dataset.json"
LABELS = "seg/labels"
_PARTS = {"imagesTr": ("labelsTr", "train"), "imagesVal": ("labelsVal", "val"), "imagesTs": ("labelsTs", "test")}
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class _Description:
    """What ``dataset.json`` says: names of the channels in order, of label ids, and regions of several ids."""

    channels: tuple[str, ...]
    labels: Mapping[int, str]
    regions: Mapping[str, list[int]]
    ending: str


class NnunetFormat(ImageSetFormat):
    """A volume per case: an image per channel or modality, ``seg/labels`` where there are labels.

    Channels are files ``case_0000.nii.gz``, or members of one 4-D file. The parts are training and test images, where
    there are both.
    """

    name: ClassVar[str] = "nnunet"
    summary: ClassVar[str] = "nnU-Net raw and MSD: dataset.json, imagesTr, labelsTr, imagesTs, in any image format"
    acquisition: ClassVar[str] = "nnunet"

    def sniff(self, path: Path) -> bool:
        """Whether a folder has ``dataset.json`` and images."""
        return (path / DESCRIPTION).is_file() and any((path / folder).is_dir() for folder in _PARTS)

    def find(self, path: Path) -> list[SourceItem]:
        """Return the cases; one that lacks a channel has a `problem`."""
        description = path / DESCRIPTION
        try:
            described = _describe(description)
        except FormatError as error:
            return [self.refused(path, error)]
        folders = {name: image_files_in(path / name) for name in _PARTS}
        several = sum(map(bool, folders.values())) > 1
        items = []
        for name, images in folders.items():
            labels_folder, part = _PARTS[name]
            labels = image_files_in(path / labels_folder)
            for case, files in channel_groups(images, labels, len(described.channels)).items():
                parts, problem = _images(path / name, case, files, described)
                if case in labels or labels or name == "imagesTr":
                    stated = {"regions": dict(described.regions)} if described.regions else {}
                    file = labels.get(case, path / labels_folder / f"{case}{described.ending}")
                    parts.append(
                        ImagePart(LABELS, file, labels=described.labels, named_in=DESCRIPTION, attributes=stated)
                    )
                items.append(self.case(path, case, parts, problem=problem, part=part if several else None))
        return items


def image_files_in(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by their stems; hidden ones, which macOS leaves in archives, are none."""
    if not folder.is_dir():
        return {}
    files = (path for path in sorted(folder.iterdir()) if path.name[0] != "." and path.name.lower().endswith(ENDINGS))
    return {image_stem(path.name): path for path in files}


def channel_groups(
    images: Mapping[str, Path], labels: Mapping[str, Path], channels: int
) -> dict[str, dict[int | None, Path]]:
    """Return the files of each case by channel, which is None for a file that is the whole case.

    Names end in ``_0000`` to ``_0003`` where there are channels, unless there is a label map of the whole name.
    """
    groups: dict[str, dict[int | None, Path]] = {}
    for stem, path in images.items():
        found = _CHANNEL.fullmatch(stem) if stem not in labels else None
        if found and int(found["channel"]) < channels:
            groups.setdefault(found["case"], {})[int(found["channel"])] = path
        else:
            groups.setdefault(stem, {})[None] = path
    return groups


def _images(
    folder: Path, case: str, files: Mapping[int | None, Path], described: _Description
) -> tuple[list[ImagePart], str]:
    """Return the images of a case, and what is wrong with them."""
    channels = described.channels
    if None in files:
        members: list[int | None] = list(range(len(channels))) if len(channels) > 1 else [None]
        whole = files[None]
        return [ImagePart(f"image/{n}", whole, member=m) for n, m in zip(channels, members, strict=True)], ""
    missing = [f"{case}_{number:04d}" for number in range(len(channels)) if number not in files]
    parts = [ImagePart(f"image/{n}", files[number]) for number, n in enumerate(channels) if number in files]
    if missing:
        got = [path.name for path in files.values()]
        return parts, expected_got(f"channels of {case}", expected=f"also {', '.join(missing)}", got=got, where=folder)
    return parts, ""


def _describe(path: Path) -> _Description:
    """Read ``dataset.json`` of nnU-Net version 1 or 2, or of the Decathlon."""
    try:
        stated = json.loads(path.read_bytes())
        channels = stated["channel_names"] if "channel_names" in stated else stated["modality"]
        names = [str(channels[key]) for key in sorted(channels, key=int)]
        labels, regions = _labels(stated["labels"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        form = "channel_names (or modality) and labels, as nnU-Net and the Decathlon write them"
        got = f"{type(error).__name__}: {error}"
        raise FormatError(expected_got("content", expected=form, got=got, where=path)) from None
    ending = str(stated.get("file_ending", ".nii.gz"))
    if not ending.lower().endswith(ENDINGS):
        fix = "Two-dimensional images are read from folders of PNG pairs."
        raise FormatError(expected_got("file_ending", expected=ENDINGS, got=ending, where=path, fix=fix))
    return _Description(_elements(names), labels, regions, ending)


def _elements(channels: list[str]) -> tuple[str, ...]:
    """Return names for elements, of which no two are the same."""
    names = [plain(channel).lower() or "image" for channel in channels]
    return tuple(name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names))


def _labels(stated: Mapping[str, Any]) -> tuple[dict[int, str], dict[str, list[int]]]:
    """Return names of ids, and regions; the ids of regions, which overlap, have names of their own or are numbered."""
    names: dict[int, str] = {}
    regions: dict[str, list[int]] = {}
    for key, value in stated.items():
        if isinstance(value, list):
            regions[key] = [int(number) for number in value]
        elif isinstance(value, int):
            names[value] = key
        else:
            names[int(key)] = str(value)
    for number in {number for ids in regions.values() for number in ids}:
        names.setdefault(number, f"label {number}")
    return {number: name for number, name in sorted(names.items()) if number > 0}, regions
