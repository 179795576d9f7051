"""Bytes of a part of a file, as they are or as zlib packed them, a piece at a time."""

import zlib
from typing import BinaryIO

__all__ = ["Unpacked"]

_AT_ONCE = 1 << 20
_ZLIB_OR_GZIP = 47
"""The window's size, and that the header tells which of the two it is."""


class Unpacked:
    """Bytes of the next part of a file, from front to back.

    Parameters
    ----------
    file
        Open, at the beginning of the part.
    length
        Bytes of the part.
    packed
        Whether they are a stream of zlib or gzip.
    """

    def __init__(self, file: BinaryIO, length: int, *, packed: bool) -> None:
        self._file, self._left = file, length
        self._unpack = zlib.decompressobj(_ZLIB_OR_GZIP) if packed else None

    def read(self, count: int) -> bytes:
        """Return so many bytes; ValueError when there are fewer, `zlib.error` when they are damaged."""
        parts, missing = [], count
        while missing and (part := self._next(missing)):
            parts.append(part)
            missing -= len(part)
        if missing:
            raise ValueError(f"the array ends {missing} bytes early")
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Read so many bytes and forget them."""
        while count:
            count -= len(self.read(min(count, _AT_ONCE)))

    def finish(self) -> None:
        """Read what is left and forget it: at the end of a stream is the sum that all of it is checked by."""
        while self._next(_AT_ONCE):
            pass
        if self._unpack is not None and not self._unpack.eof:
            raise ValueError("the packed data end early")

    def _next(self, most: int) -> bytes:
        if self._unpack is None:
            return self._take(most)
        while not self._unpack.eof:
            packed = self._unpack.unconsumed_tail or self._take(_AT_ONCE)
            part = self._unpack.decompress(packed, most)
            if part or not packed:
                return part
        return b""

    def _take(self, most: int) -> bytes:
        part = self._file.read(min(most, self._left))
        self._left -= len(part)
        return part
