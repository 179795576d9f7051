"""One zarr array of an element: written with the codecs of its type, read by memory mapping or through zarr."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import CorruptElementError, MriError
from mri_io.schema.elements import ArrayType
from mri_io.store.codecs import codec_metadata
from mri_io.store.damage import REMEDY, DamageError
from mri_io.store.layout import Layout, Selection
from mri_io.store.remote.paths import AnyPath, StorePath
from mri_io.store.remote.reading import RemoteChunkFile, batches, close_remote, open_remote, zarr_store
from mri_io.store.shards import ChunkFile, ShardWriter, open_chunk_file

__all__ = ["ArrayWriter", "StoredArray", "array_metadata"]


def array_metadata(
    kind: ArrayType, shape: tuple[int, ...], dtype: np.dtype[Any], dims: tuple[str, ...]
) -> dict[str, Any]:
    """Return the content of the ``zarr.json`` of an array of this type."""
    codecs = codec_metadata(kind.codec, dtype)
    grid = shape
    if kind.inner is not None:
        grid = kind.shard_shape(shape, dtype.itemsize)
        sharding = {
            "chunk_shape": list(kind.chunk_shape(shape)),
            "codecs": codecs,
            "index_codecs": codec_metadata("raw", np.dtype(np.uint64)),
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    fill: Any = {"c": [0.0, 0.0], "f": 0.0}.get(dtype.kind, 0)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grid)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "dimension_names": list(dims),
        "attributes": {},
    }


class ArrayWriter:
    """Write the chunks of an array in C order, whole shards, one chunk in memory at a time.

    Parameters
    ----------
    folder
        The array's folder; its ``zarr.json`` is not written here.
    kind
        Type of the array.
    shape, dtype
        Of the whole array.

    Attributes
    ----------
    leading
        The dimensions that are divided into chunks: the shape of the grid of chunks.
    chunks, written
        Number of chunks in all, and of those that are written.
    """

    def __init__(self, folder: Path, kind: ArrayType, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        metadata = array_metadata(kind, shape, dtype, ("",) * len(shape))
        layout = Layout.of(metadata)
        assert layout is not None
        self.shape, self.dtype, self.written = shape, dtype, 0
        self.leading = shape[: layout.leading]
        self.chunks = math.prod(self.leading)
        self._folder, self._layout, self._codec = folder, layout, kind.codec
        self._shard: ShardWriter | None = None
        self._path = ""

    def append(self, block: np.ndarray) -> None:
        """Append the next chunks.

        `block` has the array's shape but for its first dimension, or for leading dimensions that it lacks and the first
        one that it has; the caller makes sure that it fits where the last one ended.
        """
        grid = block.shape[: block.ndim - (len(self.shape) - len(self.leading))]
        for number in np.ndindex(grid):
            position = tuple(int(n) for n in np.unravel_index(self.written, self.leading)) if self.leading else ()
            self._write(position, block[number])
            self.written += 1

    def _write(self, position: tuple[int, ...], chunk: np.ndarray) -> None:
        path, number = self._layout.locate(position)
        if path != self._path:
            self.close()
            chunks = self._layout.chunks_per_shard
            self._shard, self._path = ShardWriter(self._folder / path, self._codec, chunks), path
        assert self._shard is not None
        self._shard.write(number, chunk.astype(self.dtype, copy=False))

    def close(self) -> None:
        """Finish the last shard; the caller checks that all rows came."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def abort(self) -> None:
        """Close open files after an error."""
        if self._shard is not None:
            self._shard.abort()
            self._shard = None


