"""The table of readers: those of this package, and those that other packages register."""

from functools import cache
from importlib import import_module

from mri_io.errors import ConfigError, expected_got
from mri_io.formats.base import Format
from mri_io.formats.isolation import isolated
from mri_io.plugins import plugin_instance, plugin_names

__all__ = ["PLUGINS", "format_names", "formats", "get_format"]

PLUGINS = "mri_io.formats"
"""Entry-point group through which other packages register readers."""

_READERS = (
    # The first whose sniff accepts a file or folder reads it: particular layouts stand before general ones.
    "ahead:AheadFormat",
    "stanford_knees:StanfordKneesFormat",
    "ocmr:OcmrFormat",
    "ismrmrd:IsmrmrdFormat",
    "fastmri:FastMriFormat",
    "skm_tea:SkmTeaFormat",
    "cc359:Cc359Format",
    "bart:BartFormat",
    "twix:TwixFormat",
    "array_files:ArrayFilesFormat",
    "dicom:DicomFormat",
    "nnunet:NnunetFormat",
    "prostate158:Prostate158Format",
    "brats:BratsFormat",
    "isles:IslesFormat",
    "nifti_pairs:NiftiPairsFormat",
    "nifti:NiftiFormat",
    "analyze:AnalyzeFormat",
    "nrrd:NrrdFormat",
    "metaimage:MetaImageFormat",
    "parrec:ParRecFormat",
    "png_pairs:PngPairsFormat",
    "hdf5:Hdf5Format",  # whatever HDF5 is left, to refuse it by name
)


@cache
def formats() -> dict[str, Format]:
    """Return all readers by name, those of other packages first: they know their layouts best."""
    found: dict[str, Format] = {}
    for name in plugin_names(PLUGINS):
        found[name] = plugin_instance(PLUGINS, name, Format)
    for place in _READERS:
        module, _, reader_class = place.partition(":")
        reader = getattr(import_module(f"mri_io.formats.{module}"), reader_class)()
        if reader.name in found:
            raise ConfigError(f"{PLUGINS}: an installed package registers {reader.name!r}, which mri-io has itself.")
        found[reader.name] = reader
    return found


def format_names() -> tuple[str, ...]:
    """Return the names of all readers."""
    return tuple(formats())


def get_format(name: str, *, isolate: bool = False) -> Format:
    """Return a reader by name, perhaps one that works in a process of its own; ConfigError lists the names."""
    if name not in formats():
        raise ConfigError(expected_got("format", expected=("auto", *formats()), got=repr(name)))
    return isolated(formats()[name]) if isolate else formats()[name]
