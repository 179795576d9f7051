"""ISLES 2022 (Hernandez Petzsche et al. 2022, Scientific Data 9:762): stroke, DWI, ADC and FLAIR in BIDS folders."""

import re
from pathlib import Path
from typing import ClassVar

from mri_io.formats.base import Identity, SourceItem, identify
from mri_io.formats.images.files import ENDINGS, image_stem
from mri_io.formats.images.sets import ImagePart, ImageSetFormat

__all__ = ["IslesFormat"]

_SUBJECT = re.compile(r"sub-strokecase\d+")
_CONTRASTS = ("dwi", "adc", "flair")
_MASK = "msk"
LABELS = {1: "stroke lesion"}


class IslesFormat(ImageSetFormat):
    """DWI and ADC on one grid, FLAIR on its own, and the lesion drawn on DWI, ``seg/dwi-lesion``.

    Masks lie in ``derivatives`` beside the subjects, or above a folder ``rawdata``.
    """

    name: ClassVar[str] = "isles"
    summary: ClassVar[str] = (
        "ISLES 2022: sub-strokecaseXXXX/ses-XXXX/{dwi,anat}/*_{dwi,adc,flair}, derivatives/**/*_msk"
    )
    acquisition: ClassVar[str] = "isles"

    def sniff(self, path: Path) -> bool:
        """Whether a folder holds subjects ``sub-strokecaseXXXX``, or is one."""
        return path.is_dir() and bool(_subjects(path))

    def find(self, path: Path) -> list[SourceItem]:
        """Return a volume per subject and session; one that lacks DWI has a `problem`."""
        subjects = _subjects(path)
        root = subjects[0].parent
        above = [root / "derivatives", root.parent / "derivatives"]
        derived = next((folder for folder in above if folder.is_dir()), None)
        items = []
        for subject in subjects:
            folders = [f for f in sorted(subject.iterdir()) if f.is_dir() and f.name.startswith("ses-")] or [subject]
            for folder in folders:
                case = subject.name if folder == subject else f"{subject.name}_{folder.name}"
                images = _images(folder, _CONTRASTS)
                masks = _images(derived / folder.relative_to(root), (_MASK,)) if derived is not None else {}
                masks = masks or _images(folder, (_MASK,))
                parts = [ImagePart(f"image/{name}", images[name]) for name in _CONTRASTS if name in images]
                parts += [ImagePart("seg/dwi-lesion", mask, labels=LABELS) for mask in masks.values()]
                problem = "" if "dwi" in images else f"{folder}: expected a file ..._dwi of this session, found none."
                items.append(self.case(root, case, parts, problem=problem))
        return items

    def identify(self, item: SourceItem) -> Identity:
        """Return subject and session of the BIDS name."""
        return identify(item.path, str(item.options["case"]), self.acquisition)


def _subjects(path: Path) -> list[Path]:
    """Return the folders of subjects, those in ``rawdata`` where there is such a folder."""
    if _SUBJECT.fullmatch(path.name):
        return [path]
    place = path / "rawdata" if (path / "rawdata").is_dir() else path
    return [folder for folder in sorted(place.iterdir()) if folder.is_dir() and _SUBJECT.fullmatch(folder.name)]


def _images(folder: Path, kinds: tuple[str, ...]) -> dict[str, Path]:
    """Return the image files below a folder by the last part of their names, in lower case."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        kind = image_stem(path.name).rpartition("_")[2].lower()
        if kind in kinds and path.name.lower().endswith(ENDINGS) and path.is_file() and path.name[0] != ".":
            found.setdefault(kind, path)
    return found