class StoredArray:
    """Read an array of an element.

    The layouts of the specification are read from a memory mapping, each chunk verified at its first use in this
    process; anything else goes through zarr. What is returned is a writable copy.

    Parameters
    ----------
    folder
        The array's folder.
    metadata
        The content of its ``zarr.json``.
    guard
        Called after a file is opened for the first time; raises when the element is no longer the one that was opened.
    identity
        Tells the element from others in its place.
    """

    def __init__(
        self, folder: AnyPath, metadata: Mapping[str, Any], guard: Callable[[], None], identity: object = None
    ) -> None:
        self.folder, self.metadata = folder, dict(metadata)
        self._guard, self._identity = guard, str(identity)
        self._trusted: set[Any] = set()
        self._complete = False
        try:
            self.shape: tuple[int, ...] = tuple(int(n) for n in metadata["shape"])
            self.dtype: np.dtype[Any] = np.dtype(metadata["data_type"])
            self.dims: tuple[str, ...] = tuple(str(name) for name in metadata["dimension_names"])
            self.layout = Layout.of(self.metadata)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DamageError(
                f"{folder / 'zarr.json'}: the array metadata cannot be read: {error!r}.", "metadata"
            ) from None

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the data in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_mapped(self) -> bool:
        """Whether chunks are read by memory mapping, without zarr."""
        return self.layout is not None

    @cached_property
    def _root(self) -> str:
        return str(self.folder)

    def file(self, path: str) -> ChunkFile:
        """Return the mapping of one of the array's files, ``c/0/0/...``."""
        layout = self.layout
        assert layout is not None
        if isinstance(self.folder, StorePath):
            return self._remote_file(self.folder, path)
        key, found = open_chunk_file(
            f"{self._root}/{path}", layout.codec, layout.chunks_per_shard, layout.chunk, self.dtype
        )
        if key not in self._trusted:
            self._guard()
            self._trusted.add(key)
        return found

    def _remote_file(self, folder: StorePath, path: str) -> RemoteChunkFile:
        layout = self.layout
        assert layout is not None

        def make(place: StorePath) -> RemoteChunkFile:
            return RemoteChunkFile(place, layout.codec, layout.chunks_per_shard, layout.chunk, self.dtype)

        try:
            return open_remote(folder / path, self._identity, make, self._guard)
        except DamageError:
            self._guard()
            raise

    def _remote_chunk(self, folder: StorePath, path: str, number: int) -> np.ndarray:
        """Return a chunk of an object store; one that arrives damaged is asked for once more."""
        for last in (False, True):
            file = self._remote_file(folder, path)
            try:
                return file.chunk(number)
            except CorruptElementError:
                file.forget(number)
                close_remote(folder / path, self._identity)
                if last:
                    self._guard()
                    raise
        raise AssertionError("unreachable")

    def _read_ahead(self, positions: Sequence[tuple[int, ...]]) -> None:
        """Ask for many chunks of an object store at a time."""
        layout = self.layout
        if layout is None or not isinstance(self.folder, StorePath):
            return
        files: dict[str, list[int]] = {}
        for position in positions:
            path, number = layout.locate(position)
            files.setdefault(path, []).append(number)
        for path, numbers in files.items():
            self._remote_file(self.folder, path).read_ahead(numbers)

    def chunk(self, position: tuple[int, ...]) -> np.ndarray:
        """Return the chunk at a position of the leading dimensions, possibly a read-only view of the file."""
        layout = self.layout
        assert layout is not None
        path, number = layout.locate(position)
        if isinstance(self.folder, StorePath):
            return self._remote_chunk(self.folder, path, number)
        try:
            return self.file(path).chunk(number)
        except CorruptElementError:
            self._guard()  # a replaced or removed element is no damage: say so instead
            raise

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read by numpy's basic indexing (integers, slices, Ellipsis) into a writable array."""
        if self.layout is None:
            return self._through_zarr(index)
        chosen = Selection(index, self.shape, self.layout.leading)
        if chosen.single is not None:
            # The fast path of training: one slice, straight from the mapping.
            return np.array(self.chunk(chosen.single)[chosen.inner], dtype=self.dtype)
        out = np.empty(chosen.shape(self.layout.chunk[self.layout.leading :]), self.dtype)
        pairs = zip(np.ndindex(*map(len, chosen.positions)), product(*chosen.positions), strict=True)
        if not isinstance(self.folder, StorePath):
            for place, position in pairs:
                out[place] = self.chunk(position)[chosen.inner]
            return out[chosen.squeeze]
        for batch in batches(pairs, math.prod(self.layout.chunk) * self.dtype.itemsize):
            self._read_ahead([position for _, position in batch])
            for place, position in batch:
                out[place] = self.chunk(position)[chosen.inner]
        return out[chosen.squeeze]

    def view(self, index: Any) -> np.ndarray:
        """Read as by indexing, but read-only, and without a copy where the index lies in one uncompressed chunk."""
        chosen = Selection(index, self.shape, 0 if self.layout is None else self.layout.leading)
        single = None if self.layout is None else chosen.single
        found = (self[index] if single is None else self.chunk(single)[chosen.inner]).view()
        found.flags.writeable = False
        return found

    def _through_zarr(self, index: Any) -> np.ndarray:
        chosen = Selection(index, self.shape, self.ndim)
        # zarr knows no negative steps: read forwards, then turn.
        forward = [_forward(positions) for positions in chosen.positions]
        turned = tuple(slice(None, None, -1 if isinstance(p, range) and p.step < 0 else 1) for p in chosen.positions)
        try:
            self._check_complete()
            read: Any = self._zarr_array()[tuple(forward)]
            found = np.array(np.asarray(read)[turned][chosen.squeeze])
        except (MriError, MemoryError):
            raise
        except Exception as error:  # decoders raise whatever they like
            self._guard()
            raise DamageError(f"{self.folder}: cannot be decoded: {error}. {REMEDY}") from error
        self._guard()
        return found

    def _zarr_array(self) -> Any:
        import zarr

        if isinstance(self.folder, StorePath):
            store = zarr_store(self.folder)
            return zarr.open_array(store, path=self.folder.key, mode="r", zarr_format=3)
        return zarr.open_array(self._root, mode="r", zarr_format=3)

    def _check_complete(self) -> None:
        """Raise CorruptElementError when files of chunks are missing: zarr would read zeros in their place."""
        if self._complete:
            return
        sizes = self.metadata["chunk_grid"]["configuration"].get("chunk_shape")
        names = (path.name for path in self.folder.rglob("*") if path.is_file())
        found = sum(1 for name in names if name != "zarr.json" and not name.startswith("."))
        wanted = math.prod(-(-n // size) for n, size in zip(self.shape, sizes, strict=True)) if sizes else found
        if found < wanted:
            self._guard()
            raise DamageError(f"{self.folder}: expected {wanted} files of data, found {found}.", "missing")
        self._complete = True


def _forward(positions: Sequence[int]) -> slice:
    """Return the slice of the same positions in ascending order."""
    if not positions:
        return slice(0, 0)
    step = abs(positions.step) if isinstance(positions, range) else 1
    return slice(min(positions[0], positions[-1]), max(positions[0], positions[-1]) + 1, step)
