"""Plain arrays, whose axes the user names: ``.npy`` and MATLAB ``.mat`` of versions 5 and 7.3."""

import re
from pathlib import Path

from mri_io.errors import FormatError, expected_got
from mri_io.formats.array_files.axes import AXES, elements_of
from mri_io.formats.array_files.sources import ArraySource, is_array_file, open_array, unpacked_bytes
from mri_io.formats.base import Format, Identity, RawVolume, SourceItem, identify
from mri_io.formats.hdf5 import holds_hdf5
from mri_io.formats.names import bids_suffix

__all__ = ["ArrayFilesFormat"]

EXAMPLES = {2: "ky,kx", 3: "coil,ky,kx", 4: "slice,coil,ky,kx", 5: "frame,slice,coil,ky,kx"}
_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
STREAMED, COPIES = 1 << 29, 3
"""Memory for blocks of an array that is read in parts, and copies of one while it is unpacked whole."""


class ArrayFilesFormat(Format):
    """Arrays of numbers without a header: what they are is what ``--axes`` says."""

    name = "arrays"
    summary = "arrays in .npy and MATLAB .mat files; --axes names their dimensions"
    options = frozenset({"axes", "variable"})

    def sniff(self, path: Path) -> bool:
        """Whether the file starts as NumPy's or MATLAB's do."""
        return is_array_file(path)

    def is_fragile(self, path: Path) -> bool:
        """Whether it is a MATLAB file that the HDF5 library reads."""
        return holds_hdf5(path)

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the file's name: arrays know no patient."""
        return identify(item.path, item.path.stem, "array")

    def memory(self, item: SourceItem) -> int:
        """Return a bound: MATLAB 5 files are unpacked whole, others read in parts."""
        try:
            return STREAMED + COPIES * unpacked_bytes(item.path, item.choices.variable)
        except FormatError:  # reading says so
            return STREAMED

    def read(self, item: SourceItem) -> RawVolume:
        """Read the array of a file, or the one that ``--variable`` names."""
        source = open_array(item.path, item.choices.variable)
        axes = item.choices.axes
        if axes is None:
            raise _without_axes(source)
        if source.name:
            source = source.padded(len(axes))
        name = source.name if _VARIABLE.fullmatch(source.name) else bids_suffix(item.path.stem)
        return RawVolume(elements_of(source, axes, name))


def _without_axes(source: ArraySource) -> FormatError:
    example = EXAMPLES.get(len(source.shape), ",".join(AXES[: len(source.shape)]))
    variable = f" --variable {source.name}" if source.name else ""
    return FormatError(
        expected_got(
            "--axes",
            expected="a name for each dimension",
            got=f"none for {source.dtype} {source.shape}",
            where=source.path,
            fix=f"For example: mri-cli convert {source.path.name} COHORT --axes {example}{variable}",
        )
    )
