"""Siemens raw data (``meas_*.dat``, "twix") of software VB, VD and VE, through the package `twixtools`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem, identify, plain
from mri_io.formats.kspace.prewhitening import noise_whitener, whitened
from mri_io.formats.twix.measurement import (
    Measurement,
    ReadoutReader,
    count_coils,
    find_measurements,
    has_flag,
    index_readouts,
    is_twix,
)
from mri_io.formats.twix.protocol import Protocol, read_protocol
from mri_io.formats.twix.sorting import SortedReadouts, imaging, sort_readouts

__all__ = ["TwixFormat"]

BLOCK_COPIES, INDEX_BYTES, OTHERS = 8, 1000, 1 << 27
"""Memory: copies of a block while it is transformed, bytes of the index for one readout, the protocol and the rest."""


class TwixFormat(Format):
    """Cartesian readouts sorted into (set, frame, echo, slice or kz, coil, ky, kx); columns are the readout.

    The last measurement of a file that holds an image is read; those before it are the scanner's adjustments, of which
    only noise is taken. Lines and columns are placed so that the centre of k-space that the scanner states is in the
    middle; what was not measured is zero, and not in ``mask/acquired``. Slices lie in the order of their positions.
    """

    name = "twix"
    summary = "Siemens raw data .dat (VB, VD, VE): Cartesian k-space, 2-D and 3-D, series, noise"
    options = frozenset({"oversampling", "noise"})

    def sniff(self, path: Path) -> bool:
        """Whether the file starts with a table of measurements or a protocol as Siemens writes them."""
        return is_twix(path)

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the protocol's patient; files made anonymous name none."""
        protocol = read_protocol(find_measurements(item.path)[-1])
        acquisition = plain(protocol.sequence or "") or "twix"
        return identify(item.path, item.path.stem, acquisition, protocol.patient, aliases=protocol.aliases)

    def memory(self, item: SourceItem) -> int:
        """Return a bound for one block and its copies, and the index of all readouts."""
        try:
            measurement = find_measurements(item.path)[-1]
            protocol, coils = read_protocol(measurement), max(1, count_coils(measurement))
        except FormatError:
            return super().memory(item)
        columns = max(1, round(protocol.base_columns * protocol.oversampling))
        readouts = (measurement.end - measurement.data) // (8 * coils * columns)
        return BLOCK_COPIES * 8 * coils * protocol.lines * columns + INDEX_BYTES * readouts + OTHERS

    def read(self, item: SourceItem) -> RawVolume:
        """Sort the readouts of the image; their samples are read block by block when they are asked for."""
        measurements = find_measurements(item.path)
        number, index = _image_measurement(measurements)
        measurement = measurements[number]
        protocol = read_protocol(measurement)
        protocol.refuse_unsupported()
        kept = sort_readouts(measurement, index, protocol, keep_oversampling=item.choices.oversampling == "keep")
        attributes = {**kept.attributes, "measurement": {"number": number + 1, "of": len(measurements)}}
        noise, of_noise = _noise(measurements[: number + 1], index, kept)
        whitener = None
        if item.choices.noise == "prewhiten":
            whitener, ratio = _whitener(noise, of_noise, protocol, item.path)
            attributes["prewhitened"] = {"bandwidth_ratio": ratio}
        elements = [
            RawElement(
                "kspace",
                kept.shape,
                np.dtype(np.complex64),
                lambda: _blocks(kept, whitener),
                dims=kept.dims,
                attributes=attributes,
            )
        ]
        mask = kept.mask()
        if mask is not None:
            elements.append(mask)
        if noise is not None:
            elements.append(RawElement.of("noise", noise, attributes=of_noise))
        encoded = (kept.columns, kept.lines, kept.leading.get("kz", 1))
        return RawVolume(elements=tuple(elements), header=protocol.header(encoded))


def _image_measurement(measurements: list[Measurement]) -> tuple[int, np.ndarray]:
    """Return the number and the index of the last measurement that holds an image."""
    counts: dict[str, int] = {}
    for number in reversed(range(len(measurements))):
        index = index_readouts(measurements[number])
        image, _, others = imaging(index)
        if image.any():
            return number, index
        counts = {name: counts.get(name, 0) + others.get(name, 0) for name in counts | others}
    got = ", ".join(f"{count} of {name}" for name, count in counts.items()) or "none"
    raise FormatError(
        expected_got("readouts", expected="an image", got=got, where=measurements[0].path, fix="Leave the file out.")
    )


def _blocks(kept: SortedReadouts, whitener: np.ndarray | None) -> Iterator[np.ndarray]:
    for block in kept.blocks():
        yield block if whitener is None else whitened(block, whitener)


def _noise(
    measurements: list[Measurement], index: np.ndarray, kept: SortedReadouts
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Return noise (coil, sample) of the image's own measurement or of the last before it with the same coils."""
    with ReadoutReader.open(measurements[-1]) as reader:
        coils = reader.channel_ids(kept.readouts[0])
    for number in reversed(range(len(measurements))):
        own = number == len(measurements) - 1
        found = index if own else index_readouts(measurements[number])
        found = found[has_flag(found, "NOISEADJSCAN")]
        if not len(found):
            continue
        with ReadoutReader.open(measurements[number]) as reader:
            if reader.channel_ids(found[0]) != coils or (found["UsedChannels"] != len(coils)).any():
                continue
            noise = np.concatenate([reader.read(readout) for readout in found], axis=1).astype(np.complex64)
        # The file does not state the dwell time. The rule of siemens_to_ismrmrd: 130 Hz / pixel, 5 us in adjustments.
        samples = int(found["SamplesInScan"][0])
        exact = 1e6 / samples / 130 if not measurements[number].vd else int(76800 / samples) / 10
        return noise, {"measurement": number + 1, "dwell_time_s": (exact if own else 5.0) * 1e-6}
    return None, {}


def _whitener(
    noise: np.ndarray | None, of_noise: dict[str, Any], protocol: Protocol, path: Path
) -> tuple[np.ndarray, float]:
    if noise is None:
        fix = "Convert with --noise keep."
        raise FormatError(
            expected_got("noise", expected="noise readouts to whiten with", got="none", where=path, fix=fix)
        )
    dwell = protocol.dwell_us()
    ratio = dwell * 1e-6 / of_noise["dwell_time_s"] if dwell else 1.0
    return noise_whitener(noise, ratio, where=path), ratio
