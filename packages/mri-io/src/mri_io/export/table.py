"""The exporters in one table, each imported when it is used; other packages register theirs."""

from importlib import import_module

from mri_io.errors import ConfigError, expected_got
from mri_io.export.base import Exporter
from mri_io.plugins import load_plugin, plugin_names

__all__ = ["PLUGINS", "exporter_class", "exporter_names"]

PLUGINS = "mri_io.exporters"
"""Entry-point group through which other packages register exporters."""

_EXPORTERS = {
    "nifti": "nifti:NiftiExporter",
    "dicom": "dicom:DicomExporter",
    "dicom-seg": "dicom_seg:DicomSegExporter",
    "png": "png:PngExporter",
    "bart": "bart:BartExporter",
    "fastmri": "fastmri:FastMriExporter",
    "ismrmrd": "ismrmrd:IsmrmrdExporter",
    "nnunet": "nnunet:NnUnetExporter",
    "ome-zarr": "ome_zarr:OmeZarrExporter",
}


def exporter_names() -> tuple[str, ...]:
    """Return the names of all exporters, those of other packages last."""
    registered = plugin_names(PLUGINS)
    twice = sorted(_EXPORTERS.keys() & set(registered))
    if twice:
        raise ConfigError(f"{PLUGINS}: an installed package registers {twice[0]!r}, which mri-io has itself.")
    return (*_EXPORTERS, *registered)


def exporter_class(name: str) -> type[Exporter]:
    """Return an exporter by name; ConfigError lists the names."""
    names = exporter_names()
    if name not in names:
        raise ConfigError(expected_got("format", expected=names, got=repr(name)))
    if name in _EXPORTERS:
        module, _, class_name = _EXPORTERS[name].partition(":")
        found = getattr(import_module(f"mri_io.export.{module}"), class_name)
    else:
        found = load_plugin(PLUGINS, name)
    if not (isinstance(found, type) and issubclass(found, Exporter)) or found.name != name:
        raise ConfigError(expected_got(f"{PLUGINS} {name!r}", expected=f"an Exporter named {name!r}", got=found))
    return found
