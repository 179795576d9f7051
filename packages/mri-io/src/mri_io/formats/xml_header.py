"""The ISMRMRD XML header: parameters in SI units, and a copy without what identifies a patient."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import ismrmrd
import numpy as np

from mri_io.schema.attributes import Header

__all__ = ["deidentified_xml", "header_from_xml", "line_offset", "patient_of"]

NAMESPACE = "http://www.ismrm.org/ISMRMRD"

# What describes the scan; subject, study, measurement and free user parameters stay out.
_KEPT = ("version", "acquisitionSystemInformation", "experimentalConditions", "encoding", "sequenceParameters")
_PLACES = ("institutionName", "stationName", "deviceID", "deviceSerialNumber", "trajectoryDescription")


def deidentified_xml(text: str) -> str:
    """Return the header reduced to the sections that describe the scan.

    Kept are the system (without institution, station and serial numbers), experimental conditions, encoding and
    sequence parameters. Everything else goes, unknown sections and comments too: scanners put names in free text.
    A header that is no XML gives an empty string.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return ""
    _prune(root, lambda name: name in _KEPT)
    for section in root:
        _prune(section, lambda name: name not in _PLACES)
    ElementTree.register_namespace("", NAMESPACE)
    return ElementTree.tostring(root, encoding="unicode")


def _prune(parent: ElementTree.Element, keep: Callable[[str], bool]) -> None:
    for child in list(parent):
        if not keep(_local(child)):
            parent.remove(child)


def _local(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2]


def patient_of(text: str) -> str | None:
    """Return the patient's id, or else name, that a header states."""
    try:
        found = {_local(node): (node.text or "").strip() for node in ElementTree.fromstring(text).iter()}
    except ElementTree.ParseError:
        return None
    return found.get("patientID") or found.get("patientName") or None


def line_offset(text: str) -> int:
    """Return how far phase-encoding line 0 lies from row 0 of the encoded matrix.

    The header's limits name the line of k-space's centre, which belongs at half the rows: partial Fourier scans and
    scans of fewer lines than the matrix do not begin at row 0. Without limits it is 0.
    """
    encoding = _encoding(text)
    limit = None if encoding is None else _line_limit(encoding)
    return 0 if limit is None else int(encoding.encodedSpace.matrixSize.y) // 2 - int(limit.center)


def _line_limit(encoding: Any) -> Any:
    """Return the limits of the phase-encoding lines, None when unstated (some writers leave all at zero)."""
    limit = getattr(encoding.encodingLimits, "kspace_encoding_step_1", None)
    return limit if limit is not None and limit.maximum > 0 else None


def _encoding(text: str) -> Any:
    try:
        return ismrmrd.xsd.CreateFromDocument(text).encoding[0]
    except Exception:  # the parser raises whatever its XML library does
        return None


def header_from_xml(text: str) -> Header:
    """Return the acquisition parameters that an ISMRMRD header states; an unreadable header states nothing."""
    try:
        xml = ismrmrd.xsd.CreateFromDocument(text)
        encoding = xml.encoding[0]
    except Exception:  # the parser raises whatever its XML library does
        return Header()
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    limit = _line_limit(encoding)
    left = None if limit is None else int(encoded.matrixSize.y) // 2 - int(limit.center)
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
        padding_left=left,
        padding_right=None if limit is None or left is None else left + int(limit.maximum) + 1,
        trajectory=str(getattr(encoding.trajectory, "value", encoding.trajectory)),
    )


def _matrix(size: Any) -> tuple[int, int, int]:
    return int(size.x), int(size.y), int(size.z)


def _field_of_view(size: Any) -> tuple[float, float, float]:
    return float(size.x) / 1000, float(size.y) / 1000, float(size.z) / 1000


def _scaled(values: Any, factor: float) -> tuple[float, ...] | None:
    return tuple(float(value) * factor for value in values) if values else None
