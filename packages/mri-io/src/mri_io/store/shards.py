"""Uncompressed shards: writing them slice by slice, reading them by memory mapping.

A shard of the zarr ``sharding_indexed`` codec is the inner chunks one after another, then an index of
(offset, length) pairs as little-endian uint64, then the crc32c of the index. With the inner codecs ``bytes`` and
``crc32c`` a chunk is the array's bytes followed by their crc32c. Both are read here without copies through zarr,
and written without holding more than one slice.
"""

import struct
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c
import numpy as np

from mri_io.errors import CorruptElementError

__all__ = ["MappedShard", "ShardWriter", "mapped_shard"]

_CRC = struct.Struct("<I")
_MISSING = 2**64 - 1


def crc32c(data: bytes | np.ndarray) -> int:
    """Return the crc32c (Castagnoli) of bytes or of a contiguous uint8 array, without a copy."""
    return int(google_crc32c.value(data))


class ShardWriter:
    """Write one shard file, chunk after chunk.

    Parameters
    ----------
    path
        The shard's file; its folder is made.
    chunks
        How many chunks the full shard has. A shard at the end of an array may be closed with fewer: the rest
        is marked as absent in the index, as zarr does for chunks outside the array.
    """

    def __init__(self, path: Path, chunks: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._index = np.full((chunks, 2), _MISSING, dtype="<u8")
        self._count = 0
        self._offset = 0

    def append(self, chunk: np.ndarray) -> None:
        """Append one chunk; the array is written little-endian in C order."""
        data = np.ascontiguousarray(chunk, dtype=chunk.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        self._file.write(data.data)
        self._file.write(_CRC.pack(crc32c(data)))
        self._index[self._count] = self._offset, len(data) + _CRC.size
        self._offset += len(data) + _CRC.size
        self._count += 1

    def close(self) -> None:
        """Write the index and close the file."""
        index = self._index.tobytes()
        self._file.write(index)
        self._file.write(_CRC.pack(crc32c(index)))
        self._file.close()

    def __enter__(self) -> "ShardWriter":
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; after an error it is left without an index, which no reader accepts."""
        if kind is None:
            self.close()
        else:
            self._file.close()


class MappedShard:
    """One shard file in memory mapping; each chunk's checksum is verified at its first reading.

    Parameters
    ----------
    path
        The shard's file.
    chunks
        Number of chunks in a full shard.
    shape, dtype
        Of one chunk.
    """

    def __init__(self, path: Path, chunks: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype.newbyteorder("<")
        self._bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        tail = 16 * chunks + _CRC.size
        size = path.stat().st_size
        if size < tail:
            raise CorruptElementError(
                f"{path}: expected at least {tail} bytes of shard index, got a file of {size}. "
                "The file is truncated: restore it, or remove the element and make it again."
            )
        self._map = np.asarray(np.memmap(path, mode="r", dtype=np.uint8))
        index = self._map[-tail : -_CRC.size].tobytes()
        if crc32c(index) != _CRC.unpack(self._map[-_CRC.size :].tobytes())[0]:
            raise CorruptElementError(_checksum_message(path, "shard index"))
        self._index = np.frombuffer(index, dtype="<u8").reshape(chunks, 2)
        self._verified = np.zeros(chunks, dtype=bool)

    def chunk(self, number: int, *, check: bool = True) -> np.ndarray:
        """Return a read-only view of one chunk, by default verified.

        Raises
        ------
        CorruptElementError
            When the bytes do not match their checksum or the index points outside the file.
        """
        offset, length = (int(value) for value in self._index[number])
        if length != self._bytes + _CRC.size or offset + length > self._map.size:
            found = "no chunk" if offset == _MISSING else f"{length} bytes at {offset}"
            raise CorruptElementError(
                f"{self.path}: chunk {number}: expected {self._bytes + _CRC.size} bytes inside the file of "
                f"{self._map.size}, got {found}. Remove the element and make it again."
            )
        data = self._map[offset : offset + self._bytes]
        if check and not self._verified[number]:
            stored = _CRC.unpack(self._map[offset + self._bytes : offset + length].tobytes())[0]
            if crc32c(np.asarray(data)) != stored:
                raise CorruptElementError(_checksum_message(self.path, f"chunk {number}"))
            self._verified[number] = True
        return data.view(self.dtype).reshape(self.shape)

    def check_size(self, chunks: int) -> None:
        """Raise CorruptElementError when the file holds more than its chunks and index."""
        expected = chunks * (self._bytes + _CRC.size) + self._index.size * 8 + _CRC.size
        if self._map.size != expected:
            raise CorruptElementError(
                f"{self.path}: expected {expected} bytes for {chunks} chunks, got {self._map.size}. "
                "The file has been damaged: restore it from a copy."
            )


def _checksum_message(path: Path, what: str) -> str:
    return (
        f"{path}: {what}: the bytes do not match their checksum (crc32c); the file has been damaged. "
        "Restore it from a copy, or remove the element and make it again."
    )


_CACHE: OrderedDict[tuple[str, int, int], MappedShard] = OrderedDict()
_CACHE_SIZE = 128


def mapped_shard(path: Path, chunks: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> MappedShard:
    """Return the mapping of a shard, from this process's cache when the file has not changed."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise CorruptElementError(
            f"{path}: expected a shard, found no file. Remove the element and make it again."
        ) from None
    key = (str(path), stat.st_mtime_ns, stat.st_size)
    shard = _CACHE.get(key)
    if shard is None:
        shard = _CACHE[key] = MappedShard(path, chunks, shape, dtype)
        if len(_CACHE) > _CACHE_SIZE:
            _CACHE.popitem(last=False)
    else:
        _CACHE.move_to_end(key)
    return shard
