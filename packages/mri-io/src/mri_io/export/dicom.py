"""DICOM: images as classic MR objects, a file for each slice, which every viewer reads."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mri_io.errors import ConfigError, expected_got
from mri_io.export.base import ElementExporter, ExportItem
from mri_io.export.dicom_files import (
    PlaneGeometry,
    SourceFiles,
    Study,
    decimal,
    describe_patient,
    made_at,
    new_uid,
    plane_geometry,
    software,
    study_of,
)
from mri_io.export.names import require_image, series_of
from mri_io.export.sidecar import acquisition_parameters
from mri_io.formats.base import import_extra
from mri_io.formats.dicom.quiet import EXTRA, quietly
from mri_io.store.element import Element

__all__ = ["DicomExporter", "Scaling", "image_instance"]

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_LEVELS = 65535
_KINDS = {"magnitude": "M", "phase": "P", "real": "R", "imag": "I"}


@dataclass(frozen=True)
class Scaling:
    """How values are stored in 16 bits: value = stored x slope + intercept.

    `error` bounds what rounding changes; `missing` says that 0 stands for voxels without a value.
    """

    slope: float
    intercept: float
    signed: bool
    error: float
    missing: bool = False

    @classmethod
    def between(cls, low: float, high: float, *, missing: bool) -> "Scaling":
        """Return the scaling that stores values from `low` to `high`, both zero where none is known, unsigned."""
        first, constant = int(missing), not high > low
        step = (abs(low) or 1.0) if constant else (high - low) / (_LEVELS - first)
        # What a reader computes with is what the decimal strings say.
        slope = float(decimal(step))
        intercept = float(decimal(low - slope * first))
        # Half a step, and what the strings of slope and intercept round away at the ends.
        ends = [abs(low - intercept - slope * first), max(0.0, high - intercept - slope * _LEVELS)]
        return cls(slope, intercept, signed=False, error=(0.0 if constant else slope / 2) + max(ends), missing=missing)

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Return values as they are stored."""
        if self.signed:
            return values.astype("<i2")
        levels = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        levels = np.clip(np.nan_to_num(levels, nan=0, posinf=0, neginf=0), 0, _LEVELS)
        return np.where(np.isfinite(values), np.maximum(levels, int(self.missing)), 0).astype("<u2")


