"""DICOM files written with pydicom and highdicom, a patient planted in every element that may carry one."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from mri_io.testing.raw_files import NAME, PATIENT

__all__ = ["MR", "PLANTED", "slice_positions", "uid", "write_enhanced", "write_seg", "write_series"]

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SECRET = "Zzplanted"
PLANTED = ("plantedname", PATIENT.lower(), _SECRET.lower(), "19500203", "20111111", "2.25.")
"""What must not be found, in lower case, in a store made from these files."""
_TEXTS = (
    "AccessionNumber InstitutionName InstitutionAddress InstitutionalDepartmentName StationName StudyDescription "
    "SeriesDescription ProtocolName RequestedProcedureDescription PerformedProcedureStepDescription ImageComments "
    "PatientComments AdditionalPatientHistory DeviceSerialNumber StudyID OtherPatientIDs PatientAddress "
    "MedicalRecordLocator Occupation EthnicGroup AdmissionID RetrieveAETitle ManufacturerModelName SequenceName "
    "SoftwareVersions AcquisitionDeviceProcessingDescription ContrastBolusAgent"
)
_PEOPLE = (
    "PatientName ReferringPhysicianName PerformingPhysicianName OperatorsName PhysiciansOfRecord OtherPatientNames "
    "NameOfPhysiciansReadingStudy PatientBirthName PatientMotherBirthName RequestingPhysician"
)
_DATES = "StudyDate SeriesDate AcquisitionDate ContentDate InstanceCreationDate"


def uid(*parts: object) -> str:
    """Return a UID that is the same for the same parts."""
    return f"2.25.{int(hashlib.sha256(repr(parts).encode()).hexdigest()[:28], 16)}"


def slice_positions(affine: np.ndarray, count: int) -> list[list[float]]:
    """Return the positions (LPS) of slices of an affine of voxel (x, y, slice) to RAS+ mm."""
    return [[float(v) for v in (_TO_LPS @ affine @ [0, 0, k, 1])[:3]] for k in range(count)]


def _directions(affine: np.ndarray) -> tuple[list[float], list[float]]:
    """Return image orientation and pixel spacing."""
    matrix = (_TO_LPS @ affine)[:3, :2]
    lengths = np.linalg.norm(matrix, axis=0)
    return [float(v) for v in (matrix / lengths).T.ravel()], [float(lengths[1]), float(lengths[0])]


def _dataset(sop_class: str, instance: str, series: str, syntax: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        pydicom.uid.UID(sop_class),
        pydicom.uid.UID(instance),
    )
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset = FileDataset(
        "", {}, b"\0" * 128, meta, meta.TransferSyntaxUID.is_implicit_VR, meta.TransferSyntaxUID.is_little_endian
    )
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = sop_class, instance, uid(series)
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = uid("study"), uid("frame of reference")
    for keyword in _TEXTS.split():
        setattr(dataset, keyword, _SECRET)
    for keyword in _PEOPLE.split():
        setattr(dataset, keyword, NAME)
    for keyword in _DATES.split():
        setattr(dataset, keyword, "20111111")
    dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = (
        PATIENT,
        "19500203",
        "F",
        "061Y",
    )
    dataset.SeriesTime = dataset.StudyTime = dataset.ContentTime = "101112"
    dataset.add_new(0x00090010, "LO", "PLANTED")
    dataset.add_new(0x00091001, "LO", _SECRET)
    dataset.Modality, dataset.Manufacturer, dataset.MagneticFieldStrength = "MR", "SIEMENS", 3
    return dataset


def _pixels(dataset: Dataset, array: np.ndarray) -> None:
    dataset.Rows, dataset.Columns = array.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * array.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    stored = array.dtype.newbyteorder(">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<")
    dataset.add_new("PixelData", "OW", array.astype(stored).tobytes())


def _save(dataset: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_series(
    folder: Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    series: str = "series",
    scale: tuple[float, float] | None = None,
    syntax: str = ExplicitVRLittleEndian,
    compress: str = "",
    order: Sequence[int] | None = None,
    skip: Sequence[int] = (),
    prefix: str = "IM",
    tags: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a classic series, a file for each slice.

    Parameters
    ----------
    folder
        Where files ``<prefix>0000.dcm`` ... go.
    array
        (slice, y, x) integers as they are stored.
    affine
        Voxel (x, y, slice) to RAS+ mm.
    series
        Files of one name are one series.
    scale
        Rescale slope and intercept.
    syntax, compress
        Transfer syntax as written, and that to which pydicom then compresses.
    order
        Instance number, and place in the order of names, of each slice.
    skip
        Slices that are left out.
    prefix
        How the names of files begin.
    tags
        Further elements by keyword, or tag with value representation; a list of values, one for each slice, where it
        is as long as the array and given as a tuple.

    Returns
    -------
    list of Path
        The files in order of slices.
    """
    orientation, spacing = _directions(affine)
    step = float(np.linalg.norm(affine[:3, 2]))
    files = []
    for index, position in enumerate(slice_positions(affine, len(array))):
        number = index if order is None else order[index]
        dataset = _dataset(MR, uid(series, prefix, index), series, syntax)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.MRAcquisitionType = "SE", "SK", "2D"
        dataset.EchoTime, dataset.RepetitionTime, dataset.FlipAngle = 90, 4000, 120
        dataset.ImagePositionPatient = [f"{v:.10g}" for v in position]
        dataset.ImageOrientationPatient = [f"{v:.10f}"[:16] for v in orientation]
        dataset.PixelSpacing, dataset.SliceThickness = [f"{v:.10g}" for v in spacing], f"{step * 0.8:.6g}"
        dataset.SpacingBetweenSlices, dataset.InstanceNumber = f"{step:.10g}", number + 1
        if scale is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept = scale
        _pixels(dataset, array[index])
        for keyword, value in (tags or {}).items():
            setattr(dataset, keyword, value[index] if isinstance(value, tuple) else value)
        if compress:
            dataset.compress(compress, generate_instance_uid=False)
        path = folder / f"{prefix}{number:04d}.dcm"
        if index not in skip:
            _save(dataset, path)
            files.append(path)
    return files


