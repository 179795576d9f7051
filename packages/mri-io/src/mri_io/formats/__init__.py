"""Readers of file formats, one file each, in one table; chosen by content."""

import os
from collections.abc import Sequence
from dataclasses import replace
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
    (label maps in a folder ``labels`` are left to ``--labels``), and those of no known format are passed over. What
    cannot be read, for want of permission for example, is an item with a `problem`.

    Raises
    ------
    FormatError
        When a source does not exist, or nothing in it is of a known (or the given) format.
    ConfigError
        When a source has an empty name.
    """
    readers = list(FORMATS.values()) if format == "auto" else [get_format(format)]
    items: dict[tuple[Path, str], tuple[SourceItem, Path]] = {}
    for source in sources:
        if not str(source):
            raise ConfigError("convert: expected a file or folder, got an empty name. Is a variable not set?")
        path = Path(source).absolute()  # workers on other machines may have another working directory
        if not _is_there(path):
            raise FormatError(f"{path}: there is no such file or folder.")
        found = _find(path, readers)
        if not found:
            names = ", ".join(reader.name for reader in readers)
            raise FormatError(
                expected_got("content", expected=f"one of the formats {names}", got="none of them", where=path)
            )
        for item in found:
            # A pair of files given as both, or a file and its folder, are one item.
            items.setdefault((item.path.resolve(), item.label), (item, item.path.parent.relative_to(_folder(path))))
    return _with_distinct_labels(list(items.values()))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that may not be entered; looking for volumes says so
        return True


def _folder(source: Path) -> Path:
    try:
        return source if source.is_dir() else source.parent
    except OSError:
        return source.parent


def _find(path: Path, readers: list[Format]) -> list[SourceItem]:
    try:
        for reader in readers:
            if reader.sniff(path):
                return reader.find(path)
        children = sorted(path.iterdir()) if path.is_dir() else []
        children = [c for c in children if c.name[0] != "." and not (c.name.lower() == "labels" and c.is_dir())]
    except OSError as error:
        problem = f"{path}: cannot be read: {error.strerror or error}. Check its permissions, or leave it out."
        return [SourceItem("", path, (), path.name, problem=problem)]
    return [item for child in children for item in _find(child, readers)]


def _with_distinct_labels(found: Sequence[tuple[SourceItem, Path]]) -> list[SourceItem]:
    """Label items by their paths below the given folders, or below one that all share where those are the same."""
    labels = [(folder / item.label).as_posix() for item, folder in found]
    if len(set(labels)) < len(labels):
        folders = [item.path.parent.resolve() for item, _ in found]
        shared = os.path.commonpath(folders)
        labels = [
            (own.relative_to(shared) / item.label).as_posix() for (item, _), own in zip(found, folders, strict=True)
        ]
    return [replace(item, label=label) for (item, _), label in zip(found, labels, strict=True)]
