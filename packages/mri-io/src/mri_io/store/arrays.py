"""One zarr array of an element: made with the codecs of its type, read by memory mapping or through zarr."""

import json
import warnings
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import CorruptElementError
from mri_io.schema.elements import ElementType
from mri_io.store.shards import ShardWriter, mapped_shard

__all__ = ["ArrayWriter", "StoredArray", "array_metadata", "create_array"]


def create_array(
    store: Any, kind: ElementType, shape: tuple[int, ...], dtype: np.dtype[Any], dims: tuple[str, ...]
) -> Any:
    """Create the metadata of an array with the codecs of its element type; return the zarr array."""
    import zarr
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec

    item = dtype.itemsize if dtype.kind != "c" else dtype.itemsize // 2
    compressors: dict[str, list[Any]] = {
        "raw": [Crc32cCodec()],
        "blosc": [
            BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=item, blocksize=0),
            Crc32cCodec(),
        ],
        "zstd": [ZstdCodec(level=3, checksum=True)],
    }
    return zarr.create_array(
        store=store,
        shape=shape,
        dtype=dtype,
        chunks=kind.chunks(shape),
        shards=None if kind.whole else kind.shards(shape, dtype.itemsize),
        serializer=BytesCodec(endian="little" if dtype.itemsize > 1 else None),
        compressors=compressors[kind.codec],
        fill_value=0,
        dimension_names=dims,
        zarr_format=3,
        config={"write_empty_chunks": True},
    )


@lru_cache(maxsize=256)
def array_metadata(
    kind: ElementType, shape: tuple[int, ...], dtype: np.dtype[Any], dims: tuple[str, ...]
) -> dict[str, Any]:
    """Return the zarr metadata that an array of this type is written with."""
    from zarr.storage import MemoryStore

    metadata: dict[str, Any] = create_array(MemoryStore(), kind, shape, dtype, dims).metadata.to_dict()
    return metadata


class ArrayWriter:
    """Write an array along its first dimension, whole shards only, in bounded memory.

    Uncompressed shards are streamed slice by slice; compressed ones are gathered until a shard is full.

    Parameters
    ----------
    folder
        The array's folder.
    kind
        The element type.
    shape, dtype, dims
        Of the whole array.
    """

    def __init__(
        self,
        folder: Path,
        kind: ElementType,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        dims: tuple[str, ...],
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._folder = folder
        self._array = create_array(str(folder), kind, shape, dtype, dims)
        self._per_shard = kind.shards(shape, dtype.itemsize)[0]
        self._raw = kind.codec == "raw"
        self._shard: ShardWriter | None = None
        self._gathered: list[np.ndarray] = []
        self.written = 0

    def append(self, block: np.ndarray) -> None:
        """Append slices; `block` has the array's shape but for its first dimension."""
        if self._raw:
            for item in block:
                self._append_raw(item)
            return
        for start in range(0, len(block), self._per_shard):
            self._gathered.extend(block[start : start + self._per_shard])
            while len(self._gathered) >= self._per_shard:
                self._write_gathered(self._per_shard)

    def _append_raw(self, item: np.ndarray) -> None:
        if self._shard is None:
            number = self.written // self._per_shard
            path = self._folder.joinpath("c", str(number), *["0"] * (len(self.shape) - 1))
            self._shard = ShardWriter(path, self._per_shard)
        self._shard.append(np.asarray(item, dtype=self.dtype))
        self.written += 1
        if self.written % self._per_shard == 0 or self.written == self.shape[0]:
            self._shard.close()
            self._shard = None

    def _write_gathered(self, count: int) -> None:
        block = np.stack(self._gathered[:count])
        self._array[self.written : self.written + count] = block
        self.written += count
        del self._gathered[:count]

    def close(self) -> None:
        """Write what is left; the caller checks that all slices came."""
        if self._gathered:
            self._write_gathered(len(self._gathered))

    def abort(self) -> None:
        """Close open files after an error."""
        if self._shard is not None:
            self._shard.__exit__(RuntimeError, None, None)
            self._shard = None


class StoredArray:
    """Read an array of an element; uncompressed shards by memory mapping, anything else through zarr.

    Parameters
    ----------
    folder
        The array's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "zarr.json"
        try:
            self.metadata: dict[str, Any] = json.loads(path.read_bytes())
            self.shape: tuple[int, ...] = tuple(int(n) for n in self.metadata["shape"])
            self.dtype: np.dtype[Any] = np.dtype(self.metadata["data_type"])
            self.dims: tuple[str, ...] = tuple(self.metadata["dimension_names"])
        except FileNotFoundError:
            raise CorruptElementError(f"{path}: expected array metadata, found no file.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptElementError(f"{path}: the array metadata cannot be read: {error!r}.") from None

    @cached_property
    def _reader(self) -> Callable[[int], np.ndarray] | None:
        """A function that returns a read-only chunk by its position on the first axis, or None."""
        try:
            (sharding,) = self.metadata["codecs"]
            configuration = sharding["configuration"]
            chunk = tuple(configuration["chunk_shape"])
            shard = tuple(self.metadata["chunk_grid"]["configuration"]["chunk_shape"])
            mappable = (
                sharding["name"] == "sharding_indexed"
                and [codec["name"] for codec in configuration["codecs"]] == ["bytes", "crc32c"]
                and configuration["codecs"][0]["configuration"]["endian"] == "little"
                and [codec["name"] for codec in configuration["index_codecs"]] == ["bytes", "crc32c"]
                and configuration.get("index_location", "end") == "end"
                and chunk == (1, *self.shape[1:])
                and shard[1:] == self.shape[1:]
                and self.metadata["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
            )
        except (ValueError, KeyError, TypeError, IndexError):
            return None
        if not mappable:
            return None
        zeros = ["0"] * (len(self.shape) - 1)
        per_shard = int(shard[0])

        def read(index: int) -> np.ndarray:
            path = self.folder.joinpath("c", str(index // per_shard), *zeros)
            return mapped_shard(path, per_shard, chunk[1:], self.dtype).chunk(index % per_shard)

        return read

    @property
    def is_mapped(self) -> bool:
        """Whether slices are read by memory mapping."""
        return self._reader is not None

    def zarr(self) -> Any:
        """Open the array with zarr."""
        import zarr

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)
            return zarr.open_array(str(self.folder), mode="r", zarr_format=3)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read by numpy's basic indexing; the result is a writable copy."""
        parts = index if isinstance(index, tuple) else (index,)
        if self._reader is None or not parts or not isinstance(parts[0], int | np.integer | slice):
            return self._through_zarr(index)
        first, rest = parts[0], parts[1:]
        if isinstance(first, slice):
            positions = range(*first.indices(self.shape[0]))
            if not positions:
                return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
            if not rest:
                out = np.empty((len(positions), *self.shape[1:]), self.dtype)
                for row, position in enumerate(positions):
                    np.copyto(out[row], self._reader(position))
                return out
            return np.stack([self._reader(position)[rest] for position in positions])
        position = int(first)
        if not -self.shape[0] <= position < self.shape[0]:
            raise IndexError(f"index {position} is out of range for {self.shape[0]} slices")
        return np.array(self._reader(position % self.shape[0])[rest])

    def _through_zarr(self, index: Any) -> np.ndarray:
        from zarr.errors import BaseZarrError

        try:
            return np.asarray(self.zarr()[index])
        except (ValueError, RuntimeError, TypeError, KeyError, OSError, BaseZarrError) as error:
            raise CorruptElementError(
                f"{self.folder}: cannot be decoded: {error}. The data have been damaged: restore them from a "
                "copy, or remove the element and make it again."
            ) from error
