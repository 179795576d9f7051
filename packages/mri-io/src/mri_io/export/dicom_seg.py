"""DICOM SEG: label maps as segmentation objects, made with highdicom, that refer to the images they belong to."""

import math
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mri_io.errors import ConfigError, expected_got
from mri_io.export.base import ElementExporter, ExportItem, ExportOptions
from mri_io.export.dicom import DicomExporter
from mri_io.export.dicom_files import (
    SourceFiles,
    describe_patient,
    made_at,
    new_uid,
    plane_geometry,
    software,
    study_of,
)
from mri_io.export.names import require_image
from mri_io.formats.base import import_extra
from mri_io.formats.dicom.headers import read_dataset
from mri_io.formats.dicom.quiet import EXTRA, quietly
from mri_io.formats.dicom.segmentation import grid_of
from mri_io.store.element import Element

__all__ = ["DicomSegExporter", "segment_code"]

SAME_GRID_MM = 1e-3
_GEOMETRY = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "Modality", "Rows",
    "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "ImageType", "DimensionIndexSequence", "DimensionOrganizationSequence",
)  # fmt: skip
"""What a segmentation needs to know of the images it refers to; nothing of it names a patient."""
_GROUPS = ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence")
_CODE = re.compile(r"(?:SCT[ :])?(\d{6,18})", re.IGNORECASE)
_TISSUE = ("85756007", "SCT", "Tissue")
_ABNORMAL = ("49755003", "SCT", "Morphologically Abnormal Structure")
_NETWORK = ("123110", "DCM", "Artificial Intelligence")
_OTHER_ALGORITHM = ("computed", "99MRIIO", "Computed by another algorithm")  # the standard's list has no such entry
_ABNORMAL_WORDS = re.compile(
    r"tumou?r|lesion|cancer|carcinoma|metasta|o?edema|necro|infarct|stroke|cyst|h(a)?emorrhage|abscess|glioma", re.I
)


