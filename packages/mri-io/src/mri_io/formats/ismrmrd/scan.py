"""What the readouts of a scan are: images, noise, calibration, or something that is left out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.ismrmrd.acquisitions import COUNTERS, Acquisitions
from mri_io.formats.kspace.xml_header import ScanFacts
from mri_io.schema.attributes import Header

__all__ = ["Scan", "refuse", "sort_scan"]

_AUXILIARY = {
    "navigator": (ismrmrd.ACQ_IS_NAVIGATION_DATA,),
    "phase correction": (ismrmrd.ACQ_IS_PHASECORR_DATA,),
    "dummy": (ismrmrd.ACQ_IS_DUMMYSCAN_DATA,),
    "feedback": (ismrmrd.ACQ_IS_RTFEEDBACK_DATA, ismrmrd.ACQ_IS_HPFEEDBACK_DATA),
    "surface coil correction": (ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,),
    "phase stabilisation": (ismrmrd.ACQ_IS_PHASE_STABILIZATION, ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE),
}
"""Readouts that are no part of the image, and their flags."""
_LAYOUT = ("active_channels", "number_of_samples", "discard_pre", "discard_post", "center_sample")


@dataclass(frozen=True)
class Scan:
    """The readouts of a data set by what they are, as numbers of acquisitions in ascending order.

    Attributes
    ----------
    of
        The acquisitions.
    header, facts
        What the XML header says.
    imaging
        Readouts that k-space consists of, with the calibration lines that belong to it.
    noise
        Noise readouts with as many channels.
    calibration
        How many readouts that serve for nothing but calibration are among `imaging`, and how many are not.
    left_out
        How many readouts are left out, by what they are.
    """

    of: Acquisitions
    header: Header
    facts: ScanFacts
    imaging: np.ndarray
    noise: np.ndarray
    calibration: tuple[int, int] = (0, 0)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file."""
        return self.of.path

    def counter(self, name: str) -> np.ndarray:
        """Return an encoding counter of the imaging readouts."""
        return self.of.counter(name, self.imaging)

    def head(self, name: str) -> np.ndarray:
        """Return a field of the heads of the imaging readouts; integers as int64."""
        found = self.of.heads[name][self.imaging]
        return found.astype(np.int64) if found.dtype.kind == "u" and name != "flags" else found

    def attributes(self) -> dict[str, Any]:
        """Return what is to be stated of the choice of readouts; nothing where all were taken."""
        found: dict[str, Any] = {}
        if self.left_out:
            found["left_out"] = dict(self.left_out)
        if any(self.calibration):
            found["reference_readouts"] = dict(zip(("added", "left out"), self.calibration, strict=True))
        if self.facts.multiband_factor > 1:
            found["multiband_factor"] = self.facts.multiband_factor
        return found


def refuse(wrong: bool, path: Path, what: str, expected: object, got: object, fix: str = "") -> None:
    """Raise FormatError when something is wrong."""
    if wrong:
        raise FormatError(expected_got(what, expected=expected, got=got, where=path, fix=fix))


def sort_scan(of: Acquisitions, header: Header, facts: ScanFacts) -> Scan:
    """Sort acquisitions by their flags and encodings.

    Imaging readouts are those of the first encoding without a flag that says otherwise. Calibration lines that serve
    for nothing else are taken where they complete the same k-space: with the same readout, in a slice and frame that
    has images, on a line that is not acquired anyway, and unless the header says that they are a scan of their own.

    Raises
    ------
    FormatError
        When no imaging readouts remain, or they have different numbers of channels.
    """
    count = len(of.heads)
    left_out: dict[str, int] = {}
    noise = of.flagged(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    free = ~noise
    for name, flags in _AUXILIARY.items():
        _leave_out(left_out, name, found := free & of.flagged(*flags))
        free &= ~found
    both = of.flagged(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    only = free & of.flagged(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION) & ~both
    refuse(not (free & ~only).any(), of.path, "acquisitions", "imaging readouts", f"{count} others")
    for encoding in np.unique(of.heads["encoding_space_ref"][free & ~only]).tolist():
        if encoding:
            _leave_out(left_out, f"encoding {encoding}", free & ~only & (of.heads["encoding_space_ref"] == encoding))
    first = of.heads["encoding_space_ref"] == 0
    imaging = np.flatnonzero(free & ~only & first)
    got = f"only {', '.join(left_out)}"
    refuse(not imaging.size, of.path, "encoding", "readouts of the first encoding of the header", got)
    channels = np.unique(of.heads["active_channels"][imaging])
    refuse(len(channels) > 1, of.path, "readouts", "one number of coils", channels.tolist())
    kept = _completing(of, imaging, np.flatnonzero(only & first), facts.calibration_mode)
    fitting = of.heads["active_channels"] == channels[0]
    _leave_out(left_out, "noise of other coils", noise & ~fitting)
    return Scan(
        of,
        header,
        facts,
        np.sort(np.concatenate([imaging, kept])),
        np.flatnonzero(noise & fitting),
        (len(kept), int(only.sum()) - len(kept)),
        left_out,
    )


def _leave_out(left_out: dict[str, int], name: str, found: np.ndarray) -> None:
    if found.any():
        left_out[name] = int(found.sum())


def _completing(of: Acquisitions, imaging: np.ndarray, only: np.ndarray, mode: str | None) -> np.ndarray:
    """Return the calibration readouts that complete the k-space of the imaging readouts."""
    if mode in ("separate", "external") or not only.size:
        return only[:0]
    same = np.ones(len(only), bool)
    for name in _LAYOUT:
        same &= np.isin(of.heads[name][only], of.heads[name][imaging])
    planes = _keys(of, imaging, COUNTERS)
    lines = (*COUNTERS, "kspace_encode_step_1", "kspace_encode_step_2")
    same &= np.isin(_keys(of, only, COUNTERS), planes)
    again = np.isin(_keys(of, only, lines), _keys(of, imaging, lines))
    if mode is None and again.any():
        return only[:0]  # lines that were measured twice: a scan of its own, perhaps of another contrast
    return only[same & ~again]


def _keys(of: Acquisitions, numbers: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Return one comparable value for each acquisition's tuple of counters."""
    columns = np.stack([of.counter(name, numbers) for name in names], axis=1).astype("<u2")
    return np.ascontiguousarray(columns).view(np.dtype((np.void, 2 * len(names)))).ravel()
