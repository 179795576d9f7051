"""A self-contained HTML page of a cohort: images, errors, labels, metrics, curves, provenance (extra ``report``)."""

from mri_io.report.page import write_report

__all__ = ["write_report"]
