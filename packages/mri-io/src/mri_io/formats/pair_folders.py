"""Folders of images beside folders of label maps: ``images`` and ``labels``, ``imagesTr`` and ``labelsTr``."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FolderPair", "folder_pairs"]

_END = r"[_-]?(?P<part>tr|train|training|va|val|valid|validation|te|ts|test|testing)?"
_IMAGES = re.compile(rf"(?:images?|imgs?|volumes?|vols?){_END}", re.IGNORECASE)
_MAPS = re.compile(rf"(?:labels?|masks?|segs?|segmentations?|gts?|annotations?|lesions?){_END}", re.IGNORECASE)
_PARTS = {"tr": "train", "va": "val", "ts": "test", "te": "test"}


@dataclass(frozen=True)
class FolderPair:
    """A folder of images, that of their label maps if there is one, and the part that their names state."""

    images: Path
    labels: Path | None
    part: str | None


def folder_pairs(path: Path) -> Iterator[FolderPair]:
    """Yield the folders of images in a folder with those of label maps of the same part."""
    folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
    maps = {_part(found): folder for folder in folders if (found := _MAPS.fullmatch(folder.name))}
    for folder in folders:
        if found := _IMAGES.fullmatch(folder.name):
            part = _part(found)
            yield FolderPair(folder, maps.get(part), part)


def _part(found: re.Match[str]) -> str | None:
    return _PARTS[found["part"][:2].lower()] if found["part"] else None
