"""What a file that cannot be read is, by its first bytes, and what to do about it."""

import re
from pathlib import Path

from mri_io.errors import FormatError

__all__ = ["content_of", "unexpected_content"]

HEAD_BYTES = 4096
_PAIR = "Its data are in a second file: name the two {} and {}, with one stem."
_FOLDERS = "Images of this kind are read from folders of images and masks; see the format png-pairs."
_KINDS = (
    (rb"NRRD000", "NRRD", ""),
    (rb".{344}n[i+]1\0|.{4}n[i+]2\0", "NIfTI", ""),
    (rb"\x5c\x01\0\0|\0\0\x01\x5c", "the header of an Analyze image", _PAIR.format(".hdr", ".img")),
    (rb"# Dimensions\s", "the header of BART data", _PAIR.format(".hdr", ".cfl")),
    (rb".*# === DATA DESCRIPTION FILE", "the header of a Philips image", _PAIR.format(".PAR", ".REC")),
    (rb"\x89HDF\r\n\x1a\n", "HDF5", ""),
    (rb".{128}DICM", "DICOM", ""),
    (rb"\x93NUMPY", "an array of NumPy", ""),
    (rb"MATLAB [57]\.", "a MATLAB file", ""),
    (rb"(?:.*\n)?NDims\s*=", "MetaImage", ""),
    (rb"\x89PNG\r\n", "PNG", _FOLDERS),
    (rb"\xff\xd8\xff", "JPEG", "JPEG changes grey values; convert the originals."),
    (rb"\x1f\x8b|PK\x03\x04|BZh|\xfd7zXZ", "a compressed file", "Unpack it."),
    (rb"[\t\r\n -~]+\Z", "text", ""),
)
_KNOWN = [(re.compile(pattern, re.DOTALL), what, fix) for pattern, what, fix in _KINDS]


def content_of(path: Path) -> tuple[str, str]:
    """Return what a file holds by its first bytes, and what to do about it."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "an empty file", "Copy it again from its source."
    unknown = f"no known format, {path.stat().st_size} bytes that begin with {head[:8].hex(' ')}"
    what, fix = next(((what, fix) for pattern, what, fix in _KNOWN if pattern.match(head)), (unknown, ""))
    return what, fix or "The file is truncated or of another format."


def unexpected_content(path: Path, kind: str) -> FormatError:
    """Return the error for a file that is named as one of a kind, ``"NIfTI image"``, and holds none."""
    what, fix = content_of(path)
    return FormatError(f"{path}: expected a readable {kind}, got: {what}. {fix}")
