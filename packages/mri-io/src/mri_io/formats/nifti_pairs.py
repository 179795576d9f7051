"""Folders of images and of label maps under the same names, ``images`` and ``labels``, without a description."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from mri_io.errors import FormatError
from mri_io.formats.base import SourceItem
from mri_io.formats.images.label_names import LABELS_FILE, map_bases, read_label_names
from mri_io.formats.images.pair_folders import FolderPair, folder_pairs
from mri_io.formats.images.sets import ImagePart, ImageSetFormat
from mri_io.formats.names import contrast_of
from mri_io.formats.nnunet import channel_groups, image_files_in

__all__ = ["NiftiPairsFormat"]

LABELS = "labels"
MOST_CHANNELS = 100
_FIRST_WORD = re.compile(r"(?:images?|img|volume|vol|labels?|masks?|segmentation|seg)[_-]?(?=.)", re.IGNORECASE)
_LAST_WORD = re.compile(r"[_-](?:images?|img|volume|vol)$", re.IGNORECASE)


class NiftiPairsFormat(ImageSetFormat):
    """A volume per image, of any image format, with ``seg/labels`` where a label map has its name.

    Of several folders of label maps each is an element after its folder: ``seg/labels``, ``seg/masks``.

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
        return any(_matched(_cases(pair, maps), found) for pair, maps in _pairs(path) for found in maps.values())

    def find(self, path: Path) -> list[SourceItem]:
        """Return the cases; a label map without an image has a `problem`."""
        try:
            names = read_label_names(path)
        except FormatError as error:
            return [self.refused(path, error)]
        pairs = _pairs(path)
        several = len({pair.part for pair, _ in pairs} - {None}) > 1
        items = []
        for pair, maps in pairs:
            cases = _cases(pair, maps)
            matched = {name: _matched(cases, found) for name, found in maps.items()}
            for case, files in cases.items():
                parts = [ImagePart(f"image/{name}", file) for name, file in _named(case, files).items()]
                for name in (name for name in maps if case in matched[name]):
                    ids = names.get(name, next(iter(names.values())) if len(names) == len(maps) == 1 else {})
                    file = maps[name][matched[name][case]]
                    parts.append(ImagePart(f"seg/{name}", file, labels=ids, named_in=LABELS_FILE))
                items.append(self.case(path, case, parts, part=pair.part if several else None))
            for name, found in maps.items():
                for stem in sorted(found.keys() - set(matched[name].values())):
                    problem = f"{found[stem]}: expected an image of this name in {pair.images}, found none."
                    items.append(self.case(path, stem, [ImagePart(f"seg/{name}", found[stem])], problem=problem))
        return items

    def acquisition_of(self, item: SourceItem) -> str:
        """Return the contrast that the name of a case states."""
        found = contrast_of(str(item.options["case"]))
        return self.acquisition if found == "image" else found


_Maps = Mapping[str, Mapping[str, Path]]
"""The label maps of each folder by their stems."""


def _pairs(path: Path) -> list[tuple[FolderPair, _Maps]]:
    """Return the folders of images that hold some, and the label maps by the names of their elements."""
    pairs = [pair for pair in folder_pairs(path) if image_files_in(pair.images)]
    return [(pair, {name: image_files_in(folder) for name, folder in _elements(pair).items()}) for pair in pairs]


def _elements(pair: FolderPair) -> Mapping[str, Path]:
    return {LABELS: pair.labels} if len(pair.maps) == 1 and pair.labels else pair.maps


def _cases(pair: FolderPair, maps: _Maps) -> dict[str, dict[int | None, Path]]:
    """Return the files of each case; names ending in numbers like channels are channels if the rest is a label map."""
    images = image_files_in(pair.images)
    stems = {stem: file for files in maps.values() for stem, file in files.items()}
    found = channel_groups(images, stems, MOST_CHANNELS)
    grouped = {case: files for case, files in found.items() if None in files or case in stems}
    taken = {path for files in grouped.values() for path in files.values()}
    return grouped | {stem: {None: path} for stem, path in images.items() if path not in taken}


def _named(case: str, files: Mapping[int | None, Path]) -> dict[str, Path]:
    if len(files) == 1:
        return {contrast_of(case): next(iter(files.values()))}
    return {f"channel-{number}": path for number, path in sorted(files.items(), key=lambda entry: entry[0] or 0)}


def _matched(cases: Iterable[str], maps: Mapping[str, Path]) -> dict[str, str]:
    """Return the label map of each case, by stems."""
    bare: dict[str, str] = {}
    for stem in maps:
        for base in (*reversed(map_bases(stem)), _FIRST_WORD.sub("", stem, count=1), stem):
            bare[base] = stem
    matched = {}
    for case in cases:
        tried = (case, _LAST_WORD.sub("", case), _FIRST_WORD.sub("", case, count=1))
        if found := next((bare[name] for name in tried if name in bare), None):
            matched[case] = found
    return matched
