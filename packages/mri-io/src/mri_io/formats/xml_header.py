"""The ISMRMRD XML header: parameters in SI units, and a copy without what identifies a patient."""

import re
from typing import Any

import ismrmrd
import numpy as np

from mri_io.schema.attributes import Header

__all__ = ["deidentified_xml", "header_from_xml"]

# Sections and fields that name a person, a place, a time or a study.
_PERSONAL = (
    "subjectInformation",
    "studyInformation",
    "institutionName",
    "institutionalDepartmentName",
    "stationName",
    "deviceID",
    "deviceSerialNumber",
    "measurementID",
    "seriesDate",
    "seriesTime",
    "seriesInstanceUIDRoot",
    "patientID",
    "patientName",
    "protocolName",
    "seriesDescription",
    "referencedImageSequence",
    "measurementDependency",
    "userParameters",
    "frameOfReferenceUID",
    "referencedFrameOfReferenceUID",
)


def deidentified_xml(text: str) -> str:
    """Return the header without the elements that may identify a patient, all else verbatim.

    Free-text user parameters go too: scanners put names there.
    """
    for tag in _PERSONAL:
        prefix = r"(?:[A-Za-z_][\w.-]*:)?"
        whole = rf"<{prefix}{tag}(\s[^>]*)?>.*?</{prefix}{tag}\s*>"
        empty = rf"<{prefix}{tag}(\s[^>]*)?/>"
        text = re.sub(empty, "", text, flags=re.DOTALL)
        text = re.sub(whole, "", text, flags=re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def header_from_xml(text: str) -> Header:
    """Return the acquisition parameters that an ISMRMRD header states; an unreadable header states nothing."""
    try:
        xml = ismrmrd.xsd.CreateFromDocument(text)
        encoding = xml.encoding[0]
    except Exception:  # the parser raises whatever its XML library does
        return Header()
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    sequence, system = xml.sequenceParameters, xml.acquisitionSystemInformation
    return Header(
        encoded_matrix=_matrix(encoded.matrixSize),
        recon_matrix=_matrix(recon.matrixSize),
        encoded_fov_m=_field_of_view(encoded.fieldOfView_mm),
        recon_fov_m=_field_of_view(recon.fieldOfView_mm),
        te_s=_scaled(getattr(sequence, "TE", None), 1e-3),
        tr_s=_scaled(getattr(sequence, "TR", None), 1e-3),
        ti_s=_scaled(getattr(sequence, "TI", None), 1e-3),
        flip_angle_rad=_scaled(getattr(sequence, "flipAngle_deg", None), np.pi / 180),
        field_T=getattr(system, "systemFieldStrength_T", None),
        vendor=getattr(system, "systemVendor", None),
        sequence=getattr(sequence, "sequence_type", None),
        trajectory=str(getattr(encoding.trajectory, "value", encoding.trajectory)),
    )


def _matrix(size: Any) -> tuple[int, int, int]:
    return int(size.x), int(size.y), int(size.z)


def _field_of_view(size: Any) -> tuple[float, float, float]:
    return float(size.x) / 1000, float(size.y) / 1000, float(size.z) / 1000


def _scaled(values: Any, factor: float) -> tuple[float, ...] | None:
    return tuple(float(value) * factor for value in values) if values else None
