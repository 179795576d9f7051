"""The structure of Siemens raw data files: measurements, buffers of their protocols, and an index of their readouts.

The headers of readouts are those of the package `twixtools`; what it holds of every channel of every readout would be
gigabytes for large files, so that positions and counters are kept here in one array.
"""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import import_extra

__all__ = [
    "Measurement",
    "ReadoutReader",
    "count_coils",
    "find_measurements",
    "has_flag",
    "index_readouts",
    "is_twix",
    "read_buffers",
]

MOST_MEASUREMENTS = 64
RAID_ENTRY = struct.Struct("<IIQQ64s64s")
"""Measurement id, file id, offset, length, patient, protocol."""
RAID_HEADER_BYTES = 8 + MOST_MEASUREMENTS * RAID_ENTRY.size
FIRST_MEASUREMENT = 10240
MOST_BUFFERS = 32
LEAST_PROTOCOL_BYTES, MOST_PROTOCOL_BYTES = 10_000, 1 << 28
"""A protocol in front tells VB from a table of measurements, whose first number is smaller."""
_BUFFER = re.compile(rb"(\w{4,40})\x00(.{4})", re.DOTALL)
_FIRST_BUFFER = re.compile(rb"(Config|Dicom|Meas|MeasYaps|Phoenix|Spice)\x00")
_COUNTERS = ("EvalInfoMask", "SamplesInScan", "UsedChannels", "Counter", "CutOff")
_KEPT = (*_COUNTERS, "CenterCol", "CenterLin", "CenterPar", "SliceData")
_AT_ONCE = 4096


@dataclass(frozen=True)
class Measurement:
    """One measurement of a file: where its protocol begins, where its readouts, and where it ends.

    `vd` tells the layouts of software VD and later from those of VB; `patient` is what the table of measurements says.
    """

    path: Path
    start: int
    data: int
    end: int
    vd: bool
    patient: str = ""


def is_twix(path: Path) -> bool:
    """Whether a file starts as Siemens raw data do: a table of measurements (VD and later), or a protocol (VB)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(64)
        if len(head) < 64:
            return False
        if not _is_vd(head):
            return _starts_protocol(head)
        offset = struct.unpack_from("<Q", head, 16)[0]
        if offset + 64 > path.stat().st_size:
            return bool(offset == FIRST_MEASUREMENT)  # cut off before it
        file.seek(offset)
        return _starts_protocol(file.read(64))


def _is_vd(head: bytes) -> bool:
    first, count, _, _, offset = struct.unpack_from("<IIIIQ", head)
    return first < LEAST_PROTOCOL_BYTES and 1 <= count <= MOST_MEASUREMENTS and offset >= RAID_HEADER_BYTES


def _starts_protocol(head: bytes) -> bool:
    if len(head) < 16:
        return False
    length, buffers = struct.unpack_from("<II", head)
    sensible = LEAST_PROTOCOL_BYTES <= length <= MOST_PROTOCOL_BYTES and 1 <= buffers <= MOST_BUFFERS
    return sensible and _FIRST_BUFFER.match(head, 8) is not None


def find_measurements(path: Path) -> list[Measurement]:
    """Return the measurements of a file in their order.

    Raises
    ------
    FormatError
        When the file is shorter than its table of measurements says, or where it points there is no protocol.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        table = file.read(RAID_HEADER_BYTES)
        if len(table) < 24:
            raise _damaged(path, "a header", f"{len(table)} bytes")
        vd = _is_vd(table)
        spans = [(0, size, b"")]
        if vd:
            if len(table) < RAID_HEADER_BYTES:
                raise _damaged(path, f"a table of measurements of {RAID_HEADER_BYTES} bytes", f"{size} bytes")
            count = struct.unpack_from("<I", table, 4)[0]
            entries = [RAID_ENTRY.unpack_from(table, 8 + number * RAID_ENTRY.size) for number in range(count)]
            # A single measurement that was not finished has the length zero.
            spans = [(offset, offset + (length or size - offset), name) for _, _, offset, length, name, _ in entries]
        found = []
        for start, end, name in spans:
            if end > size:
                raise _damaged(path, f"{end} bytes, the end of a measurement", f"{size} bytes")
            file.seek(start)
            head = file.read(64)
            if not _starts_protocol(head):
                raise _damaged(path, f"a protocol at byte {start}", "something else")
            data = start + struct.unpack_from("<I", head)[0]
            if data > end:
                raise _damaged(path, f"a protocol that ends at byte {data}", f"{end} bytes")
            patient = name.split(b"\0")[0].decode("latin1")
            found.append(Measurement(path, start, data, end, vd, patient))
    return found


def read_buffers(measurement: Measurement) -> dict[str, str]:
    """Return the texts of a measurement's protocol by name: ``MeasYaps``, ``Meas``, ``Config``, ``Dicom``..."""
    with measurement.path.open("rb") as file:
        file.seek(measurement.start)
        head = file.read(measurement.data - measurement.start)
    position, buffers = 8, {}
    for _ in range(struct.unpack_from("<I", head, 4)[0]):
        found = _BUFFER.match(head, position)
        if found is None:
            raise _damaged(measurement.path, "a named buffer of the protocol", repr(head[position : position + 16]))
        end = found.end() + struct.unpack("<I", found[2])[0]
        if end > len(head):
            raise _damaged(measurement.path, f"a protocol of {end} bytes", f"{len(head)} bytes")
        buffers[found[1].decode("latin1")] = head[found.end() : end].decode("latin1")
        position = end
    return buffers


