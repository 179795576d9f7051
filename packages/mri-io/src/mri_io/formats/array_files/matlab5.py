"""A look at an array in a MATLAB 5 file before SciPy reads it, which trusts the file with its own memory.

The layout is that of MathWorks' "MAT-File Format": elements with a tag of type and length; arrays consist of such, too.
"""

import math
import struct
import zlib
from pathlib import Path

from mri_io.errors import FormatError, expected_got
from mri_io.formats.unpacking import Unpacked

__all__ = ["check_matlab_5_array"]

HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
FLAGS, DIMENSIONS, NAMES = (6,), (5,), (1, 16)
COMPLEX = 0x800
NUMBER_CLASSES = range(6, 16)
SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Bytes of the numbers of each type."""
MOST_TEXT_BYTES = 4096


def check_matlab_5_array(path: Path, name: str) -> None:
    """Make sure that an array's parts have the types and lengths that its dimensions ask for.

    Raises
    ------
    FormatError
        When they have not, or there is no such array.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            order = "<" if file.read(HEADER_BYTES)[126:128] == b"IM" else ">"
            while len(tag := file.read(8)) == 8:
                kind, length = struct.unpack(order + "II", tag)
                following = file.tell() + length
                if following > size:
                    raise ValueError(f"an element ends at byte {following} of {size}")
                if kind in (MATRIX, COMPRESSED):
                    stream = Unpacked(file, length, packed=kind == COMPRESSED)
                    if kind == COMPRESSED and struct.unpack(order + "II", stream.read(8))[0] != MATRIX:
                        raise ValueError("a compressed element that is no array")
                    if _is_checked(stream, order, name):
                        return
                file.seek(following)
            raise ValueError("no such array")
    except (ValueError, struct.error, zlib.error) as error:
        fix = "The file is truncated or damaged: copy it again from its source."
        raise FormatError(
            expected_got("array", expected=f"a readable {name}", got=str(error), where=path, fix=fix)
        ) from error


def _is_checked(stream: Unpacked, order: str, name: str) -> bool:
    """Return whether this is the array of that name, its parts being what they should be."""
    flags = struct.unpack(order + "II", _part(stream, order, FLAGS, 8))[0]
    text = _part(stream, order, DIMENSIONS, MOST_TEXT_BYTES)
    dims = struct.unpack(f"{order}{len(text) // 4}i", text[: len(text) // 4 * 4])
    if _part(stream, order, NAMES, MOST_TEXT_BYTES).decode("latin1") != name:
        return False
    if flags & 0xFF not in NUMBER_CLASSES or min(dims, default=-1) < 0:
        raise ValueError(f"class {flags & 0xFF} of dimensions {dims}")
    for _ in range(2 if flags & COMPLEX else 1):
        kind, length, small = _tag(stream, order)
        wanted = math.prod(dims) * SIZES.get(kind, 0)
        if kind not in SIZES or length != wanted:
            raise ValueError(f"{length} bytes of type {kind} for dimensions {dims}")
        stream.skip(4 if small else length + -length % 8)
    return True


def _tag(stream: Unpacked, order: str) -> tuple[int, int, bool]:
    """Return type and length of a part, and whether it is a small one, whose data lie in the tag."""
    (first,) = struct.unpack(order + "I", stream.read(4))
    if first >> 16:
        return first & 0xFFFF, first >> 16, True
    return first, int(struct.unpack(order + "I", stream.read(4))[0]), False


def _part(stream: Unpacked, order: str, kinds: tuple[int, ...], most: int) -> bytes:
    kind, length, small = _tag(stream, order)
    if kind not in kinds or length > (4 if small else most):
        raise ValueError(f"{length} bytes of type {kind} in its head")
    text = stream.read(4 if small else length + -length % 8)
    return text[:length]
