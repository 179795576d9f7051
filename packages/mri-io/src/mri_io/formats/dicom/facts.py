"""What a volume may tell of its scan: parameters of the acquisition, and whose it is for redaction."""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import pi
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.formats.base import Identity, identify
from mri_io.formats.dicom.headers import read_dataset
from mri_io.formats.dicom.planes import Plane, number, numbers, vector
from mri_io.formats.dicom.quiet import quietly
from mri_io.formats.dicom.stacks import Stack
from mri_io.formats.names import is_anonymous
from mri_io.formats.vocabulary import known_sequence, known_vendor
from mri_io.schema.attributes import Header

__all__ = ["ScanFacts", "read_facts", "series_attributes", "stack_header", "whose"]

_GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
_TAGS = [
    "ScanningSequence", "SequenceVariant", "SequenceName", "MRAcquisitionType", "EchoTime", "RepetitionTime",
    "InversionTime", "FlipAngle", "MagneticFieldStrength", "Manufacturer", "AcquisitionMatrix", "AngioFlag",
    "ImageType", "PulseSequenceName", "EchoPulseSequence", "AcquisitionContrast", *_GROUPS,
]  # fmt: skip
_SEQUENCES = ("SE", "IR", "GR", "EP", "RM")
_CONTRASTS = {
    "DIFFUSION": "dwi", "FLUID_ATTENUATED": "flair", "PERFUSION": "perfusion", "PROTON_DENSITY": "pd", "T1": "t1",
    "T2": "t2", "T2_STAR": "t2star", "TOF": "angio", "FLOW_ENCODED": "flow",
}  # fmt: skip
_TYPES = {"ADC": "adc", "FA": "fa", "TRACEW": "trace", "TTP": "ttp", "RCBV": "rcbv", "DIFFUSION": "dwi", "SWI": "swi"}


def read_facts(plane: Plane) -> "ScanFacts":
    """Return what the header of a plane's file says of its acquisition."""
    with quietly():
        return ScanFacts(read_dataset(plane.file, list(_TAGS)), plane.frame)


class ScanFacts:
    """Parameters of an acquisition, of a classic or an enhanced object; times in ms, angles in degrees.

    Text that a person may have written, descriptions and protocol names, is not among them.
    """

    def __init__(self, dataset: Any, frame: int = 0) -> None:
        self._dataset = dataset
        self._groups = [dataset.get(name) for name in reversed(_GROUPS)]
        self._frame = frame

    def _value(self, keyword: str, group: str = "", inside: str = "") -> float | None:
        found = number(self._dataset, keyword)
        for position, groups in enumerate(self._groups if group and found is None else ()):
            if groups:
                item = groups[0 if position else min(self._frame, len(groups) - 1)]
                if group in item and len(item[group].value):
                    found = number(item[group].value[0], inside or keyword)
                if found is not None:
                    break
        return found

    @property
    def echo_time(self) -> float | None:
        """TE."""
        return self._value("EchoTime", "MREchoSequence", "EffectiveEchoTime")

    @property
    def repetition_time(self) -> float | None:
        """TR."""
        return self._value("RepetitionTime", "MRTimingAndRelatedParametersSequence")

    @property
    def inversion_time(self) -> float | None:
        """TI."""
        return self._value("InversionTime", "MRModifierSequence", "InversionTimes")

    @property
    def flip_angle(self) -> float | None:
        """Flip angle."""
        return self._value("FlipAngle", "MRTimingAndRelatedParametersSequence")

    @property
    def field(self) -> float | None:
        """Field strength, T; files in gauss are put right."""
        found = self._value("MagneticFieldStrength")
        return found / 1e4 if found and found > 100 else found or None

    @property
    def vendor(self) -> str | None:
        """The maker, of those known; other text is left out."""
        return known_vendor(str(self._dataset.get("Manufacturer", "") or ""))

    @property
    def types(self) -> tuple[str, ...]:
        """Values of the image type."""
        return tuple(v.upper() for v in _texts(self._dataset, "ImageType"))

    @property
    def scanning(self) -> tuple[str, ...]:
        """Scanning sequence in the standard's terms, of enhanced objects too."""
        terms = [v for v in _texts(self._dataset, "ScanningSequence") if v in _SEQUENCES]
        enhanced = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}
        return tuple(terms or enhanced.get(str(self._dataset.get("EchoPulseSequence", "") or ""), []))

    @property
    def sequence(self) -> str | None:
        """Name of the sequence as far as it is of known words, else the terms of the scanning sequence."""
        names = (str(self._dataset.get(keyword, "") or "") for keyword in ("SequenceName", "PulseSequenceName"))
        known = [name for text in names if (name := known_sequence(text)) is not None]
        return (known or ["_".join(self.scanning)])[0] or None

    @property
    def encoded_matrix(self) -> tuple[int, int, int] | None:
        """Columns and rows as they were encoded, of two-dimensional scans."""
        values = [int(v) for v in numbers(self._dataset, "AcquisitionMatrix")]
        if len(values) != 4 or str(self._dataset.get("MRAcquisitionType", "")) != "2D":
            return None
        # Frequency rows, frequency columns, phase rows, phase columns; those that do not apply are 0.
        rows, columns = values[0] or values[2], values[1] or values[3]
        return (columns, rows, 1) if rows and columns else None

    def contrast(self, planes: Sequence[Plane]) -> str:
        """Return a short name of the contrast from its parameters: ``t1``, ``t2``, ``epi``, ...; else ``dicom``."""
        stated = _CONTRASTS.get(str(self._dataset.get("AcquisitionContrast", "") or "").upper())
        derived = next((name for value, name in _TYPES.items() if value in self.types[2:]), None)
        if derived or stated:
            return derived or stated or ""
        if any((plane.contrast.b_value or 0) > 0 for plane in planes):
            return "dwi"
        if str(self._dataset.get("AngioFlag", "")) == "Y":
            return "angio"
        if "EP" in self.scanning:
            return "epi"
        te, tr, ti = self.echo_time, self.repetition_time, self.inversion_time
        if "SE" in self.scanning and te is not None and tr is not None:
            if "IR" in self.scanning and (ti or 0) > 1500 and te > 60:
                return "flair"
            if te >= 60:
                return "t2"
            return "t1" if tr < 1000 else "pd" if te < 40 else "dicom"
        if "GR" in self.scanning:
            return "t1" if "IR" in self.scanning else "gre"
        return "dicom"


