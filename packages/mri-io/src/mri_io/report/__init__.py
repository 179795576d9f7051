"""A self-contained HTML page of a cohort: images, errors, labels, metrics, curves, provenance (extra ``report``)."""

from mri_io.report.figures import comparison_figure, png_bytes
from mri_io.report.page import write_report

__all__ = ["comparison_figure", "png_bytes", "write_report"]
