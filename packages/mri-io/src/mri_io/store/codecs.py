"""The three codec pipelines of the specification: how a chunk becomes bytes and bytes a chunk.

``raw``: little-endian bytes, then their crc32c. ``blosc``: zstd with bitshuffle inside a blosc frame, then the crc32c
of the frame. ``zstd``: one zstd frame that carries its own checksum.
"""

import math
import struct
from typing import Any

import google_crc32c
import numpy as np

from mri_io.schema.elements import Codec
from mri_io.store.damage import DamageError, bad_checksum

__all__ = [
    "CRC",
    "DamageError",
    "check_chunk",
    "codec_metadata",
    "crc32c",
    "decode_chunk",
    "encode_chunk",
    "encoded_size",
    "states_size",
]

CRC = struct.Struct("<I")
_BLOSC_LEVEL, _ZSTD_LEVEL = 5, 3
_ZSTD_CHECKSUM, _ZSTD_DESCRIPTOR = 0b00100, 0b11100  # RFC 8878, section 3.1.1.1.1


def crc32c(data: bytes | np.ndarray) -> int:
    """Return the crc32c (Castagnoli) of bytes or of a contiguous uint8 array, without a copy."""
    return int(google_crc32c.value(data))


def codec_metadata(codec: Codec, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """Return the ``codecs`` list of zarr metadata for chunks of this dtype."""
    little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    start = [little if dtype.itemsize > 1 else {"name": "bytes"}]
    crc: dict[str, Any] = {"name": "crc32c"}
    if codec == "raw":
        return [*start, crc]
    if codec == "blosc":
        blosc = {
            "typesize": _typesize(dtype),
            "cname": "zstd",
            "clevel": _BLOSC_LEVEL,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        }
        return [*start, {"name": "blosc", "configuration": blosc}, crc]
    return [*start, {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": True}}]


def encode_chunk(codec: Codec, chunk: np.ndarray) -> list[Any]:
    """Return the encoded bytes of a chunk as a list of buffers to be written one after the other."""
    dtype = chunk.dtype.newbyteorder("<")
    data = np.ascontiguousarray(chunk, dtype=dtype).reshape(-1).view(np.uint8)
    if codec == "zstd":
        return [_zstd().encode(data)]
    if codec == "blosc":
        data = np.frombuffer(_blosc(dtype).encode(data), np.uint8)
    return [data.data, CRC.pack(crc32c(data))]


def encoded_size(codec: Codec, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int | None:
    """Return the length of an encoded chunk, None where it depends on the data."""
    return math.prod(shape) * dtype.itemsize + CRC.size if codec == "raw" else None


def check_chunk(codec: Codec, data: np.ndarray, where: str) -> None:
    """Raise `DamageError` when encoded bytes (uint8) do not match their crc32c.

    A zstd frame is checked by decoding it, but for the bits that a decoder overlooks.
    """
    if codec == "zstd":
        # The descriptor's unused and reserved bits, and the one that says that there is a checksum.
        if data.size < 5 or data[4] & _ZSTD_DESCRIPTOR != _ZSTD_CHECKSUM:
            raise bad_checksum(where)
        return
    if data.size < CRC.size or crc32c(data[: -CRC.size]) != CRC.unpack(data[-CRC.size :].tobytes())[0]:
        raise bad_checksum(where)


def states_size(data: np.ndarray) -> bool:
    """Whether a zstd frame states the size of its content, as every one does that is written whole."""
    return data.size > 4 and bool(data[4] & 0b11100000)


def decode_chunk(
    codec: Codec, data: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any], where: str
) -> np.ndarray:
    """Return the chunk that encoded bytes hold: for ``raw`` a read-only view of them, else a new array.

    Checksums of ``raw`` and ``blosc`` are those of `check_chunk`, which comes first.
    """
    little = dtype.newbyteorder("<")
    if codec == "raw":
        return data[: -CRC.size].view(little).reshape(shape)
    out = np.empty(shape, little)
    flat = out.reshape(-1).view(np.uint8)
    try:
        if codec == "blosc":
            size = int.from_bytes(data[4:8].tobytes(), "little")  # a blosc header states the decoded size
            if size == out.nbytes:
                _blosc(dtype).decode(np.ascontiguousarray(data[: -CRC.size]), out=flat)
        else:
            decoded = np.frombuffer(_zstd().decode(np.ascontiguousarray(data)), np.uint8)
            size = decoded.size
            if size == out.nbytes:
                flat[:] = decoded
    except (RuntimeError, ValueError, TypeError) as error:
        raise DamageError(f"{bad_checksum(where)} ({error})") from None
    if size != out.nbytes:
        raise DamageError(f"{where}: expected a chunk of {out.nbytes} bytes, got {size}.", "size")
    return out


def _typesize(dtype: np.dtype[Any]) -> int:
    return dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize


def _blosc(dtype: np.dtype[Any]) -> Any:
    from numcodecs.blosc import BITSHUFFLE, Blosc  # type: ignore[import-untyped]

    return Blosc("zstd", _BLOSC_LEVEL, BITSHUFFLE, 0, typesize=_typesize(dtype))


def _zstd() -> Any:
    from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

    return Zstd(_ZSTD_LEVEL, checksum=True)
