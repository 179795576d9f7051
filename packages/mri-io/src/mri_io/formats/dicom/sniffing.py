"""Whether a file is DICOM, from its first bytes and without pydicom."""

import struct
from pathlib import Path

__all__ = ["is_dicom"]

HEAD = 1024
DIRECTORY = b"1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR, which lists files and holds no image."""
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT = (
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
)  # fmt: skip
ENOUGH = 3
"""Elements in a row that make a file without preamble DICOM."""


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: with the prefix after the preamble, or a data set of groups 2 and 8 from its start.

    A DICOMDIR is not: it holds no image.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[128:132] == b"DICM":
        return DIRECTORY not in head
    return _elements(head) >= ENOUGH and DIRECTORY not in head


def _elements(head: bytes) -> int:
    """Return how many elements of groups 2 and 8, in ascending order, the bytes begin with, up to `ENOUGH`."""
    start, count, last = 0, 0, (0, -1)
    while count < ENOUGH and start + 8 <= len(head):
        tag = struct.unpack_from("<HH", head, start)
        if tag[0] not in (2, 8) or tag <= last:
            return 0
        kind = head[start + 4 : start + 6]
        if kind in _LONG:
            header, (length,) = 12, struct.unpack_from("<I", head, start + 8) if start + 12 <= len(head) else (0,)
        elif kind in _SHORT:
            header, (length,) = 8, struct.unpack_from("<H", head, start + 6)
        else:
            header, (length,) = 8, struct.unpack_from("<I", head, start + 4)
        if length > HEAD:  # what begins a data set is short
            return 0
        start, count, last = start + header + length, count + 1, tag
    return count
