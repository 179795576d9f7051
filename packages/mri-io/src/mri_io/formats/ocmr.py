"""OCMR, cardiac cine (Chen et al. 2020, arXiv:2008.03410): ISMRMRD files such as ``fs_0001_1_5T.h5``."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.formats.base import Identity, RawVolume, SourceItem
from mri_io.formats.ismrmrd.cartesian import Grid
from mri_io.formats.ismrmrd.reader import IsmrmrdFormat, data_sets
from mri_io.formats.ismrmrd.scan import Scan, refuse

__all__ = ["OcmrFormat"]

_NAME = re.compile(r"(?P<sampling>fs|us)_(?P<number>[0-9]{4})(?:_[A-Za-z0-9]+)*")
_FULL, _UNDER = "fs", "us"
PILOT_TONE = (3, 1)
"""Samples at both ends of a readout that the pilot tone spoils, as the data set's own reader discards them."""
_FIX = "Rename the file, or read it as any ISMRMRD file: --format ismrmrd."


class OcmrFormat(IsmrmrdFormat):
    """Cine series (frame, slice, coil, ky, kx), known by the names of their files.

    Cardiac phases or repetitions are frames; files ``fs_`` are fully sampled, ``us_`` undersampled, each frame with
    lines of its own. The header's TR is the time from frame to frame.
    """

    name = "ocmr"
    summary = "OCMR cardiac cine: ISMRMRD files fs_NNNN_*.h5 and us_NNNN_*.h5"

    def sniff(self, path: Path) -> bool:
        """Whether the file is ISMRMRD and named as those of the set."""
        return path.suffix == ".h5" and _NAME.fullmatch(path.stem) is not None and len(data_sets(path)) == 1

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the header's subject, else after the number of the file."""
        found = super().identify(item)
        named = _NAME.fullmatch(item.path.stem)
        if found.patient or named is None:
            return found
        return replace(found, subject=f"sub-ocmr{named['number']}")

    def read(self, item: SourceItem) -> RawVolume:
        """Read a series; the frames' time step stands in the volume's attributes."""
        raw = super().read(item)
        times = raw.header.tr_s
        attributes = dict(raw.attributes) | ({"frame_step_s": times[0]} if times and times[0] > 0 else {})
        return replace(raw, header=raw.header.model_copy(update={"tr_s": None}), attributes=attributes)

    def prepare(self, scan: Scan) -> Scan:
        """Discard the samples that a pilot tone spoils."""
        if not dict(scan.facts.user).get("PilotTone"):
            return scan
        heads = scan.of.heads.copy()
        for name, count in zip(("discard_pre", "discard_post"), PILOT_TONE, strict=True):
            heads[name][scan.imaging] = np.maximum(heads[name][scan.imaging], count)
        return replace(scan, of=replace(scan.of, heads=heads))

    def check(self, scan: Scan, grid: Grid) -> None:
        """Raise FormatError unless there are frames, sampled as the file's name says."""
        got = ", ".join(f"{name} {size}" for name, size in zip(grid.dims, grid.shape, strict=True))
        refuse("frame" not in grid.dims, scan.path, "k-space of OCMR", "frames (phases or repetitions)", got, _FIX)
        named = _NAME.fullmatch(scan.path.stem)
        if named is None:
            return
        lines = np.zeros((grid.axes.count, grid.height), bool)
        lines[grid.axes.flat, grid.rows] = True
        used = np.flatnonzero(lines.any(axis=0))
        part = float(lines[:, used[0] : used[-1] + 1].mean())
        wrong = part < 1 if named["sampling"] == _FULL else part == 1
        wanted = {_FULL: "all between the first and the last, in every frame", _UNDER: "some of them in each frame"}
        expected = f"{wanted[named['sampling']]} ({named['sampling']}_)"
        refuse(wrong, scan.path, "lines of OCMR", expected, f"{part:.0%}", _FIX)

    def corrections(self, scan: Scan) -> tuple[np.ndarray | None, dict[str, Any]]:
        """Return that there was a pilot tone."""
        return None, {"pilot_tone": True} if dict(scan.facts.user).get("PilotTone") else {}