def write_enhanced(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    series: str = "enhanced",
    order: Sequence[int] | None = None,
    echo_times: Sequence[float] = (30.0,),
    compress: bool = False,
    scale: tuple[float, float] = (1.0, 0.0),
) -> Path:
    """Write an enhanced multi-frame object of an array (time, echo, slice, y, x), its frames in any `order`."""
    dataset = _dataset(ENHANCED_MR, uid(series, "object"), series, ExplicitVRLittleEndian)
    orientation, spacing = _directions(affine)
    n_time, n_echo, n_slice = array.shape[:3]
    frames = [(t, e, k) for t in range(n_time) for e in range(n_echo) for k in range(n_slice)]
    frames = frames if order is None else [frames[index] for index in order]
    positions = slice_positions(affine, n_slice)
    dataset.ImageType, dataset.NumberOfFrames = ["ORIGINAL", "PRIMARY", "M", "NONE"], len(frames)
    dataset.AcquisitionContrast, dataset.EchoPulseSequence = "T2", "SPIN"
    # The dimensions: position in the stack, echo time, temporal position.
    dataset.DimensionIndexSequence = [Dataset() for _ in range(3)]
    pointers = ((0x00209057, 0x00209111), (0x00189082, 0x00189114), (0x00209128, 0x00209111))
    for item, (pointer, group) in zip(dataset.DimensionIndexSequence, pointers, strict=True):
        item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, group
    measures, plane, timing, scaling = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [f"{v:.10g}" for v in spacing], 1
    plane.ImageOrientationPatient = [f"{v:.10f}"[:16] for v in orientation]
    timing.RepetitionTime, timing.FlipAngle = 2000, 90
    scaling.RescaleSlope, scaling.RescaleIntercept, scaling.RescaleType = *scale, "US"
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.MRTimingAndRelatedParametersSequence, shared.PixelValueTransformationSequence = [timing], [scaling]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for t, e, k in frames:
        content, place, echo, groups = Dataset(), Dataset(), Dataset(), Dataset()
        content.DimensionIndexValues, content.TemporalPositionIndex = [k + 1, e + 1, t + 1], t + 1
        content.StackID, content.InStackPositionNumber = "1", k + 1
        content.FrameAcquisitionDateTime = "20111111101112"
        place.ImagePositionPatient = [f"{v:.10g}" for v in positions[k]]
        echo.EffectiveEchoTime = float(echo_times[e])
        groups.FrameContentSequence, groups.PlanePositionSequence, groups.MREchoSequence = [content], [place], [echo]
        dataset.PerFrameFunctionalGroupsSequence.append(groups)
    _pixels(dataset, np.stack([array[index] for index in frames]))
    if compress:
        dataset.compress(RLELossless, generate_instance_uid=False)
    _save(dataset, path)
    return path


def write_seg(path: Path, labels: np.ndarray, source: Sequence[Path], names: Mapping[int, str], **options: Any) -> Path:
    """Write a SEG object with highdicom.

    Parameters
    ----------
    path
        The file.
    labels
        (slice, y, x) ids in the order of `source`, or (slice, y, x, segment) of segments that overlap.
    source
        Files of the series that they belong to.
    names
        Labels of the segments.
    options
        Of `highdicom.seg.Segmentation`.
    """
    images = [pydicom.dcmread(file) for file in source]
    tissue = pydicom.sr.coding.Code("85756007", "SCT", "Tissue")
    segments = [
        highdicom.seg.SegmentDescription(number, name, tissue, tissue, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, name in names.items()
    ]
    kind = options.pop("segmentation_type", highdicom.seg.SegmentationTypeValues.BINARY)
    segmentation = highdicom.seg.Segmentation(
        images, labels, kind, segments, uid("seg", path.name), 100, uid("seg object", path.name), 1, "Maker", "Model",
        "1", "Serial", **options,
    )  # fmt: skip
    _save(segmentation, path)
    return path
