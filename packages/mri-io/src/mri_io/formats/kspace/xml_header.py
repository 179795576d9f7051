"""The ISMRMRD XML header: parameters in SI units, and a copy without what identifies a patient."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_args, get_type_hints
from xml.etree import ElementTree

import ismrmrd
import numpy as np
from xsdata.formats.dataclass.parsers import XmlParser
from xsdata.formats.dataclass.parsers.config import ParserConfig

from mri_io.formats.base import personal_texts, without_texts
from mri_io.formats.names import is_anonymous
from mri_io.formats.vocabulary import known_coil, known_diffusion_scheme, known_model, known_sequence, known_vendor
from mri_io.schema.attributes import Header

__all__ = [
    "ScanFacts",
    "aliases_of",
    "deidentified_xml",
    "header_from_xml",
    "patient_of",
    "personal_of",
    "scan_facts",
]

NAMESPACE = "http://www.ismrm.org/ISMRMRD"

# What describes the scan; subject, study, measurement and free user parameters stay out.
_KEPT = ("version", "acquisitionSystemInformation", "experimentalConditions", "encoding", "sequenceParameters")
_PERSONAL = (
    "patientID",
    "patientName",
    "patientBirthdate",
    "accessionNumber",
    "studyID",
    "studyInstanceUID",
    "measurementID",
    "seriesInstanceUIDRoot",
)
_PLACES = ("institutionName", "stationName", "deviceID", "deviceSerialNumber", "trajectoryDescription")
_WORDS: Mapping[str, Callable[[str], str | None]] = {
    "systemVendor": known_vendor,
    "systemModel": known_model,
    "coilName": known_coil,
    "sequence_type": known_sequence,
    "diffusionScheme": known_diffusion_scheme,
}
"""What is kept of text; of other elements with text nothing is."""
_ROOT = "ismrmrdHeader"


def deidentified_xml(text: str) -> str:
    """Return the header reduced to what the ISMRMRD schema has of the scan.

    Kept are the system (without institution, station and serial numbers), experimental conditions, encoding and
    sequence parameters. Everything else goes, at every depth: sections and elements that the schema does not know,
    attributes, which it has none of, comments, text between elements, and what is no number where it has a number. Of
    text, such as the name of a coil or sequence, the known words remain (`mri_io.formats.vocabulary`), but none that is
    the patient's. A header that is no XML, or none of ISMRMRD, gives an empty string.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return ""
    if _local(root) != _ROOT:
        return ""
    kept = _kept(root, ismrmrd.xsd.ismrmrdHeader, personal_of(text))
    ElementTree.register_namespace("", NAMESPACE)
    ElementTree.indent(kept)
    return ElementTree.tostring(kept, encoding="unicode")


def _kept(node: ElementTree.Element, kind: type, personal: Sequence[str]) -> ElementTree.Element:
    """Return a copy of an element with what belongs to it by the schema."""
    copy = ElementTree.Element(f"{{{NAMESPACE}}}{_local(node)}")
    if not is_dataclass(kind):
        copy.text = _words(_local(node), node.text, personal) if kind is str else node.text
        return copy
    known = _children(kind)
    for child in node:
        belongs = known.get(_local(child))
        if belongs is not None and _is_value(child.text or "", belongs):
            copy.append(_kept(child, belongs, personal))
    return copy


@cache
def _children(kind: type) -> Mapping[str, type]:
    """Return the types of the elements that one may hold by the schema, without those that are not kept."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    left_out = [name for name in names if name not in _KEPT] if kind is ismrmrd.xsd.ismrmrdHeader else _PLACES
    return {name: _plain_type(hints[name]) for name in names if name not in left_out}


def _plain_type(hint: Any) -> type:
    """Return the type of one value: ``list[float]`` and ``float | None`` are float."""
    of = next((argument for argument in get_args(hint) if argument is not type(None)), hint)
    return of if isinstance(of, type) else object


def _is_value(text: str, kind: type) -> bool:
    """Whether text is what the schema has there: a number, one of several words; any text where it says no more."""
    try:
        if issubclass(kind, Enum):
            kind(text.strip())
        elif kind in (int, float):
            float(text)
    except ValueError:
        return False
    return kind in (int, float, str) or issubclass(kind, Enum) or is_dataclass(kind)


def _local(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2]


def personal_of(text: str) -> tuple[str, ...]:
    """Return what in a header tells who a patient is, and the parts of the name."""
    try:
        names = [node.text or "" for node in ElementTree.fromstring(text).iter() if _local(node) == "patientName"]
    except ElementTree.ParseError:
        return ()
    return personal_texts(names, aliases_of(text))


def patient_of(text: str) -> str | None:
    """Return the patient's id, or else name, that a header states, unless it is that of nobody."""
    try:
        found = {_local(node): (node.text or "").strip() for node in ElementTree.fromstring(text).iter()}
    except ElementTree.ParseError:
        return None
    stated = (found.get("patientID"), found.get("patientName"))
    return next((one for one in stated if not is_anonymous(one)), None)


