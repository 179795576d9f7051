"""What exported DICOM objects have in common: UIDs, pseudonyms, geometry, and the source series found again."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import ConfigError, FormatError, expected_got
from mri_io.export.base import ExportItem
from mri_io.formats.base import import_extra
from mri_io.formats.dicom.headers import read_dataset
from mri_io.formats.dicom.quiet import EXTRA
from mri_io.formats.dicom.reader import uid_hash
from mri_io.formats.dicom.sniffing import is_dicom
from mri_io.store.element import Element

__all__ = [
    "PlaneGeometry",
    "SourceFiles",
    "Study",
    "decimal",
    "describe_patient",
    "made_at",
    "new_uid",
    "plane_geometry",
    "software",
    "study_of",
]

ORTHOGONAL = 1e-3
"""Cosine of the angle between axes up to which an affine counts as orthogonal."""
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NAMESPACE = uuid.UUID("6f1c2f6c-3d0e-5b8a-9c41-0d5f6b1e7a21")


def new_uid(*parts: object) -> str:
    """Return a UID, in the form that DICOM has for UUIDs, that is the same for the same parts."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, repr(parts)).int}"


def decimal(value: float) -> str:
    """Return a number as a decimal string of at most 16 characters, the most that DICOM allows."""
    return str(import_extra("pydicom.valuerep", EXTRA).format_number_as_ds(float(value)))


def made_at(element: Element) -> tuple[str, str]:
    """Return date and time at which an element was made, as DICOM writes them; not those of the scan."""
    digits = "".join(c for c in str(element.provenance.get("created_utc", "")) if c.isdigit())
    return (digits[:8], digits[8:14]) if len(digits) >= 14 else ("", "")


@dataclass(frozen=True)
class PlaneGeometry:
    """Where the slices of a volume lie, in the patient's coordinates (LPS).

    `orientation` holds the directions of increasing column and row, `spacing` the distances (mm) between rows, columns
    and slices, `positions` the first pixels of all slices. `order` lists slices along the normal of the images.
    """

    orientation: np.ndarray
    spacing: tuple[float, float, float]
    positions: np.ndarray
    order: tuple[int, ...]


def plane_geometry(element: Element) -> PlaneGeometry:
    """Return the geometry of an element.

    Raises
    ------
    ConfigError
        When it has no affine, or one with axes that are not orthogonal, which DICOM images do not have.
    """
    if element.affine is None:
        fix = "Choose another format."
        raise ConfigError(expected_got("affine", expected="one, for DICOM", got="none", where=element.folder, fix=fix))
    affine = TO_LPS @ element.affine
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > ORTHOGONAL:
        fix = "Resample it, or choose nifti."
        got = np.round(element.affine[:3, :3], 4).tolist()
        raise ConfigError(
            expected_got("affine", expected="orthogonal axes, for DICOM", got=got, where=element.folder, fix=fix)
        )
    count = element.shape[-3]
    positions = affine[:3, 3] + np.arange(count)[:, None] * affine[:3, 2]
    along = np.linalg.det(axes) > 0
    return PlaneGeometry(
        orientation=axes[:, :2].T.ravel(),
        spacing=(float(lengths[1]), float(lengths[0]), float(lengths[2])),
        positions=positions,
        order=tuple(range(count)) if along else tuple(range(count - 1, -1, -1)),
    )


class SourceFiles:
    """The DICOM files of a folder, found by the hashes that the store has of their UIDs."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(expected_got("source", expected="the folder of the DICOM files", got=folder))
        self.folder = folder
        self._series: dict[str, dict[str, Path]] = {}
        for path in sorted(folder.absolute().rglob("*")):
            if path.is_file() and is_dicom(path):
                try:
                    header = read_dataset(path, ["SeriesInstanceUID", "SOPInstanceUID"])
                except FormatError:
                    continue  # it is none of those that were converted
                series = self._series.setdefault(uid_hash(str(header.get("SeriesInstanceUID", ""))), {})
                series[uid_hash(str(header.get("SOPInstanceUID", "")))] = path

    def of(self, item: ExportItem) -> list[Path]:
        """Return the files that an element's volume was converted from, a file for each slice or one for all.

        Raises
        ------
        ConfigError
            When the volume was not converted from DICOM, or files of its series are not in the folder.
        """
        known = item.volume.attributes.get("dicom_source")
        where = item.element.folder
        if not known:
            fix = "Leave --source out: a study of its own is made."
            raise ConfigError(
                expected_got("source", expected="a volume from DICOM", got="another", where=where, fix=fix)
            )
        found = self._series.get(str(known.get("series_sha256")), {})
        wanted = [str(name) for name in known.get("instances_sha256", [])]
        missing = sum(name not in found for name in wanted)
        if missing or not wanted:
            got = f"{len(wanted) - missing} of them in {self.folder}"
            fix = "Give the folder that the volume was converted from, or leave --source out."
            expected = f"the {len(wanted)} files of its series"
            raise ConfigError(expected_got("source", expected=expected, got=got, where=where, fix=fix))
        return [found[name] for name in wanted]


@dataclass(frozen=True)
class Study:
    """The study that exported objects belong to, and their frame of reference."""

    study: str
    frame_of_reference: str


def study_of(item: ExportItem, source: Sequence[Path] = ()) -> Study:
    """Return the study of a volume: that of its source files, else one of its own that all its elements share."""
    if source:
        header = read_dataset(source[0], ["StudyInstanceUID", "FrameOfReferenceUID"])
        study, frame = str(header.get("StudyInstanceUID", "")), str(header.get("FrameOfReferenceUID", ""))
        if study and frame:
            return Study(study, frame)
    volume = item.volume
    known = (volume.id, volume.source.sha256 if volume.source else str(volume.attributes.get("created_utc")))
    return Study(new_uid("study", *known), new_uid("frame of reference", *known))


def describe_patient(dataset: Any, item: ExportItem) -> None:
    """Fill in the elements of patient and study that every object has: the pseudonym, and nothing else."""
    subject = item.volume.subject_id
    dataset.PatientName, dataset.PatientID = subject, subject
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(dataset, keyword, "")
    dataset.ReferringPhysicianName = ""
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = (
        "YES",
        "pseudonym, new object without other elements",
    )


def software() -> str:
    """Return the version of mri-io."""
    return version("mri-io")
