"""Which files are label maps of which images, by their names, and what their ids are called."""

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mri_io.errors import FormatError

__all__ = ["LABELS_FILE", "LabelPair", "map_bases", "pair_labels", "read_label_names"]

LABELS_FILE = "labels.json"

_SEPARATORS = "_.-"
_MAP = re.compile(
    r"(?:[\w.+-]*[_.+-])?"  # what it shows
    r"(?!probseg)(?:[a-z]*seg|segmentations?|labels?|lbl|[a-z]*masks?|msk|lesions?|gt|ground-?truth|annotations?)"
    r"(?:[-_](?:manual|auto|final|reader[-_]?\d+|rater[-_]?\d+|r?\d+))?",
    re.IGNORECASE,
)
_IMAGE_WORD = re.compile(r"(?:^|[_.-])(?:image|img|im|volume|vol|orig)$", re.IGNORECASE)


@dataclass(frozen=True)
class LabelPair:
    """The image that a label map belongs to, by its stem, and what the map is called."""

    image: str
    name: str


def pair_labels(stems: Sequence[str]) -> dict[str, LabelPair | None]:
    """Find the label maps among the files of one folder.

    A map is named after its image, ``t1w_seg-manual`` after ``t1w``, ``brain1_label`` after ``brain1_image``; one whose
    beginning only one image shares, as ``DOE_seg`` does with ``DOE_t1``, or that has no such beginning and lies beside
    the only image, belongs to that.

    Parameters
    ----------
    stems
        Names without endings.

    Returns
    -------
    dict
        The image of each map; None where none fits or several do. Images are not among the keys.

    Examples
    --------
    >>> pair_labels(["t1w", "t1w_seg-manual"])
    {'t1w_seg-manual': LabelPair(image='t1w', name='seg-manual')}
    """
    maps = [stem for stem in stems if any(_splits(stem))]
    images = sorted(set(stems) - set(maps))
    bases: dict[str, list[str]] = {}
    for image in images:
        for base in {image, _IMAGE_WORD.sub("", image)}:
            bases.setdefault(base, []).append(image)
    return {stem: _image_of(stem, images, bases) for stem in maps}


def map_bases(stem: str) -> list[str]:
    """Return the names that the image of a label map may have, the longest first.

    Examples
    --------
    >>> map_bases("case1_lesion_mask")
    ['case1_lesion', 'case1']
    """
    return [base for base, _ in _splits(stem) if base]


def _splits(stem: str) -> Iterator[tuple[str, str]]:
    """Yield what may be the image's name and what the map's, the longest name of an image first."""
    for position in reversed(range(len(stem))):
        if stem[position] in _SEPARATORS and _MAP.fullmatch(stem[position + 1 :]):
            yield stem[:position], stem[position + 1 :]
    if _MAP.fullmatch(stem):
        yield "", stem


def _image_of(stem: str, images: Sequence[str], bases: dict[str, list[str]]) -> LabelPair | None:
    for base, name in _splits(stem):
        found = bases.get(base, [])
        if base in found or len(found) == 1:
            return LabelPair(base if base in found else found[0], _plain(name))
    for base, name in _splits(stem):
        if base:
            starts = [image for image in _starting(images, base) if image[len(base)] in _SEPARATORS]
        else:
            starts = list(images) if name == stem and _is_bare(stem) else []
        if len(starts) == 1:
            return LabelPair(starts[0], _plain(name))
        if starts:
            return None
    return None


def _starting(images: Sequence[str], base: str) -> Iterator[str]:
    for image in images[bisect_left(images, base) :]:
        if not image.startswith(base):
            return
        if len(image) > len(base):
            yield image


def _is_bare(stem: str) -> bool:
    """Whether the whole name says what a map shows, and none of it may be a patient's: ``seg``, ``lesion_mask``."""
    return all(_MAP.fullmatch(word) for word in re.split("[_.-]", stem))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def read_label_names(folder: Path) -> dict[str, dict[int, str]]:
    """Return the names of label ids by map, from ``labels.json`` in a folder; empty without that file.

    Raises
    ------
    FormatError
        When it is not of the form ``{"tissue": {"1": "grey matter"}}``.
    """
    path = folder / LABELS_FILE
    if not path.is_file():
        return {}
    try:
        names = json.loads(path.read_bytes())
        return {str(name): {int(key): str(text) for key, text in ids.items()} for name, ids in names.items()}
    except (ValueError, AttributeError) as error:
        form = '{"tissue": {"1": "grey matter"}}'
        raise FormatError(f"{path}: expected label names in the form {form}, got: {error}.") from None