def aliases_of(text: str) -> tuple[str, ...]:
    """Return what else a header states that tells who a patient is: id, name, birth date, numbers and UIDs."""
    try:
        nodes = ElementTree.fromstring(text).iter()
    except ElementTree.ParseError:
        return ()
    values = ((node.text or "").strip() for node in nodes if _local(node) in _PERSONAL)
    return tuple(dict.fromkeys(value for value in values if not is_anonymous(value)))


@dataclass(frozen=True)
class ScanFacts:
    """What sorting the readouts of a scan needs of its header, beside `Header`.

    Attributes
    ----------
    line_offset, partition_offset
        How far phase-encoding line and partition 0 lie from the first of the encoded matrix. The header's limits name
        the line of k-space's centre, which belongs at half the matrix: partial Fourier scans and scans of fewer lines
        than the matrix do not begin at 0. Without limits it is 0.
    calibration_mode
        ``embedded``, ``interleaved``, ``separate``, ``external``, ``other``, or None where the header does not say.
    relative_noise_bandwidth
        Of the receiver: the part of its bandwidth that noise passes.
    multiband_factor
        Slices that were excited together.
    channels
        Number of receivers.
    user
        The free numbers of the header by their names.
    """

    line_offset: int = 0
    partition_offset: int = 0
    calibration_mode: str | None = None
    relative_noise_bandwidth: float | None = None
    multiband_factor: int = 1
    channels: int | None = None
    user: tuple[tuple[str, float], ...] = ()


def scan_facts(text: str) -> ScanFacts | None:
    """Return what a header says of how readouts are sorted, None when it is no ISMRMRD header with an encoding."""
    xml = _document(text)
    try:
        return None if xml is None else _facts(xml)
    except (AttributeError, TypeError, ValueError):  # what is missing is None
        return None


def _facts(xml: Any) -> ScanFacts:
    encoding, system = xml.encoding[0], xml.acquisitionSystemInformation
    matrix, limits, parallel = encoding.encodedSpace.matrixSize, encoding.encodingLimits, encoding.parallelImaging
    mode = getattr(parallel, "calibrationMode", None)
    numbers = [] if xml.userParameters is None else xml.userParameters.userParameterLong
    return ScanFacts(
        line_offset=_offset(getattr(limits, "kspace_encoding_step_1", None), int(matrix.y)),
        partition_offset=_offset(getattr(limits, "kspace_encoding_step_2", None), int(matrix.z)),
        calibration_mode=None if mode is None else str(mode.value),
        relative_noise_bandwidth=getattr(system, "relativeReceiverNoiseBandwidth", None),
        multiband_factor=int(getattr(getattr(parallel, "multiband", None), "multiband_factor", None) or 1),
        channels=getattr(system, "receiverChannels", None),
        user=tuple((str(number.name), float(number.value)) for number in numbers),
    )


def _offset(limit: Any, size: int) -> int:
    if limit is None or not limit.maximum:  # some writers leave all at zero
        return 0
    # A centre of 0 with more than half of the lines is one that was not filled in.
    if not limit.center and size // 2 + int(limit.maximum) >= size:
        return 0
    return size // 2 - int(limit.center)


def _line_limit(encoding: Any) -> Any:
    """Return the limits of the phase-encoding lines, None when unstated (some writers leave all at zero)."""
    limit = getattr(encoding.encodingLimits, "kspace_encoding_step_1", None)
    return limit if limit is not None and limit.maximum > 0 else None


def _document(text: str) -> Any:
    """Return the parsed header, None when it cannot be read; elements that the schema does not know are passed over."""
    try:
        config = ParserConfig(fail_on_unknown_properties=False, fail_on_converter_warnings=True)
        parser = XmlParser(config=config)
        found = parser.from_string(text, ismrmrd.xsd.ismrmrdHeader)
        return found if found.encoding and found.encoding[0].encodedSpace.matrixSize.x is not None else None
    except Exception:  # the parser raises whatever its XML library does
        return None


def header_from_xml(text: str) -> Header:
    """Return the acquisition parameters that an ISMRMRD header states; an unreadable header states nothing."""
    xml = _document(text)
    try:
        return Header() if xml is None else _header(xml, personal_of(text))
    except (AttributeError, TypeError, ValueError):  # what is missing is None, and what is no number stays text
        return Header()


def _header(xml: Any, personal: Sequence[str]) -> Header:
    encoding = xml.encoding[0]
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
        vendor=_words("systemVendor", getattr(system, "systemVendor", None), personal),
        sequence=_words("sequence_type", getattr(sequence, "sequence_type", None), personal),
        padding_left=left,
        padding_right=None if limit is None or left is None else left + int(limit.maximum) + 1,
        trajectory=str(getattr(encoding.trajectory, "value", encoding.trajectory)),
    )


def _words(name: str, text: str | None, personal: Sequence[str]) -> str | None:
    """Return what is kept of the text of an element."""
    known = _WORDS.get(name)
    return None if known is None else known(without_texts(text or "", personal, "redacted"))  # which is no known word


def _matrix(size: Any) -> tuple[int, int, int]:
    return int(size.x), int(size.y), int(size.z)


def _field_of_view(size: Any) -> tuple[float, float, float]:
    return float(size.x) / 1000, float(size.y) / 1000, float(size.z) / 1000


def _scaled(values: Any, factor: float) -> tuple[float, ...] | None:
    return tuple(float(value) * factor for value in values) if values else None
