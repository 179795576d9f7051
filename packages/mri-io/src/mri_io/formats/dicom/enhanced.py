"""Enhanced multi-frame objects: a volume or series in one file, described by shared and per-frame functional groups."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mri_io.errors import FormatError, expected_got
from mri_io.formats.dicom.planes import Contrast, Plane, check_geometry, image_kind, number, numbers, type_key, vector

__all__ = ["FUNCTIONAL_GROUPS", "enhanced_planes"]

FUNCTIONAL_GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence"]
_POSITION_IN_STACK = (0x00209056, 0x00209057, 0x00200032)
"""Dimension indices that say where a frame lies: stack, position in the stack, image position."""


_Groups = Mapping[str, Any]
"""The functional groups of one frame by keyword: its own, else those that all frames share; empty where none is."""


def _groups(item: Any) -> dict[str, Any]:
    return {e.keyword: e.value[0] for e in item or () if e.VR == "SQ" and len(e.value)}


def enhanced_planes(path: Path, dataset: Any, limits: tuple[int, int]) -> tuple[Plane, ...]:
    """Return the frames of an enhanced MR object.

    Raises
    ------
    FormatError
        When frames are not described, or have no position.
    """
    shared = _groups((dataset.get("SharedFunctionalGroupsSequence") or [None])[0])
    frames = dataset.PerFrameFunctionalGroupsSequence
    stated = int(number(dataset, "NumberOfFrames") or 1)
    if len(frames) != stated:
        raise FormatError(expected_got("frames described", expected=stated, got=len(frames)))
    pointers = [int(item.DimensionIndexPointer) for item in dataset.get("DimensionIndexSequence") or ()]
    others = [axis for axis, pointer in enumerate(pointers) if pointer not in _POSITION_IN_STACK]
    return tuple(
        _plane(path, index, dataset, defaultdict(dict, {**shared, **_groups(frame)}), others, limits)
        for index, frame in enumerate(frames)
    )


def _plane(path: Path, index: int, dataset: Any, groups: _Groups, others: list[int], limits: tuple[int, int]) -> Plane:
    measures, content = groups["PixelMeasuresSequence"], groups["FrameContentSequence"]
    position = numbers(groups["PlanePositionSequence"], "ImagePositionPatient")
    orientation = numbers(groups["PlaneOrientationSequence"], "ImageOrientationPatient")
    spacing = numbers(measures, "PixelSpacing")
    step = number(measures, "SpacingBetweenSlices") or number(measures, "SliceThickness")
    check_geometry(f"geometry of frame {index + 1}", position, orientation, spacing, step)
    kinds, scaling = groups["MRImageFrameTypeSequence"], groups["PixelValueTransformationSequence"]
    types = tuple(str(v) for v in kinds.get("FrameType") or dataset.get("ImageType") or ())
    kind = image_kind(types, str(kinds.get("ComplexImageComponent", "") or ""))
    indices = numbers(content, "DimensionIndexValues")
    slope, intercept = number(scaling, "RescaleSlope"), number(scaling, "RescaleIntercept")
    return Plane(
        file=path,
        frame=index,
        size=(int(dataset.Rows), int(dataset.Columns)),
        orientation=orientation,
        position=vector(position),
        spacing=(spacing[0], spacing[1]),
        step=abs(step or 0.0),
        kind=kind,
        type=(*type_key(types), kind, str(content.get("StackID", ""))),
        contrast=_contrast(groups),
        times=(
            number(content, "TemporalPositionIndex"),
            number(groups["CardiacSynchronizationSequence"], "NominalCardiacTriggerDelayTime"),
            number(content, "FrameAcquisitionNumber"),
            str(content.get("FrameAcquisitionDateTime", "") or "") or None,
            tuple(indices[axis] for axis in others if axis < len(indices)) or None,
        ),
        scale=(1.0 if slope is None else slope, intercept or 0.0),
        philips_scale=None,
        limits=limits,
        instance=str(dataset.get("SOPInstanceUID", "")),
    )


def _contrast(groups: _Groups) -> Contrast:
    diffusion, modifier = groups["MRDiffusionSequence"], groups["MRModifierSequence"]
    gradient = (diffusion.get("DiffusionGradientDirectionSequence") or [{}])[0]
    direction = numbers(gradient, "DiffusionGradientOrientation")
    return Contrast(
        echo_time=number(groups["MREchoSequence"], "EffectiveEchoTime"),
        b_value=number(diffusion, "DiffusionBValue"),
        direction=vector(direction) if len(direction) == 3 and any(direction) else None,
        inversion_time=number(modifier, "InversionTimes"),
        flip_angle=number(groups["MRTimingAndRelatedParametersSequence"], "FlipAngle"),
    )
