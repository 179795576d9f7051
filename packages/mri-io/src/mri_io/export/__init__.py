"""Write elements as files for other tools."""

from mri_io.export.base import PARTS, DataSetExporter, ElementExporter, Exporter, ExportItem, ExportOptions
from mri_io.export.running import ExportSummary, export, export_cohort, exported_files, make_exporter
from mri_io.export.table import exporter_class, exporter_names

__all__ = [
    "PARTS",
    "DataSetExporter",
    "ElementExporter",
    "ExportItem",
    "ExportOptions",
    "ExportSummary",
    "Exporter",
    "export",
    "export_cohort",
    "exported_files",
    "exporter_class",
    "exporter_names",
    "make_exporter",
]
