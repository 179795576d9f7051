"""Headers of DICOM files, each read once and without its pixels."""

import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import import_extra
from mri_io.formats.dicom.enhanced import FUNCTIONAL_GROUPS, enhanced_planes
from mri_io.formats.dicom.mosaic import CSA, is_mosaic, mosaic_planes
from mri_io.formats.dicom.planes import (
    Contrast,
    DamagedHeaderError,
    Plane,
    Scan,
    Vector,
    check_geometry,
    image_kind,
    number,
    numbers,
    type_key,
    vector,
)
from mri_io.formats.dicom.quiet import EXTRA, quietly

__all__ = ["SEGMENTATION", "read_dataset", "scan_file"]

SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes Segmentation Storage and Label Map Segmentation Storage."""
_MOST_PIXELS = 2**26
"""In one plane, a bound for what a damaged header may claim; 8192 x 8192."""
_IMPLICIT = "1.2.840.10008.1.2"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_MOST_INFLATED = 2**30
"""Bytes of a deflated file, which pydicom unpacks whole."""

_TAGS: list[Any] = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "SamplesPerPixel",
    "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "EchoTime", "InversionTime", "FlipAngle",
    "DiffusionBValue", "DiffusionGradientOrientation", "TemporalPositionIdentifier", "TriggerTime",
    "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "Manufacturer", "ComplexImageComponent",
    *FUNCTIONAL_GROUPS, *CSA,
    "ReferencedSeriesSequence",
    # Siemens: b-value and gradient; GE: b-value, raw data type; Philips: scale slope. Each with its private creator.
    0x00190010, 0x0019100C, 0x0019100E, 0x00430010, 0x00431039, 0x0043102F, 0x20050010, 0x2005100E,
]  # fmt: skip


def read_dataset(path: Path, tags: Sequence[Any] | None = None) -> Any:
    """Read a header up to its pixels.

    Raises
    ------
    FormatError
        When the file is damaged.
    """
    pydicom = import_extra("pydicom", EXTRA)
    _check_deflated(path)
    try:
        with quietly():
            chosen = None if tags is None else _as_tags(tuple(tags))
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=chosen, force=True)
            for element in dataset:  # values are converted when they are looked at
                element.value  # noqa: B018
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = _IMPLICIT if implicit else f"{_IMPLICIT}.1"
            return dataset
    except OSError:
        raise
    except Exception as error:  # pydicom, struct and zlib each have their own
        raise FormatError(
            f"{path}: expected a readable DICOM header, got {type(error).__name__}. The file is truncated or damaged."
        ) from None


@cache
def _as_tags(names: tuple[Any, ...]) -> list[Any]:
    """Return keywords and numbers as tags, which pydicom would otherwise look up for every file."""
    tag = import_extra("pydicom.tag", EXTRA)
    return [tag.Tag(name) for name in names]


def _check_deflated(path: Path) -> None:
    """Raise FormatError where a deflated file would fill the memory."""
    with path.open("rb") as file:
        head = file.read(1024)
        if head[128:132] != b"DICM" or _DEFLATED not in head:
            return
        file.seek(144 + int.from_bytes(head[140:144], "little"))  # behind the group of the file's own elements
        unpacker, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while (packed := unpacker.unconsumed_tail or file.read(2**20)) and size <= _MOST_INFLATED:
            try:
                size += len(unpacker.decompress(packed, 2**20))
            except zlib.error:
                return  # pydicom says so
    if size > _MOST_INFLATED:
        raise FormatError(expected_got("unpacked size", expected=f"{_MOST_INFLATED} bytes", got="more", where=path))


def scan_file(path: Path) -> Scan:
    """Return what a file holds, or why it cannot be read."""
    with quietly():
        try:
            dataset = read_dataset(path, _TAGS)
        except FormatError as error:
            return Scan(path, "", damaged=str(error))
        except OSError as error:
            return Scan(path, "", damaged=f"{path}: cannot be read: {error.strerror or error}.")
        series, syntax = str(dataset.get("SeriesInstanceUID", "")), str(dataset.file_meta.TransferSyntaxUID)
        try:
            _check_whole(dataset)
            if str(dataset.get("SOPClassUID", "")) in SEGMENTATION:
                return Scan(path, series, segmented=_segmented(dataset), syntax=syntax)
            refused = _refusal(dataset)
            if refused:
                return Scan(path, series, refused=refused)
            return Scan(path, series, _planes(path, dataset), syntax=syntax)
        except DamagedHeaderError as error:
            return Scan(path, series, damaged=f"{path}: {error}")
        except FormatError as error:
            return Scan(path, series, refused=str(error))
        except Exception as error:  # pydicom has many
            return Scan(path, series, damaged=f"{path}: the DICOM header is damaged ({type(error).__name__}).")


def _check_whole(dataset: Any) -> None:
    """Raise DamagedHeaderError where what every object states is missing, or an MR image ends before its matrix."""
    kind = str(getattr(dataset.get("SOPClassUID", None), "name", "") or "")
    missing = [name for name in ("SOPClassUID", "Modality") if not str(dataset.get(name, "") or "")]
    if "MR Image Storage" in kind:
        missing += [name for name in ("Rows", "Columns") if dataset.get(name, None) is None]
    if missing:
        got, fix = f"a header without {', '.join(missing)}", "The file is truncated or damaged: export it anew."
        raise DamagedHeaderError(expected_got("header", expected="that of a whole DICOM object", got=got, fix=fix))


def _segmented(dataset: Any) -> tuple[str, frozenset[str]]:
    for item in dataset.get("ReferencedSeriesSequence") or ():
        instances = frozenset(str(i.ReferencedSOPInstanceUID) for i in item.get("ReferencedInstanceSequence") or ())
        return str(item.get("SeriesInstanceUID", "")), instances
    return "", frozenset()


_NOT_IMAGES = {
    "RTSTRUCT": "Contours are not read: convert them to DICOM SEG or to NIfTI label maps (--labels) first.",
    "SR": "Structured reports hold no image; leave them out.",
    "PR": "Presentation states hold no image; leave them out.",
}


def _refusal(dataset: Any) -> str:
    """Return why a data set is no MR image that can be read, empty when it is one."""
    modality, kind = str(dataset.Modality), str(dataset.SOPClassUID.name)
    if modality != "MR":
        fix = _NOT_IMAGES.get(modality, "Only MR is read; leave the series out.")
        got = f"{modality[:16]} ({kind})"
        return expected_got("modality", expected="MR", got=got, fix=fix)
    rows, columns = number(dataset, "Rows") or 0, number(dataset, "Columns") or 0
    if not rows * columns or "Storage" not in kind or any(word in kind for word in ("Spectroscopy", "Raw Data")):
        return expected_got("content", expected="an MR image", got=f"{kind} without pixels", fix="Leave it out.")
    if rows * columns > _MOST_PIXELS:
        return expected_got("matrix", expected=f"at most {_MOST_PIXELS} pixels", got=f"{rows:.0f} x {columns:.0f}")
    colour = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if (number(dataset, "SamplesPerPixel") or 1) != 1 or not colour.startswith("MONOCHROME"):
        return expected_got("pixels", expected="grey values", got=f"{colour} ({kind})", fix="Leave screenshots out.")
    bits = number(dataset, "BitsAllocated")
    if bits not in (8, 16):
        return expected_got("bits per pixel", expected="8 or 16", got=bits)
    stored = number(dataset, "BitsStored") or bits
    if not 1 <= stored <= bits:
        return expected_got("bits stored per pixel", expected=f"1 to {bits:.0f}", got=stored)
    return ""


def _planes(path: Path, dataset: Any) -> tuple[Plane, ...]:
    if "PerFrameFunctionalGroupsSequence" in dataset:
        return enhanced_planes(path, dataset, pixel_limits(dataset))
    frames = number(dataset, "NumberOfFrames") or 1
    if frames != 1:
        got = f"{frames:.0f} frames and no functional groups"
        raise FormatError(expected_got("frames", expected="one, or an enhanced multi-frame object", got=got))
    plane = _classic(path, dataset)
    return mosaic_planes(plane, dataset) if is_mosaic(dataset) else (plane,)


def pixel_limits(dataset: Any) -> tuple[int, int]:
    """Return the smallest and largest value that pixels can hold."""
    bits = int(number(dataset, "BitsStored") or number(dataset, "BitsAllocated") or 16)
    signed = bool(number(dataset, "PixelRepresentation"))
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _classic(path: Path, dataset: Any) -> Plane:
    position, orientation = numbers(dataset, "ImagePositionPatient"), numbers(dataset, "ImageOrientationPatient")
    spacing = numbers(dataset, "PixelSpacing")
    step = number(dataset, "SpacingBetweenSlices") or number(dataset, "SliceThickness")
    fix = "Without them images have no place; leave screenshots and other derived images out."
    check_geometry("geometry", position, orientation, spacing, step, fix)
    types = tuple(str(value) for value in _values(dataset.get("ImageType")))
    ge = number(dataset, 0x0043102F) if _creator(dataset, 0x00430010, "GEMS") else None
    kind = image_kind(types, str(dataset.get("ComplexImageComponent", "") or ""), ge)
    date, time = (str(dataset.get(name, "") or "") for name in ("AcquisitionDate", "AcquisitionTime"))
    return Plane(
        file=path,
        frame=0,
        size=(int(dataset.Rows), int(dataset.Columns)),
        orientation=orientation,
        position=vector(position),
        spacing=(spacing[0], spacing[1]),
        step=abs(step or 0.0),
        kind=kind,
        type=(*type_key(types), kind),
        contrast=Contrast(
            echo_time=number(dataset, "EchoTime"),
            b_value=(diffusion := _diffusion(dataset))[0],
            direction=diffusion[1],
            inversion_time=number(dataset, "InversionTime"),
            flip_angle=number(dataset, "FlipAngle"),
        ),
        times=(
            number(dataset, "TemporalPositionIdentifier"),
            number(dataset, "TriggerTime"),
            number(dataset, "AcquisitionNumber"),
            date + time or None,
        ),
        scale=(_or(number(dataset, "RescaleSlope"), 1.0), _or(number(dataset, "RescaleIntercept"), 0.0)),
        philips_scale=number(dataset, 0x2005100E) if _creator(dataset, 0x20050010, "Philips") else None,
        limits=pixel_limits(dataset),
        instance=str(dataset.get("SOPInstanceUID", "")),
    )


def _diffusion(dataset: Any) -> tuple[float | None, Vector | None]:
    """Return the b-value and the direction of the gradient, from the standard's elements or a maker's own."""
    b_value, direction = number(dataset, "DiffusionBValue"), numbers(dataset, "DiffusionGradientOrientation")
    if b_value is None and _creator(dataset, 0x00190010, "SIEMENS MR HEADER"):
        b_value, direction = number(dataset, 0x0019100C), numbers(dataset, 0x0019100E)
    elif b_value is None and _creator(dataset, 0x00430010, "GEMS_PARM_01"):
        b_value = number(dataset, 0x00431039)
        # GE adds 1e9 to b-values of some releases.
        b_value = b_value % 1e9 if b_value is not None else None
    return b_value, vector(direction) if len(direction) == 3 and any(direction) else None


def _creator(dataset: Any, tag: int, name: str) -> bool:
    return tag in dataset and str(dataset[tag].value).startswith(name)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)
