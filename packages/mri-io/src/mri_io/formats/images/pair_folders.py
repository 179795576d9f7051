"""Folders of images beside folders of label maps: ``images`` and ``labels``, ``imagesTr`` and ``labelsTr``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FolderPair", "folder_pairs"]

_END = r"[_-]?(?P<part>tr|train|training|va|val|valid|validation|te|ts|test|testing)?"
_IMAGES = re.compile(rf"(?:images?|imgs?|volumes?|vols?){_END}", re.IGNORECASE)
_MAPS = re.compile(rf"(?P<what>labels?|masks?|segs?|segmentations?|gts?|annotations?|lesions?){_END}", re.IGNORECASE)
_PARTS = {"tr": "train", "va": "val", "ts": "test", "te": "test"}


@dataclass(frozen=True)
class FolderPair:
    """A folder of images, those of their label maps by what they are called, and the part that their names state.

    Folders are called by their names in lower case and without the part, ``labels`` for ``labelsTr``, or by the whole
    name where several would be called the same.
    """

    images: Path
    maps: Mapping[str, Path]
    part: str | None

    @property
    def labels(self) -> Path | None:
        """The first folder of label maps."""
        return next(iter(self.maps.values()), None)


def folder_pairs(path: Path) -> Iterator[FolderPair]:
    """Yield the folders of images in a folder with those of label maps of the same part."""
    folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
    maps: dict[str | None, list[tuple[str, Path]]] = {}
    for folder in folders:
        if found := _MAPS.fullmatch(folder.name):
            maps.setdefault(_part(found), []).append((found["what"].lower(), folder))
    for folder in folders:
        if found := _IMAGES.fullmatch(folder.name):
            part = _part(found)
            yield FolderPair(folder, _called(maps.get(part, [])), part)


def _called(folders: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    names = [name for name, _ in folders]
    return {folder.name if names.count(name) > 1 else name: folder for name, folder in folders}


def _part(found: re.Match[str]) -> str | None:
    return _PARTS[found["part"][:2].lower()] if found["part"] else None
