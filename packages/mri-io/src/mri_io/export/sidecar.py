"""What a NIfTI header cannot say, under the names of BIDS: label names, units, echo times."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mri_io.schema.attributes import Header
from mri_io.store.element import Element

__all__ = ["acquisition_parameters", "bids_sidecar"]


def bids_sidecar(
    element: Element, header: Header, part: str | None, member: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return the content of the JSON file beside an image, empty where nothing is known.

    Parameters
    ----------
    element
        The element.
    header
        That of its volume.
    part
        What is written of a complex element.
    member
        Of a series: which member of its dimensions is written, 0-based; dimensions that are written whole are left out.

    Returns
    -------
    dict
        ``Labels`` (id to name and code) of label maps; ``Units``; what `acquisition_parameters` returns.
    """
    content: dict[str, Any] = {}
    if element.labels:
        content["Labels"] = {str(number): entry for number, entry in sorted(element.labels.items())}
    unit = "rad" if part == "phase" else element.attributes.get("unit")
    if unit:
        content["Units"] = unit
    return content | acquisition_parameters(element, header, member or {})


def acquisition_parameters(element: Element, header: Header, member: Mapping[str, int]) -> dict[str, Any]:
    """Return how an image was acquired, under the names of BIDS; empty for maps and labels, which were computed.

    Parameters
    ----------
    element
        The element.
    header
        That of its volume. Where it has several values of a parameter, one is returned only if it is known to be that
        of the image.
    member
        Of a series: see `bids_sidecar`.

    Returns
    -------
    dict
        ``EchoTime``, ``RepetitionTime`` and ``InversionTime`` in s, ``FlipAngle`` in degrees, ``MagneticFieldStrength``
        in T, ``Manufacturer`` and ``PulseSequenceType``, as far as they are known.
    """
    if element.type not in ("image", "recon"):
        return {}
    echoes = dict(zip(element.dims, element.shape, strict=True)).get("echo", 1)
    angles = header.flip_angle_rad
    known = {
        "EchoTime": _of_echo(header.te_s, echoes, member.get("echo")),
        "RepetitionTime": _single(header.tr_s),
        "InversionTime": _single(header.ti_s),
        "FlipAngle": _single(None if angles is None else [round(math.degrees(angle), 6) for angle in angles]),
        "MagneticFieldStrength": header.field_T,
        "Manufacturer": header.vendor,
        "PulseSequenceType": header.sequence,
    }
    return {name: value for name, value in known.items() if value is not None}


def _single(values: Sequence[float] | None) -> float | None:
    """Return a value that holds for the whole acquisition."""
    return values[0] if values is not None and len(set(values)) == 1 else None


def _of_echo(times: Sequence[float] | None, echoes: int, echo: int | None) -> float | list[float] | None:
    """Return the time of the echoes written; None where it cannot be told which of the times are theirs."""
    if times is None or len(times) not in (1, echoes):
        return None
    if echoes == 1:
        return times[0]
    if len(times) == 1:
        return None
    return list(times) if echo is None else times[echo]