def _layout(vd: bool) -> tuple[np.dtype[Any], int, int]:
    """Return the header of a readout, its bytes before the channels, and the bytes before the samples of each."""
    headers = import_extra("twixtools.mdh_def", "twix")
    readout = np.dtype(headers.Scan_header if vd else headers.VB17_header)
    channel = np.dtype(headers.Channel_header).itemsize if vd else readout.itemsize
    return readout, readout.itemsize if vd else 0, channel


def _fields(layout: np.dtype[Any]) -> dict[str, tuple[np.dtype[Any], int]]:
    return {name: (field[0], field[1]) for name, field in (layout.fields or {}).items()}


def count_coils(measurement: Measurement) -> int:
    """Return the number of receivers of the first readout."""
    layout, _, _ = _layout(measurement.vd)
    with measurement.path.open("rb") as file:
        text = os.pread(file.fileno(), layout.itemsize, measurement.data)
    if len(text) < layout.itemsize:
        raise _damaged(measurement.path, "a readout", "none")
    return int(np.frombuffer(text, layout)[0]["UsedChannels"])


def index_readouts(measurement: Measurement) -> np.ndarray:
    """Return the headers of all readouts: counters, flags, sizes and ``position`` of their bytes in the file.

    Raises
    ------
    FormatError
        When the measurement ends before its end marker, or a header has no sense.
    """
    headers = import_extra("twixtools.mdh_def", "twix")
    layout, before, of_channel = _layout(measurement.vd)
    fields = _fields(layout)
    masks = [1 << headers.mask_dict[name] for name in ("ACQEND", "SYNCDATA")]
    places = [fields[name][1] for name in ("EvalInfoMask", "SamplesInScan")]
    kept = np.dtype([("position", np.int64), *((name, fields[name][0]) for name in _KEPT)])
    parts: list[np.ndarray] = []
    texts: list[bytes] = []
    positions: list[int] = []

    def pack() -> None:
        full = np.frombuffer(b"".join(texts), layout)
        part = np.empty(len(full), kept)
        part["position"] = positions
        for name in _KEPT:
            part[name] = full[name]
        parts.append(part)
        texts.clear()
        positions.clear()

    position = measurement.data
    with measurement.path.open("rb") as file:
        while True:
            text = os.pread(file.fileno(), layout.itemsize, position)
            if len(text) < layout.itemsize or position + layout.itemsize > measurement.end:
                raise _damaged(measurement.path, "the end marker of a measurement", f"its end at byte {position}")
            (flags,), (samples, channels) = (
                struct.unpack_from(form, text, place) for form, place in zip(("<Q", "<HH"), places, strict=True)
            )
            if flags & masks[0]:
                break
            length = before + channels * (of_channel + 8 * samples)
            if flags & masks[1]:
                length = struct.unpack_from("<I", text)[0] % (1 << 25)
            else:
                texts.append(text)
                positions.append(position)
            if length < layout.itemsize or not (flags & masks[1] or samples):
                raise _damaged(measurement.path, f"the header of a readout at byte {position}", "no samples")
            position += length
            if len(texts) == _AT_ONCE:
                pack()
    pack()
    return np.concatenate(parts)


def has_flag(index: np.ndarray, *names: str) -> np.ndarray:
    """Return for each readout whether any of the named flags is set."""
    headers = import_extra("twixtools.mdh_def", "twix")
    mask = sum(1 << headers.mask_dict[name] for name in names)
    return np.asarray(index["EvalInfoMask"] & np.uint64(mask), bool)


class ReadoutReader:
    """Samples of readouts, read when asked for; made by `open`."""

    def __init__(self, measurement: Measurement, descriptor: int) -> None:
        self._measurement, self._descriptor = measurement, descriptor
        _, self._before, self._of_channel = _layout(measurement.vd)

    @classmethod
    @contextmanager
    def open(cls, measurement: Measurement) -> Iterator["ReadoutReader"]:
        """Keep the file open while reading."""
        with measurement.path.open("rb") as file:
            yield cls(measurement, file.fileno())

    def read(self, readout: np.void) -> np.ndarray:
        """Return the samples (coil, sample) of a row of the index."""
        return np.asarray(self._channels(readout)["samples"])

    def channel_ids(self, readout: np.void) -> list[int]:
        """Return the ids of the receivers of a readout, which tell its coils from those of another."""
        headers = import_extra("twixtools.mdh_def", "twix")
        layout = np.dtype(headers.Channel_header if self._measurement.vd else headers.VB17_header)
        return [int(np.frombuffer(row.tobytes(), layout)[0]["ChannelId"]) for row in self._channels(readout)["header"]]

    def _channels(self, readout: np.void) -> np.ndarray:
        channels, samples = int(readout["UsedChannels"]), int(readout["SamplesInScan"])
        layout = np.dtype([("header", f"V{self._of_channel}"), ("samples", "<c8", (samples,))])
        length = channels * layout.itemsize
        text = os.pread(self._descriptor, length, int(readout["position"]) + self._before)
        if len(text) < length:
            raise _damaged(self._measurement.path, f"a readout of {length} bytes", f"{len(text)} bytes")
        return np.frombuffer(text, layout)


def _damaged(path: Path, expected: str, got: str) -> FormatError:
    fix = "The file is truncated or damaged: copy it again from its source."
    return FormatError(expected_got("Siemens raw data", expected=expected, got=got, where=path, fix=fix))
