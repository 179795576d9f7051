"""Readers of file formats, one file each, in one table; chosen by content."""

from collections.abc import Sequence
from pathlib import Path

from mri_io.errors import ConfigError, FormatError, expected_got
from mri_io.formats.bart import BartFormat
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem
from mri_io.formats.fastmri import FastMriFormat
from mri_io.formats.ismrmrd import IsmrmrdFormat
from mri_io.formats.nifti import NiftiFormat
from mri_io.formats.png_pairs import PngPairsFormat

__all__ = ["FORMATS", "Format", "Identity", "RawElement", "RawVolume", "SourceItem", "find_items", "get_format"]

FORMATS: dict[str, Format] = {
    reader.name: reader for reader in (FastMriFormat(), IsmrmrdFormat(), BartFormat(), NiftiFormat(), PngPairsFormat())
}


def get_format(name: str) -> Format:
    """Return a reader by name; ConfigError lists the names."""
    if name not in FORMATS:
        raise ConfigError(expected_got("format", expected=("auto", *FORMATS), got=repr(name)))
    return FORMATS[name]


def find_items(sources: Sequence[str | Path], format: str = "auto") -> list[SourceItem]:
    """Return the volumes in files and folders.

    A folder is taken as one data set if a reader knows its layout; otherwise its files are looked at one by one
    (label maps in a folder ``labels`` are left to ``--labels``), and those of no known format are passed over.

    Raises
    ------
    FormatError
        When a source does not exist, or nothing in it is of a known (or the given) format.
    """
    readers = list(FORMATS.values()) if format == "auto" else [get_format(format)]
    items: list[SourceItem] = []
    for source in sources:
        path = Path(source)
        if not path.exists():
            raise FormatError(f"{path}: there is no such file or folder.")
        found = _find(path, readers)
        if not found:
            names = ", ".join(reader.name for reader in readers)
            raise FormatError(
                expected_got("content", expected=f"one of the formats {names}", got="none of them", where=path)
            )
        items += found
    # A pair of files given as both, or a file and its folder, are one item.
    return list({(item.path.resolve(), item.label): item for item in items}.values())


def _find(path: Path, readers: list[Format]) -> list[SourceItem]:
    for reader in readers:
        if reader.sniff(path):
            return reader.find(path)
    if not path.is_dir():
        return []
    items: list[SourceItem] = []
    for child in sorted(path.iterdir()):
        if not child.name.startswith(".") and not (child.is_dir() and child.name.lower() == "labels"):
            items += _find(child, readers)
    return items
