"""Folders of images and of label maps under the same names, ``images`` and ``labels``, without a description."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mri_io.errors import FormatError
from mri_io.formats.base import SourceItem
from mri_io.formats.image_sets import ImagePart, ImageSetFormat
from mri_io.formats.label_names import LABELS_FILE, map_bases, read_label_names
from mri_io.formats.names import contrast_of
from mri_io.formats.nnunet import channel_groups, image_files_in

__all__ = ["NiftiPairsFormat"]

LABELS = "labels"
MOST_CHANNELS = 100
_END = r"[_-]?(?P<part>tr|train|training|va|val|valid|validation|ts|test|testing)?"
_IMAGES = re.compile(rf"(?:images?|imgs?|volumes?|vols?){_END}", re.IGNORECASE)
_MAPS = re.compile(rf"(?:labels?|masks?|segs?|segmentations?|gts?|annotations?|lesions?){_END}", re.IGNORECASE)
_PARTS = {"tr": "train", "va": "val", "ts": "test", "te": "test"}
_FIRST_WORD = re.compile(r"(?:images?|img|volume|vol|labels?|masks?|segmentation|seg)[_-]?(?=.)", re.IGNORECASE)
_LAST_WORD = re.compile(r"[_-](?:images?|img|volume|vol)$", re.IGNORECASE)


@dataclass(frozen=True)
class _Pair:
    images: Path
    labels: Path | None
    part: str | None


class NiftiPairsFormat(ImageSetFormat):
    """A volume per image, of any image format, with ``seg/labels`` where a label map has its name.

    Names may differ in what calls them image or label, ``image_001`` and ``label_001``, ``case1`` and ``case1_seg``,
    and in the channel, ``case1_0000``.
    """

    name: ClassVar[str] = "nifti-pairs"
    summary: ClassVar[str] = "folders images/ and labels/ (masks/, seg/, imagesTr/ and labelsTr/ ...) of the same names"
    acquisition: ClassVar[str] = "pairs"

    def sniff(self, path: Path) -> bool:
        """Whether a folder has a folder of images and one of label maps of which one has the name of an image."""
        if not path.is_dir():
            return False
        return any(_matched(pair) for pair in _pairs(path) if pair.labels is not None)

    def find(self, path: Path) -> list[SourceItem]:
        """Return the cases; a label map without an image has a `problem`."""
        try:
            names = read_label_names(path)
        except FormatError as error:
            return [self.refused(path, error)]
        declared = names.get(LABELS, next(iter(names.values())) if len(names) == 1 else {})
        pairs = list(_pairs(path))
        several = len({pair.part for pair in pairs} - {None}) > 1
        items = []
        for pair in pairs:
            maps = image_files_in(pair.labels) if pair.labels is not None else {}
            matched = _matched(pair)
            part = pair.part if several else None
            for case, files in _cases(pair, maps).items():
                parts = [ImagePart(f"image/{name}", file) for name, file in _named(case, files).items()]
                if case in matched:
                    parts.append(ImagePart(f"seg/{LABELS}", maps[matched[case]], labels=declared, named_in=LABELS_FILE))
                items.append(self.case(path, case, parts, part=part))
            for stem in sorted(maps.keys() - set(matched.values())):
                problem = f"{maps[stem]}: expected an image of this name in {pair.images}, found none."
                items.append(self.case(path, stem, [ImagePart(f"seg/{LABELS}", maps[stem])], problem=problem))
        return items

    def acquisition_of(self, item: SourceItem) -> str:
        """Return the contrast that the name of a case states."""
        found = contrast_of(str(item.options["case"]))
        return self.acquisition if found == "image" else found


def _pairs(path: Path) -> Iterator[_Pair]:
    """Yield the folders of images with those of label maps of the same ending, ``imagesTr`` and ``labelsTr``."""
    folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
    maps = {_part(found): folder for folder in folders if (found := _MAPS.fullmatch(folder.name))}
    for folder in folders:
        if (found := _IMAGES.fullmatch(folder.name)) and image_files_in(folder):
            part = _part(found)
            yield _Pair(folder, maps.get(part), part)


def _part(found: re.Match[str]) -> str | None:
    return _PARTS[found["part"][:2].lower()] if found["part"] else None


def _cases(pair: _Pair, maps: Mapping[str, Path]) -> dict[str, dict[int | None, Path]]:
    """Return the files of each case; names ending in numbers like channels are channels if the rest is a label map."""
    images = image_files_in(pair.images)
    found = channel_groups(images, maps, MOST_CHANNELS)
    grouped = {case: files for case, files in found.items() if None in files or case in maps}
    taken = {path for files in grouped.values() for path in files.values()}
    return grouped | {stem: {None: path} for stem, path in images.items() if path not in taken}


def _named(case: str, files: Mapping[int | None, Path]) -> dict[str, Path]:
    if len(files) == 1:
        return {contrast_of(case): next(iter(files.values()))}
    return {f"channel-{number}": path for number, path in sorted(files.items(), key=lambda entry: entry[0] or 0)}


def _matched(pair: _Pair) -> dict[str, str]:
    """Return the label map of each case, by stems."""
    maps = image_files_in(pair.labels) if pair.labels is not None else {}
    bare: dict[str, str] = {}
    for stem in maps:
        for base in (*reversed(map_bases(stem)), _FIRST_WORD.sub("", stem, count=1), stem):
            bare[base] = stem
    matched = {}
    for case in _cases(pair, maps):
        tried = (case, _LAST_WORD.sub("", case), _FIRST_WORD.sub("", case, count=1))
        if found := next((bare[name] for name in tried if name in bare), None):
            matched[case] = found
    return matched