class DicomSegExporter(ElementExporter):
    """A folder with a SEG object of binary segments, and the images that it refers to unless they are given.

    With the folder of the files that the volume was converted from, the object refers to these. Without it, the
    image on the grid of the labels is written beside it as `mri_io.export.dicom.DicomExporter` writes it, with the
    same UIDs.
    """

    name = "dicom-seg"
    summary = "DICOM SEG of label maps (slice, y, x), with the images that it refers to"
    gives = "a folder"
    options: ClassVar[frozenset[str]] = frozenset({"source"})
    parts = ("magnitude",)

    def names(self, item: ExportItem) -> list[str]:
        """Return the name of the folder."""
        element = item.element
        require_image(element, self.name, series=False)
        if element.type != "seg":
            fix = "Choose --format dicom for images."
            raise ConfigError(
                expected_got(
                    "element for dicom-seg", expected="seg/<name>", got=element.path, where=element.folder, fix=fix
                )
            )
        if not element.labels:
            raise ConfigError(
                expected_got("labels", expected="at least one, for DICOM", got="none", where=element.folder)
            )
        plane_geometry(element)
        if self._files is not None:
            self._files.of(item)
        else:
            self._image_of(item)
        return [self.stem(item)]

    @cached_property
    def _files(self) -> SourceFiles | None:
        return SourceFiles(self.chosen.source) if self.chosen.source is not None else None

    @cached_property
    def _images(self) -> DicomExporter:
        return DicomExporter(ExportOptions())

    def _image_of(self, item: ExportItem) -> ExportItem:
        """Return the first image of the volume on the grid of its labels that DICOM holds; ConfigError without one."""
        labels, refusals = item.element, []
        for element in item.volume.elements().values():
            if element.type not in ("image", "recon", "qmap") or element.affine is None or labels.affine is None:
                continue
            same = np.allclose(element.affine, labels.affine, rtol=0, atol=SAME_GRID_MM)
            if element.shape[-3:] != labels.shape or not same:
                continue
            image = ExportItem(element)
            try:
                self._images.names(image)
            except ConfigError as error:
                refusals.append(str(error))
            else:
                return image
        expected, got = "an image on the grid of the labels, to refer to", "; ".join(refusals) or "none"
        fix = "Give the DICOM files of the images: --source DIR"
        raise ConfigError(expected_got("volume", expected=expected, got=got, where=labels.folder, fix=fix))

    def memory(self, item: ExportItem) -> int:
        """Return what the object takes, with all labels and each segment, or the images where they are written."""
        element = item.element
        own = math.prod(element.shape) * (element.dtype.itemsize + 8 + len(element.labels))
        return own if self._files is not None else max(own, self._images.memory(self._image_of(item)))

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the object, and the images where no source is given."""
        folder = targets[0]
        folder.mkdir()
        source = self._files.of(item) if self._files is not None else []
        if not source:
            (folder / "image").mkdir()
            self._images.write_images(self._image_of(item), folder / "image", study_of(item))
            source = sorted((folder / "image").iterdir())[: item.element.shape[0]]  # of the first frame, where several
        with quietly():
            segmentation = _segmentation(item, source)
            segmentation.save_as(folder / "segmentation.dcm")


def _segmentation(item: ExportItem, source: Sequence[Path]) -> Any:
    """Return the object; segments are numbered in the order of label ids, as DICOM wants from 1 without gaps."""
    highdicom = import_extra("highdicom", EXTRA)
    element, ids = item.element, sorted(item.element.labels)
    if element.affine is None:
        raise ConfigError(expected_got("affine", expected="one, for DICOM", got="none", where=element.folder))
    study = study_of(item, source)
    grid = grid_of(element.affine, element.shape)
    numbers = np.zeros(max(ids) + 1, np.uint16)
    numbers[ids] = np.arange(1, len(ids) + 1)
    volume = highdicom.Volume(
        numbers[element.numpy()], grid.affine, "PATIENT", frame_of_reference_uid=study.frame_of_reference
    )
    segmentation = highdicom.seg.Segmentation(
        source_images=[_reference(path, item) for path in source],
        pixel_array=volume,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(highdicom, element, number + 1, element.labels[label]) for number, label in enumerate(ids)
        ],
        series_instance_uid=new_uid("series", element.commit),
        series_number=100,
        sop_instance_uid=new_uid("segmentation", element.commit),
        instance_number=1,
        manufacturer="mri-io",
        manufacturer_model_name="mri-io export",
        software_versions=software(),
        device_serial_number="0",
        content_label=re.sub(r"[^A-Z0-9_ ]", "_", element.name.upper())[:16],
        series_description=element.path[:64],
    )
    describe_patient(segmentation, item)
    date, time = made_at(element)
    for name in ("InstanceCreation", "Content", "Series"):  # so that the same labels make the same file
        setattr(segmentation, f"{name}Date", date)
        setattr(segmentation, f"{name}Time", time)
    return segmentation


def _reference(path: Path, item: ExportItem) -> Any:
    """Return what a segmentation needs of a source image, without anything that tells of the patient."""
    found = read_dataset(path, [*_GEOMETRY, "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
    kept = import_extra("pydicom", EXTRA).Dataset()
    kept.file_meta = found.file_meta
    for keyword in _GEOMETRY:
        if keyword in found:
            kept[keyword] = found[keyword]
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if name in found:
            setattr(kept, name, [_places(groups) for groups in found[name].value])
    describe_patient(kept, item)
    return kept


def _places(groups: Any) -> Any:
    kept = import_extra("pydicom", EXTRA).Dataset()
    for name in _GROUPS:
        if name in groups:
            kept[name] = groups[name]
    return kept


def segment_code(label: dict[str, Any]) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """Return category and type of a segment as (value, scheme, meaning).

    A ``code`` in the form ``SCT 123456`` or ``123456`` is a SNOMED CT code of the type. Without one both are
    "Morphologically Abnormal Structure" for names of lesions, and "Tissue" for all others.

    Examples
    --------
    >>> segment_code({"name": "prostate", "code": "SCT 41216001"})[1]
    ('41216001', 'SCT', 'prostate')
    """
    name = str(label.get("name", ""))
    category = _ABNORMAL if _ABNORMAL_WORDS.search(name) else _TISSUE
    found = _CODE.fullmatch(str(label.get("code") or "").strip())
    return category, (found[1], "SCT", name[:64]) if found else category


def _description(highdicom: Any, element: Element, number: int, label: dict[str, Any]) -> Any:
    coding = import_extra("pydicom.sr.coding", EXTRA)
    category, kind = (coding.Code(*code) for code in segment_code(label))
    made = element.provenance
    method = str(made.get("method", ""))
    # Converted label maps were drawn elsewhere, as far as the store knows by hand; a network leaves its weights' hash.
    manual = method.startswith("convert") or method == "annotate"
    algorithm = None
    if not manual:
        algorithm = highdicom.AlgorithmIdentificationSequence(
            name=method[:64] or "unknown",
            family=coding.Code(*(_NETWORK if made.get("weights_sha256") else _OTHER_ALGORITHM)),
            version=f"{made.get('package', '')} {made.get('version', '')}".strip()[:64] or "unknown",
        )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=str(label.get("name", number))[:64],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="MANUAL" if manual else "AUTOMATIC",
        algorithm_identification=algorithm,
    )
