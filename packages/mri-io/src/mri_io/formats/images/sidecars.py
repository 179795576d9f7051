"""BIDS sidecars: what a ``.json`` of an image's name tells of the acquisition, and the names of label ids."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mri_io.errors import FormatError, expected_got
from mri_io.formats.images.files import ImageFile, image_stem
from mri_io.formats.vocabulary import known_sequence, known_vendor

__all__ = ["sidecar_of", "with_sidecar"]

_SEVERAL = {"EchoTime": "te_s", "RepetitionTime": "tr_s", "InversionTime": "ti_s", "FlipAngle": "flip_angle_rad"}
_TEXT = {"Manufacturer": ("vendor", known_vendor), "PulseSequenceType": ("sequence", known_sequence)}


def sidecar_of(path: Path) -> Path | None:
    """Return the sidecar of an image file, None where there is none."""
    sidecar = path.with_name(f"{image_stem(path.name)}.json")
    return sidecar if sidecar.is_file() else None


def with_sidecar(image: ImageFile) -> ImageFile:
    """Add what the sidecar of an image tells; what the file itself states counts more.

    Only times, angles, field, known makers and words for sequences are taken, and ``Labels`` as `bids_sidecar` writes
    them.

    Raises
    ------
    FormatError
        When the sidecar is no JSON, or one of these has no plausible value.
    """
    path = sidecar_of(image.path)
    if path is None:
        return image
    try:
        stated = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: expected the JSON sidecar of {image.path.name}, got: {error}.") from None
    if not isinstance(stated, dict):
        return image
    facts = _facts(stated, path)
    return replace(image, facts={**facts, **image.facts}, labels=image.labels or _labels(stated, path))


def _facts(stated: Mapping[str, Any], path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for key, name in _SEVERAL.items():
        if stated.get(key) is not None:
            values = stated[key] if isinstance(stated[key], list) else [stated[key]]
            scale = math.pi / 180 if key == "FlipAngle" else 1.0
            facts[name] = tuple(_number(value, key, path) * scale for value in values) or None
    if stated.get("MagneticFieldStrength") is not None:
        facts["field_T"] = _number(stated["MagneticFieldStrength"], "MagneticFieldStrength", path)
    texts = {name: known(stated[key]) for key, (name, known) in _TEXT.items() if isinstance(stated.get(key), str)}
    return facts | {name: text for name, text in texts.items() if text is not None}


def _number(value: Any, key: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(expected_got(key, expected="a number", got=repr(value), where=path))
    return float(value)


def _labels(stated: Mapping[str, Any], path: Path) -> dict[int, str]:
    labels = stated.get("Labels")
    if not isinstance(labels, dict):
        return {}
    try:
        named = {int(key): entry["name"] if isinstance(entry, dict) else entry for key, entry in labels.items()}
    except (ValueError, KeyError):
        form = '{"1": {"name": "grey matter"}}'
        raise FormatError(expected_got("Labels", expected=form, got=labels, where=path)) from None
    return {key: str(name) for key, name in named.items()}
