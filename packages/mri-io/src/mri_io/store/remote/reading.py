"""Files of chunks in an object store: the index by one ranged request, chunks by further ones, several at a time."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from mri_io.errors import StoreError
from mri_io.schema.elements import Codec
from mri_io.store.codecs import check_chunk
from mri_io.store.damage import REMEDY, DamageError
from mri_io.store.remote.backends import Stat
from mri_io.store.remote.paths import StorePath
from mri_io.store.shards import ChunkFile

__all__ = ["RemoteChunkFile", "batches", "close_remote", "open_remote", "zarr_store"]

_TAIL = 64 * 2**10
"""Bytes that are asked for at the end of a file, at the least: all of small files."""
_JOINED = 8 * 2**20
"""Chunks that follow one another are read by one request up to so many bytes."""
_AHEAD = 64 * 2**20
"""Bytes of chunks that are read before they are asked for, within one selection."""
_THREADS = 8
_MOST_OPEN = 1024
_T = TypeVar("_T")


class ChangedError(StoreError):
    """An object is no longer the one that was opened."""


class RemoteChunkFile(ChunkFile):
    """A shard, or a single chunk, of an object store; parameters and errors are those of `ChunkFile`.

    The object's tag is that of the first request: later ones that meet another object raise StoreError. Chunks are
    verified whenever they are read, also from the cache.
    """

    def __init__(
        self, path: StorePath, codec: Codec, chunks: int | None, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._place = path.live()
        self._ahead: dict[tuple[int, int], bytes] = {}
        self._end_bytes, self._end_start = b"", 0
        self._stat: Stat | None = None
        try:
            super().__init__(path, codec, chunks, shape, dtype, mapped=False)
        except DamageError:
            if path.cache is None or self._stat is None:
                raise
            path.cache.drop(str(path), self._stat.tag, self._end_start, len(self._end_bytes))
            super().__init__(path, codec, chunks, shape, dtype, mapped=False)

    def _open(self, tail: int) -> int:
        """Read the end of the object, which small ones consist of; return its size."""
        place, cache, wanted = self._place, self._place.cache, max(tail, _TAIL)
        self._stat = None if cache is None else place.file_stat()
        if cache is not None and self._stat is not None:
            length = min(wanted, self._stat.size)
            start = self._stat.size - length
            kept = cache.get(str(place), self._stat.tag, start, length)
            if kept is not None:
                self._end_bytes, self._end_start = kept, start
                return self._stat.size
        data, self._stat = place.backend.read_end(place.key, wanted)
        self._end_bytes, self._end_start = data, self._stat.size - len(data)
        if cache is not None:
            cache.put(str(place), self._stat.tag, self._end_start, data)
        return self._stat.size

    def _bytes(self, offset: int, length: int) -> np.ndarray:
        if offset >= self._end_start:
            inside = offset - self._end_start
            return np.frombuffer(self._end_bytes[inside : inside + length], np.uint8)
        ahead = self._ahead.pop((offset, length), None)
        return np.frombuffer(self._read(offset, length) if ahead is None else ahead, np.uint8)

    def _read(self, offset: int, length: int) -> bytes:
        """Return bytes of the object from the cache or the server."""
        place, stat = self._place, self._stat
        assert stat is not None
        if place.cache is not None:
            kept = place.cache.get(str(place), stat.tag, offset, length)
            if kept is not None:
                return kept
        data = self._fetch(offset, length, stat)
        if place.cache is not None:
            place.cache.put(str(place), stat.tag, offset, data)
        return data

    def _fetch(self, offset: int, length: int, stat: Stat) -> bytes:
        try:
            data, found = self._place.backend.read(self._place.key, offset, length)
        except FileNotFoundError:
            raise ChangedError(f"{self._place}: the object was removed after it was opened. Open it again.") from None
        if found.tag != stat.tag:
            raise ChangedError(f"{self._place}: the object was replaced after it was opened. Open it again.")
        return data

    def _check(self, number: int, data: np.ndarray) -> None:
        # Bytes that were verified before, here or in another thread, are not these: they have come anew.
        check_chunk(self._codec, data, f"{self.path}: chunk {number}")

    def forget(self, number: int) -> None:
        """Drop a chunk from the cache, after it was found damaged: it may have been on its way, not at rest."""
        place, stat = self._place, self._stat
        if place.cache is not None and stat is not None:
            offset, length = (int(value) for value in self._index[number])
            place.cache.drop(str(place), stat.tag, offset, length)
            place.cache.drop(str(place), stat.tag, self._end_start, len(self._end_bytes))

    def read_ahead(self, numbers: Iterable[int]) -> None:
        """Read chunks that are about to be asked for: neighbours by one request, several requests at a time."""
        spans = []
        for number in sorted(set(numbers)):
            offset, length = (int(value) for value in self._index[number])
            known = offset + length <= self._end and (offset, length) not in self._ahead
            if known and offset < self._end_start and not self._take_kept(offset, length):
                spans.append((offset, length))
        groups: list[list[tuple[int, int]]] = []
        for offset, length in sorted(spans):
            last = groups[-1] if groups else []
            joins = bool(last) and last[-1][0] + last[-1][1] == offset
            if joins and offset + length - last[0][0] <= _JOINED:
                last.append((offset, length))
            else:
                groups.append([(offset, length)])
        if len(groups) < 2:
            for group in groups:
                self._take(group)
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._take, groups))

    def _take_kept(self, offset: int, length: int) -> bool:
        cache, stat = self._place.cache, self._stat
        kept = None if cache is None or stat is None else cache.get(str(self._place), stat.tag, offset, length)
        if kept is not None:
            self._ahead[offset, length] = kept
        return kept is not None

    def _take(self, group: list[tuple[int, int]]) -> None:
        start, stat, cache = group[0][0], self._stat, self._place.cache
        assert stat is not None
        data = self._fetch(start, group[-1][0] + group[-1][1] - start, stat)
        for offset, length in group:
            piece = data[offset - start : offset - start + length]
            self._ahead[offset, length] = piece
            if cache is not None:
                cache.put(str(self._place), stat.tag, offset, piece)


def batches(chunks: Iterable[_T], chunk_bytes: int) -> Iterator[tuple[_T, ...]]:
    """Divide chunks into runs that may be read ahead together."""
    rest = iter(chunks)
    while batch := tuple(islice(rest, max(1, _AHEAD // max(1, chunk_bytes)))):
        yield batch


_open: OrderedDict[tuple[StorePath, str], RemoteChunkFile] = OrderedDict()
_lock = threading.Lock()


def open_remote(
    path: StorePath,
    identity: str,
    make: Callable[[StorePath], RemoteChunkFile],
    guard: Callable[[], None],
) -> RemoteChunkFile:
    """Return an open file of an element, from those of this process where it is there.

    Parameters
    ----------
    path
        The file.
    identity
        Tells the element from others in its place.
    make
        Opens it.
    guard
        Raises when the element has been replaced: called after the file was opened.
    """
    key = (path, identity)
    with _lock:
        found = _open.get(key)
        if found is not None:
            _open.move_to_end(key)
            return found
    try:
        found = make(path)
    except FileNotFoundError:
        guard()
        raise DamageError(f"{path}: expected data, found no file. {REMEDY}", "missing") from None
    guard()
    with _lock:
        _open[key] = found
        if len(_open) > _MOST_OPEN:
            _open.popitem(last=False)
    return found


def close_remote(path: StorePath, identity: str) -> None:
    """Forget an open file, which was found damaged: the next read asks the server again."""
    with _lock:
        _open.pop((path, identity), None)


def zarr_store(folder: StorePath) -> Any:
    """Return zarr's own store for a folder, for arrays that only zarr can read."""
    from zarr.storage import FsspecStore, ObjectStore

    from mri_io.store.remote.object_store import ObjectStoreBackend

    backend = folder.backend
    if isinstance(backend, ObjectStoreBackend):
        return ObjectStore(backend.store, read_only=True)
    return FsspecStore.from_url(folder.root.address, read_only=True)
