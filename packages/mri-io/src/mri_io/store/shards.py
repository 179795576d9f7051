"""Files of chunks: shards written chunk by chunk, and read by memory mapping.

A shard of the zarr codec ``sharding_indexed`` is the inner chunks one after another, then an index of (offset, length)
pairs as little-endian uint64, then the crc32c of the index. It is written without holding more than one chunk, and
read without going through zarr: the index once, then each chunk from the mapping, its checksum verified at its first
use in this process.
"""

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import StoreError
from mri_io.schema.elements import Codec
from mri_io.store.codecs import CRC, check_chunk, crc32c, decode_chunk, encode_chunk, encoded_size
from mri_io.store.damage import REMEDY, DamageError, bad_checksum
from mri_io.store.durable import EarlyFlush
from mri_io.store.remote.paths import AnyPath

__all__ = ["ChunkFile", "ShardWriter", "forget", "open_chunk_file"]

_ABSENT = 2**64 - 1

_PIECE_BYTES = 2**19
"""How much goes to the system at once. For pieces of 2 MiB and more Linux takes huge pages for its cache, which a
virtual machine may first have to ask its host for: measured up to eight times slower."""


def _write(file: Any, data: Any) -> None:
    """Write to a file; tests of a full disk put a failing function in this place."""
    file.write(data)