def _texts(dataset: Any, keyword: str) -> list[str]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    # A name is a sequence of letters to Python, several values are a list of pydicom's own.
    several = not isinstance(value, str) and hasattr(value, "append")
    return [str(v) for v in value] if several else [str(value)]


def stack_header(stack: Stack, affine: np.ndarray, facts: ScanFacts) -> Header:
    """Return the acquisition parameters of a volume, in SI units."""
    rows, columns = stack.planes[0].size
    matrix = (columns, rows, stack.counts[-1])
    fov = np.linalg.norm(affine[:3, :3], axis=0) * matrix / 1000

    def of_planes(name: str, stated: float | None, factor: float) -> tuple[float, ...] | None:
        values = {getattr(plane.contrast, name) for plane in stack.planes} - {None}
        values = values or {stated} - {None}
        return tuple(round(value * factor, 9) for value in sorted(values)) or None

    repetition = facts.repetition_time
    return Header(
        encoded_matrix=facts.encoded_matrix,
        recon_matrix=matrix,
        recon_fov_m=vector(fov),
        te_s=of_planes("echo_time", facts.echo_time, 1e-3),
        tr_s=None if not repetition else (repetition / 1000,),
        ti_s=of_planes("inversion_time", facts.inversion_time, 1e-3),
        flip_angle_rad=of_planes("flip_angle", facts.flip_angle, pi / 180),
        field_T=facts.field,
        vendor=facts.vendor,
        sequence=facts.sequence,
    )


def series_attributes(stack: Stack) -> dict[str, Any]:
    """Return what tells the sets of a series apart, and how Philips' values follow from the stored ones."""
    found: dict[str, Any] = {}
    if "set" in stack.dims:
        # Sets stand in front: their first planes are equally far from one another.
        firsts = [plane.contrast for plane in stack.planes[:: len(stack.planes) // stack.counts[0]]]
        if any(one.b_value is not None for one in firsts):
            found["b_values_s_mm2"] = [one.b_value for one in firsts]
            # Patient coordinates of DICOM are LPS.
            found["b_directions_ras"] = [
                None if one.direction is None else [-one.direction[0], -one.direction[1], one.direction[2]]
                for one in firsts
            ]
    scales = {(plane.philips_scale, plane.scale[0]) for plane in stack.planes}
    if len(scales) == 1 and (scale := scales.pop())[0]:
        found["philips_scale_slope"] = scale[0] * scale[1]  # stored value / this = what the scanner computed
    return found


_NAMES = ("PatientName", "PatientBirthName", "OtherPatientNames", "PatientMotherBirthName")
_PERSONAL = (
    "PatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "PatientAddress", "PatientTelephoneNumbers",
    "MedicalRecordLocator", "StudyID", "InstitutionName", "StationName", "DeviceSerialNumber", *_NAMES,
)  # fmt: skip
_PSEUDONYM = re.compile(r"sub-[A-Za-z0-9]+")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_UID = re.compile(r"[0-9]+(\.[0-9]+){2,}")
"""What tells one study from another; fewer parts are what is left where UIDs were taken out."""


def whose(path: Path, stem: str, acquisition: str) -> Identity:
    """Return the identity of a file: its pseudonym, and what else in it names the patient, for redaction.

    Series of one study are of one patient, named or not.
    """
    with quietly():
        dataset = read_dataset(path, [*_PERSONAL, *_UIDS])
        texts = {name: [text.strip() for text in _texts(dataset, name)] for name in _PERSONAL}
        uids = {name: uid for name in _UIDS for uid in _texts(dataset, name) if _UID.fullmatch(uid)}
    patient = next((text for text in (*texts["PatientID"], *texts["PatientName"]) if not is_anonymous(text)), None)
    names = [text for name in _NAMES for text in texts[name]]
    others = {text for values in texts.values() for text in values} | set(uids.values())
    others |= {f"{date[:4]}-{date[4:6]}-{date[6:]}" for date in texts["PatientBirthDate"] if len(date) == 8}
    study = uids.get("StudyInstanceUID")
    identity = identify(path, stem, acquisition, patient, study=study, aliases=names, whole=sorted(others))
    # Such an id is a pseudonym already, in files that were exported from a store for example.
    return replace(identity, subject=patient) if patient and _PSEUDONYM.fullmatch(patient) else identity
