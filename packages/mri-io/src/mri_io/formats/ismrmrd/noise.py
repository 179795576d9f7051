"""Noise readouts: the element ``noise``, and the matrix that whitens the coils."""

from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import RawElement
from mri_io.formats.ismrmrd.scan import Scan
from mri_io.formats.kspace.prewhitening import noise_whitener

__all__ = ["noise_element", "whitening_of"]


def noise_element(scan: Scan) -> RawElement | None:
    """Return the noise readouts one after the other (coil, sample), None when there are none.

    Attributes: ``dwell_time_s`` of the noise and ``readout_dwell_time_s`` of the image, ``relative_noise_bandwidth`` of
    the receiver where the header states it, and ``bandwidth_ratio``, the variance of this noise over that in k-space.
    """
    if not scan.noise.size:
        return None
    heads = scan.of.heads["number_of_samples"][scan.noise]
    coils = int(scan.head("active_channels")[0])
    parts: list[np.ndarray] = [np.empty((coils, 0), np.complex64)] * len(scan.noise)
    with scan.of.reading() as reader:
        for length in np.unique(heads):
            places = np.flatnonzero(heads == length)
            for positions, data in reader.data(scan.noise[places]):
                for position, readout in zip(positions, data, strict=True):
                    parts[places[position]] = readout
    noise = np.concatenate(parts, axis=1)
    return RawElement.of("noise", noise, attributes=_bandwidths(scan)) if noise.size else None


def _bandwidths(scan: Scan) -> dict[str, Any]:
    noise, image = (np.unique(scan.of.heads["sample_time_us"][n]) for n in (scan.noise, scan.imaging))
    times = [float(t[0]) * 1e-6 if len(t) == 1 and t[0] > 0 else None for t in (noise, image)]
    found: dict[str, Any] = {"dwell_time_s": times[0], "readout_dwell_time_s": times[1]}
    factor = scan.facts.relative_noise_bandwidth
    if factor is not None and factor > 0:
        found["relative_noise_bandwidth"] = float(factor)
    if times[0] and times[1]:
        # Noise power grows with the bandwidth, which is the inverse of the dwell time.
        found["bandwidth_ratio"] = times[1] / times[0] * found.get("relative_noise_bandwidth", 1.0)
    return found


def whitening_of(scan: Scan, noise: RawElement | None) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the whitening matrix (coil, coil), and what is to be stated of it.

    Raises
    ------
    FormatError
        When there is no noise, or its covariance is singular.
    """
    if noise is None:
        fix = "Leave --noise prewhiten out."
        raise FormatError(
            expected_got("noise readouts", expected="some, to whiten the coils", got="none", where=scan.path, fix=fix)
        )
    ratio = float(noise.attributes.get("bandwidth_ratio", 1.0))
    matrix = noise_whitener(next(iter(noise.blocks())), ratio, where=scan.path)
    condition = float(np.linalg.cond(matrix)) ** 2  # of the covariance
    return matrix, {"prewhitened": {"bandwidth_ratio": ratio, "condition_number": condition}}
