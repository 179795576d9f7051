"""The BraTS data sets (Baid et al. 2021, arXiv:2107.02314): a folder per case, a file per contrast and the labels."""

import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from mri_io.formats.base import Identity, SourceItem, identify
from mri_io.formats.images.files import ENDINGS, image_stem
from mri_io.formats.images.sets import ImagePart, ImageSetFormat

__all__ = ["BratsFormat"]

_CONTRASTS = {
    "t1": "t1",
    "t1n": "t1",
    "t1ce": "t1ce",
    "t1c": "t1ce",
    "t2": "t2",
    "t2w": "t2",
    "flair": "flair",
    "t2f": "flair",
}
"""What files are called until 2021 and from 2023 on, and the elements that they become."""
_NAME = re.compile(
    rf"(?P<case>.+)[_-](?P<kind>{'|'.join(sorted(_CONTRASTS, key=len, reverse=True))}|seg)", re.IGNORECASE
)
_SCAN = re.compile(r"(?P<patient>BraTS-[A-Z]+-\d+)-(?P<session>\d+)")

_CORE, _OEDEMA, _ENHANCING = "necrotic and non-enhancing tumour core", "oedema", "enhancing tumour"
LABELS_2020 = {1: _CORE, 2: _OEDEMA, 4: _ENHANCING}
LABELS_2023 = {1: _CORE, 2: _OEDEMA, 3: _ENHANCING, 4: "resection cavity"}


class BratsFormat(ImageSetFormat):
    """T1, contrast-enhanced T1, T2 and FLAIR of a case on one grid, and ``seg/tumour``.

    Cases of 2023 and later are called after patient and scan, ``BraTS-GLI-00001-000``: the patient is the subject, the
    scan the session. Their children's tumours (``BraTS-PED``) have other label ids, which are not named.
    """

    name: ClassVar[str] = "brats"
    summary: ClassVar[str] = (
        "BraTS: a folder per case, <case>_t1/_t1ce/_t2/_flair/_seg or <case>-t1n/-t1c/-t2w/-t2f/-seg"
    )
    acquisition: ClassVar[str] = "brats"

    def sniff(self, path: Path) -> bool:
        """Whether a folder holds the four contrasts of a case, or some of one that is called BraTS."""
        if not path.is_dir():
            return False
        found = set(_files(path)) - {"seg"}
        return len(found) == 4 or bool(found and path.name.lower().startswith("brats"))

    def find(self, path: Path) -> list[SourceItem]:
        """Return the one case of a folder; one that lacks a contrast has a `problem`."""
        files = _files(path)
        missing = [name for name in dict.fromkeys(_CONTRASTS.values()) if name not in files]
        problem = (
            f"{path}: expected t1, t1ce, t2 and flair of the case, found no {', '.join(missing)}." if missing else ""
        )
        parts = [
            ImagePart(f"image/{name}", files[name]) for name in dict.fromkeys(_CONTRASTS.values()) if name in files
        ]
        if "seg" in files:
            parts.append(ImagePart("seg/tumour", files["seg"], labels=_labels(path.name)))
        return [self.case(path.parent, path.name, parts, problem=problem)]

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the case, or patient and scan."""
        found = _SCAN.fullmatch(str(item.options["case"]))
        if not found:
            return super().identify(item)
        patient = found["patient"]
        known = identify(item.options["root"] / patient, patient, self.acquisition)
        return replace(known, session=found["session"])


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of the case that the folder is called after, by contrast."""
    files = {}
    for path in sorted(folder.iterdir()):
        found = _NAME.fullmatch(image_stem(path.name)) if path.name.lower().endswith(ENDINGS) else None
        if found and found["case"] == folder.name:
            kind = found["kind"].lower()
            files[_CONTRASTS.get(kind, kind)] = path
    return files


def _labels(case: str) -> dict[int, str]:
    if "-PED-" in case:
        return {}
    return LABELS_2023 if _SCAN.fullmatch(case) else LABELS_2020
