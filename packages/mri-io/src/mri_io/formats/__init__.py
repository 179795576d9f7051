"""Readers of file formats, one file or folder each, in one table; chosen by content."""

from mri_io.formats.base import Format, Identity, RawElement, RawVolume, ReadOptions, SourceItem
from mri_io.formats.search import Found, find_items, find_sources
from mri_io.formats.table import PLUGINS, format_names, get_format

__all__ = [
    "PLUGINS",
    "Format",
    "Found",
    "Identity",
    "RawElement",
    "RawVolume",
    "ReadOptions",
    "SourceItem",
    "find_items",
    "find_sources",
    "format_names",
    "get_format",
]
