"""The ISMRMRD header of exported k-space: millimetres, milliseconds and degrees of what the store has in SI units."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ismrmrd import xsd
from xsdata.formats.dataclass.parsers import XmlParser
from xsdata.formats.dataclass.parsers.config import ParserConfig

from mri_io.schema.attributes import Header

__all__ = ["header_xml", "slice_geometry"]

GYROMAGNETIC_HZ_PER_T = 42.577478461e6  # of the proton, CODATA 2022
_TO_LPS = np.array([-1.0, -1.0, 1.0])
_TRAJECTORIES = {kind.value: kind for kind in xsd.trajectoryType}


def header_xml(
    stored: str, header: Header, sizes: Mapping[str, int], counts: Mapping[str, int], oversampling_removed: float
) -> bytes:
    """Return the header of a file.

    Parameters
    ----------
    stored
        The de-identified header that the volume came with, empty without one.
    header
        The volume's header; sizes in the order readout, lines, partitions.
    sizes
        Samples of a readout, lines and partitions of k-space as it is written: ``x``, ``y``, ``z``.
    counts
        Values that each counter takes.
    oversampling_removed
        Factor by which the field of view of k-space is smaller than that of the header along the readout.
    """
    document = _parsed(stored) or _made(header)
    document.encoding = document.encoding[:1]
    encoding = document.encoding[0]
    matrix, field = encoding.encodedSpace.matrixSize, encoding.encodedSpace.fieldOfView_mm
    matrix.x, matrix.y = sizes["x"], sizes["y"]
    matrix.z = sizes["z"] if sizes["z"] > 1 else matrix.z
    field.x = float(field.x) / oversampling_removed
    limits = {"kspace_encoding_step_1": sizes["y"], "kspace_encoding_step_2": sizes["z"], **counts}
    encoding.encodingLimits = xsd.encodingLimitsType(
        **{
            name: xsd.limitType(minimum=0, maximum=n - 1, center=n // 2 if "step" in name else 0)
            for name, n in limits.items()
        }
    )
    encoding.trajectory = _TRAJECTORIES.get(header.trajectory or "cartesian", xsd.trajectoryType.OTHER)
    sequence = document.sequenceParameters or xsd.sequenceParametersType()
    sequence.TE = [1000 * time for time in header.te_s or ()]
    document.sequenceParameters = sequence
    return str(xsd.ToXML(document)).encode()


def _parsed(stored: str) -> Any:
    """Return the stored header, None when there is none that can be read."""
    try:
        parser = XmlParser(config=ParserConfig(fail_on_unknown_properties=False))
        found = parser.from_string(stored, xsd.ismrmrdHeader)
        return found if found.encoding else None
    except Exception:  # the parser raises whatever its XML library does
        return None


def _made(header: Header) -> Any:
    """Return a header with what the store knows of the scan."""
    spaces = []
    for matrix, field in ((header.encoded_matrix, header.encoded_fov_m), (header.recon_matrix, header.recon_fov_m)):
        sizes = matrix or header.encoded_matrix or header.recon_matrix or (1, 1, 1)
        lengths = field or header.encoded_fov_m or header.recon_fov_m or (0.0, 0.0, 0.0)
        spaces.append(
            xsd.encodingSpaceType(
                matrixSize=xsd.matrixSizeType(**dict(zip("xyz", sizes, strict=True))),
                fieldOfView_mm=xsd.fieldOfViewMm(**{axis: 1000 * m for axis, m in zip("xyz", lengths, strict=True)}),
            )
        )
    degrees = [float(np.rad2deg(angle)) for angle in header.flip_angle_rad or ()]
    frequency = round((header.field_T or 0.0) * GYROMAGNETIC_HZ_PER_T)
    return xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=frequency),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor=header.vendor, systemFieldStrength_T=header.field_T
        ),
        encoding=[
            xsd.encodingType(
                encodedSpace=spaces[0],
                reconSpace=spaces[1],
                encodingLimits=xsd.encodingLimitsType(),
                trajectory=xsd.trajectoryType.CARTESIAN,
            )
        ],
        sequenceParameters=xsd.sequenceParametersType(
            TR=[1000 * time for time in header.tr_s or ()],
            TI=[1000 * time for time in header.ti_s or ()],
            flipAngle_deg=degrees,
            sequence_type=header.sequence,
        ),
    )


def slice_geometry(affine: np.ndarray, matrix: tuple[int, int, int], slices: int) -> dict[str, np.ndarray]:
    """Return the heads' geometry of each slice, LPS+ mm; a volume is one slice.

    Parameters
    ----------
    affine
        Of images on the reconstruction matrix, voxel (x, y, slice) to RAS+ mm.
    matrix
        Columns, rows, and partitions of a volume, 1 of slices.
    slices
        Number of slices.
    """
    steps = affine[:3, :3].T
    read, phase = (step / np.linalg.norm(step) for step in steps[:2])
    through = np.cross(read, phase)
    through *= np.sign(through @ steps[2]) or 1.0
    places = [[matrix[0] // 2, matrix[1] // 2, matrix[2] // 2 + n] for n in range(slices)]
    centres = np.asarray(places) @ affine[:3, :3].T + affine[:3, 3]
    found = {"read_dir": read, "phase_dir": phase, "slice_dir": through, "position": centres}
    return {name: np.broadcast_to(value * _TO_LPS, (slices, 3)) for name, value in found.items()}