class DicomExporter(ElementExporter):
    """A folder of classic MR images, a file for each slice, with new UIDs that follow from the element's commit.

    Frames are temporal positions, echoes echo numbers, sets series of their own. With the folder of the files that
    the volume was converted from, the images join the study and the frame of reference of these.
    """

    name = "dicom"
    summary = "DICOM MR images, a folder with a file for each slice, of images and maps (slice, y, x)"
    gives = "a folder"
    options: ClassVar[frozenset[str]] = frozenset({"source"})
    parts = tuple(_KINDS)

    def names(self, item: ExportItem) -> list[str]:
        """Return the name of the folder."""
        element = item.element
        require_image(element, self.name)
        if element.type == "seg":
            raise ConfigError(f"{element.folder}: label maps are no MR images. Choose --format dicom-seg.")
        plane_geometry(element)
        self._source(item)
        _require_echo_times(item)
        return [self.stem(item)]

    @cached_property
    def _files(self) -> SourceFiles | None:
        return SourceFiles(self.chosen.source) if self.chosen.source is not None else None

    def _source(self, item: ExportItem) -> list[Path]:
        return self._files.of(item) if self._files is not None else []

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the files, slice after slice."""
        targets[0].mkdir()
        self.write_images(item, targets[0], study_of(item, self._source(item)))

    def write_images(self, item: ExportItem, folder: Path, study: Study) -> None:
        """Write the images of an element into a folder that there is."""
        element, geometry = item.element, plane_geometry(item.element)
        scaling = self._scaling(element)
        kind = _KINDS[self.part_of(element) or "magnitude"]
        base = _common(item, study, scaling, kind)
        place = {index: number for number, index in enumerate(geometry.order)}
        series = series_of(element)
        for count, position in enumerate(np.ndindex(*series.values())):
            member = dict(zip(series, position, strict=True))
            for index, plane in enumerate(self._slices(element, position)):
                dataset = image_instance(base, item, geometry, index, member)
                number = count * len(place) + place[index] + 1
                dataset.InstanceNumber = number
                dataset.PixelData = scaling.stored(plane).tobytes()
                dataset.save_as(folder / f"IM{number:05d}.dcm", enforce_file_format=True)

    def _slices(self, element: Element, position: tuple[int, ...]) -> Iterator[np.ndarray]:
        for block in self.blocks(element, position):
            yield from block

    def _scaling(self, element: Element) -> Scaling:
        """Return how an element is stored, after a look at all of it."""
        if element.dtype == np.int16:
            return Scaling(1.0, 0.0, signed=True, error=0.0)
        low, high, missing = np.inf, -np.inf, False
        for index in np.ndindex(*series_of(element).values()):
            for block in self.blocks(element, index):
                known = block[np.isfinite(block)]
                missing |= known.size < block.size
                if known.size:
                    low, high = min(low, float(known.min())), max(high, float(known.max()))
        if not np.isfinite(low):
            low = high = 0.0
        return Scaling.between(low, high, missing=missing)


def image_instance(base: Any, item: ExportItem, geometry: PlaneGeometry, index: int, member: dict[str, int]) -> Any:
    """Return the object of one slice, without its pixels and number.

    Parameters
    ----------
    base
        What all slices share.
    item
        The element.
    geometry
        Where its slices lie.
    index
        The slice.
    member
        The member of the series: dimension to index.
    """
    dataset = copy(base)
    dataset.file_meta = copy(base.file_meta)
    series = member.get("set", 0)
    dataset.SeriesInstanceUID = new_uid("series", item.element.commit, *base.ImageType[3:], series)
    dataset.SOPInstanceUID = new_uid("image", item.element.commit, *base.ImageType[3:], index, *sorted(member.items()))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesNumber = 1 + series
    dataset.ImagePositionPatient = [decimal(v) for v in geometry.positions[index]]
    if "frame" in member:
        dataset.TemporalPositionIdentifier = dataset.AcquisitionNumber = member["frame"] + 1
        dataset.NumberOfTemporalPositions = series_of(item.element)["frame"]
    if "echo" in member:
        dataset.EchoNumbers = member["echo"] + 1
    known = acquisition_parameters(item.element, item.volume.header, member)
    for keyword, factor in (("EchoTime", 1000), ("RepetitionTime", 1000), ("InversionTime", 1000), ("FlipAngle", 1)):
        if keyword in known:
            setattr(dataset, keyword, decimal(known[keyword] * factor))
    return dataset


def _require_echo_times(item: ExportItem) -> None:
    """Raise ConfigError when the echoes of a series have no times by which DICOM could tell them apart."""
    times, echoes = item.volume.header.te_s or (), series_of(item.element).get("echo", 1)
    if echoes > 1 and len(times) != echoes:
        where = item.element.folder
        raise ConfigError(expected_got("echo times", expected=f"{echoes} in the header", got=len(times), where=where))


def _common(item: ExportItem, study: Study, scaling: Scaling, kind: str) -> Any:
    """Return an object with everything that is the same in all slices."""
    dataset_module = import_extra("pydicom.dataset", EXTRA)
    uids = import_extra("pydicom.uid", EXTRA)
    element, header, geometry = item.element, item.volume.header, plane_geometry(item.element)
    with quietly():
        meta = dataset_module.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MR_IMAGE, uids.ExplicitVRLittleEndian
        dataset = dataset_module.FileDataset("", {}, b"\0" * 128, meta, False, True)
        dataset.SpecificCharacterSet, dataset.SOPClassUID, dataset.Modality = "ISO_IR 192", MR_IMAGE, "MR"
        describe_patient(dataset, item)
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = study.study, study.frame_of_reference
        dataset.PositionReferenceIndicator, dataset.PatientPosition = "", ""
        dataset.Manufacturer, dataset.SoftwareVersions = header.vendor or "", f"mri-io {software()}"
        dataset.SeriesDescription = element.path[:64]
        dataset.InstanceCreationDate, dataset.InstanceCreationTime = made_at(element)
        dataset.ContentDate, dataset.ContentTime = made_at(element)
        dataset.SeriesDate, dataset.SeriesTime = made_at(element)
        dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER", kind]
        dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"
        for keyword in ("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime"):
            setattr(dataset, keyword, None)
        if header.field_T is not None:
            dataset.MagneticFieldStrength = decimal(header.field_T)
        dataset.ImageOrientationPatient = [decimal(v) for v in geometry.orientation]
        dataset.PixelSpacing = [decimal(v) for v in geometry.spacing[:2]]
        dataset.SliceThickness = dataset.SpacingBetweenSlices = decimal(geometry.spacing[2])
        _describe_pixels(dataset, element, scaling)
    return dataset


def _describe_pixels(dataset: Any, element: Element, scaling: Scaling) -> None:
    dataset.Rows, dataset.Columns = element.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(scaling.signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = decimal(scaling.slope), decimal(scaling.intercept)
    dataset.RescaleType = "US"
    if scaling.missing:
        dataset.PixelPaddingValue = 0
    dataset.LossyImageCompression, dataset.BurnedInAnnotation = "00", "NO"
    unit = f", in {element.attributes['unit']}" if element.attributes.get("unit") else ""
    what = f"rounded, by at most {scaling.error:.3g}" if scaling.error else "exact"
    missing = "; stored 0 where there is no value" if scaling.missing else ""
    dataset.DerivationDescription = f"{element.path}{unit}; values are {what}{missing}"[:1024]