class ShardWriter:
    """Write one shard, chunk after chunk.

    Parameters
    ----------
    path
        The shard's file; its folder is made.
    codec
        How chunks are encoded.
    chunks
        How many chunks the full shard has; None writes a file that is a single chunk without an index. A shard at
        the end of an array is closed with fewer: the rest is marked absent, as zarr does for chunks outside the array.
    """

    def __init__(self, path: Path, codec: Codec, chunks: int | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._early = EarlyFlush(self._file.fileno())
        self._codec: Codec = codec
        self._index = None if chunks is None else np.full((chunks, 2), _ABSENT, dtype="<u8")
        self._offset = 0

    def write(self, number: int, chunk: np.ndarray) -> None:
        """Write the chunk that stands at `number` in the full shard, in C order."""
        start = self._offset
        for part in encode_chunk(self._codec, chunk):
            for first in range(0, len(part), _PIECE_BYTES):
                _write(self._file, part[first : first + _PIECE_BYTES])
            self._offset += len(part)
        self._early.reached(self._offset)
        if self._index is not None:
            self._index[number] = start, self._offset - start

    def close(self) -> None:
        """Write the index and close the file."""
        self._early.finish()
        if self._index is not None:
            index = self._index.tobytes()
            _write(self._file, index + CRC.pack(crc32c(index)))
        self._file.close()

    def abort(self) -> None:
        """Close the file without an index: no reader accepts it."""
        self._early.finish()
        with suppress(OSError):  # what is left in the buffer meets the full disk again
            self._file.close()


class ChunkFile:
    """A shard, or a single chunk, in memory mapping.

    Parameters
    ----------
    path
        The file.
    codec
        How its chunks are encoded.
    chunks
        Number of chunks in a full shard, None for a file that is one chunk.
    shape, dtype
        Of one chunk.
    mapped
        False reads with ordinary calls instead: an input error of a failing disk is then an OSError, where a memory
        mapping would end the process.

    Raises
    ------
    CorruptElementError
        When the file is truncated or its index damaged.
    """

    def __init__(
        self,
        path: AnyPath,
        codec: Codec,
        chunks: int | None,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        mapped: bool = True,
    ) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._codec: Codec = codec
        tail = 0 if chunks is None else 16 * chunks + CRC.size
        self._mapped = mapped
        size = self._open(tail)
        if size <= tail:
            raise DamageError(f"{path}: expected more than {tail} bytes, got {size}: truncated. {REMEDY}", "size")
        if chunks is None:
            self._index = np.array([[0, size]], dtype="<u8")
        else:
            index = self._bytes(size - tail, tail)
            if crc32c(index[: -CRC.size]) != CRC.unpack(index[-CRC.size :].tobytes())[0]:
                raise bad_checksum(f"{path}: shard index")
            self._index = np.frombuffer(index[: -CRC.size].tobytes(), dtype="<u8").reshape(chunks, 2)
        self._end = size - tail
        self._expected = encoded_size(codec, shape, dtype)
        self.verified = bytearray(len(self._index))

    def _open(self, tail: int) -> int:
        """Open the file, of which the last `tail` bytes are wanted first; return its size."""
        assert isinstance(self.path, Path)
        size = self.path.stat().st_size
        self._map: np.ndarray | None = None
        if self._mapped and size > tail:
            # A plain array view: indexing np.memmap itself costs several microseconds a time.
            self._map = np.asarray(np.memmap(self.path, mode="r", dtype=np.uint8))
        return size

    def _bytes(self, offset: int, length: int) -> np.ndarray:
        if self._map is not None:
            return self._map[offset : offset + length]
        assert isinstance(self.path, Path)
        with self.path.open("rb") as file:
            file.seek(offset)
            return np.frombuffer(file.read(length), np.uint8)

    def encoded(self, number: int, *, check: bool = True) -> np.ndarray:
        """Return the encoded bytes of a chunk, uint8; by default verified unless they have been before."""
        offset, length = (int(value) for value in self._index[number])
        if offset == _ABSENT:
            raise DamageError(f"{self.path}: chunk {number}: expected data, got none. {REMEDY}", "missing")
        if offset + length > self._end or self._expected not in (None, length):
            wanted = "" if self._expected is None else f" of {self._expected} bytes"
            raise DamageError(
                f"{self.path}: chunk {number}: expected a chunk{wanted} before byte {self._end}, "
                f"got {length} bytes at {offset}. {REMEDY}",
                "size",
            )
        data = self._bytes(offset, length)
        if check:
            self._check(number, data)
        return data

    def _check(self, number: int, data: np.ndarray) -> None:
        if not self.verified[number]:
            check_chunk(self._codec, data, f"{self.path}: chunk {number}")
            self.verified[number] = 1

    def chunk(self, number: int) -> np.ndarray:
        """Return a chunk, verified; a read-only view of the file for uncompressed ones, else a new array.

        Raises
        ------
        CorruptElementError
            When the bytes do not match their checksum, are absent, or lie outside the file.
        """
        data = self.encoded(number)
        return decode_chunk(self._codec, data, self.shape, self.dtype, f"{self.path}: chunk {number}")

    def check_layout(self, numbers: set[int]) -> None:
        """Raise CorruptElementError unless exactly these chunks are present and fill the file without gaps."""
        present = [n for n in range(len(self._index)) if int(self._index[n, 0]) != _ABSENT]
        for number in sorted(numbers):
            self.encoded(number, check=False)
        spans = sorted((int(offset), int(length)) for offset, length in self._index[present])
        position = 0
        for offset, length in spans:
            if offset != position:
                break
            position += length
        if position != self._end or set(present) != numbers:
            raise DamageError(
                f"{self.path}: expected {len(numbers)} chunks that fill {self._end} bytes, "
                f"got {len(present)} in {position}. {REMEDY}",
                "size",
            )


_Key = tuple[str, int, int, int]
_open: OrderedDict[_Key, ChunkFile] = OrderedDict()
_verified: dict[_Key, bytearray] = {}
_lock = threading.Lock()
_MOST_OPEN = 256  # every mapping holds a file descriptor


def open_chunk_file(
    path: str, codec: Codec, chunks: int | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[_Key, ChunkFile]:
    """Return the mapping of a file and its identity, from this process's cache while the file has not changed.

    What has been verified is remembered when a mapping leaves the cache.
    """
    try:
        stat = os.stat(path)  # noqa: PTH116  (Path.stat costs three times as much, on every read)
    except FileNotFoundError:
        raise DamageError(f"{path}: expected data, found no file. {REMEDY}", "missing") from None
    key = (path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    with _lock:
        found = _open.get(key)
        if found is not None:
            _open.move_to_end(key)
            return key, found
    try:
        found = ChunkFile(Path(path), codec, chunks, shape, dtype)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path}: cannot be read: {error.strerror}.") from error
    with _lock:
        found.verified = _verified.setdefault(key, found.verified)
        _open[key] = found
        if len(_open) > _MOST_OPEN:
            _open.popitem(last=False)
    return key, found


def forget() -> None:
    """Close all mappings of this process and forget what was verified: the next read of a chunk verifies it again."""
    with _lock:
        _open.clear()
        _verified.clear()
