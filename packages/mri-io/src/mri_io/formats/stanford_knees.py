"""The fully sampled 3-D FSE knees of Stanford (Epperson et al. 2013, mridata.org): ISMRMRD from a GE scanner."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mri_io.errors import FormatError
from mri_io.formats.ismrmrd.acquisitions import read_xml
from mri_io.formats.ismrmrd.cartesian import Grid
from mri_io.formats.ismrmrd.reader import IsmrmrdFormat, data_sets
from mri_io.formats.ismrmrd.scan import Scan, refuse
from mri_io.formats.kspace.xml_header import header_from_xml, scan_facts

__all__ = ["StanfordKneesFormat"]

LEAST_SAMPLED = 0.75
"""Part of all lines: an ellipse of them, without the corners, is 0.785."""
_FIX = "Read it as any ISMRMRD file: --format ismrmrd."


class StanfordKneesFormat(IsmrmrdFormat):
    """3-D k-space (kz, coil, ky, kx) of 8 coils, known by matrix and vendor in the header.

    The header's parameters ``ChopY`` and ``ChopZ`` say whether the scanner alternated the sign of lines and partitions
    to centre the image. Where one of them is 0 it did not, and the signs are alternated here.
    """

    name = "stanford-knees"
    summary = "Stanford fully sampled 3-D FSE knees (mridata.org): ISMRMRD, 8 coils, 320 x 320 x 256"

    matrix: ClassVar[tuple[int, int, int]] = (320, 320, 256)
    coils: ClassVar[int] = 8

    def sniff(self, path: Path) -> bool:
        """Whether the header of the one data set of a file states the matrix and the vendor of this set."""
        groups = data_sets(path)
        if len(groups) != 1:
            return False
        try:
            xml = read_xml(path, groups[0])
        except FormatError:
            return False
        header, facts = header_from_xml(xml), scan_facts(xml)
        if facts is None or header.encoded_matrix != self.matrix or facts.channels not in (None, self.coils):
            return False
        return (header.vendor or "").upper().startswith("GE")

    def check(self, scan: Scan, grid: Grid) -> None:
        """Raise FormatError unless it is one fully sampled volume of 8 coils with its partitions as counters."""
        expected = (self.matrix[2], self.coils, *self.matrix[1::-1])
        got = ", ".join(f"{name} {size}" for name, size in zip(grid.dims, grid.shape, strict=True))
        text = ", ".join(f"{name} {size}" for name, size in zip(("kz", "coil", "ky", "kx"), expected, strict=True))
        refuse(
            grid.dims[0] != "kz" or grid.shape != expected, scan.path, "k-space of the Stanford knees", text, got, _FIX
        )
        lines = np.unique(grid.axes.flat * grid.height + grid.rows).size
        part = lines / (grid.axes.count * grid.height)
        what = "lines of the Stanford knees, which are fully sampled"
        refuse(part < LEAST_SAMPLED, scan.path, what, f"at least {LEAST_SAMPLED:.0%}", f"{part:.0%}", _FIX)

    def corrections(self, scan: Scan) -> tuple[np.ndarray | None, dict[str, Any]]:
        """Return the alternating signs that the scanner left out."""
        user = dict(scan.facts.user)
        axes = {"ky": ("ChopY", "kspace_encode_step_1"), "kz": ("ChopZ", "kspace_encode_step_2")}
        missing = [axis for axis, (parameter, _) in axes.items() if user.get(parameter) == 0]
        if not missing:
            return None, {}
        steps = np.sum([scan.counter(axes[axis][1]) for axis in missing], axis=0)
        return (1 - 2 * (steps % 2)).astype(np.float32), {"signs_alternated": missing}
